/**
 * The server's JSON, turned into types that cannot be wrong.
 *
 * A missing or odd member becomes a harmless value; an answer from a newer server still shows.
 */

import { asSentence } from "../rtc/errors";
import type { Watching } from "../rtc/session";

export interface Camera {
  readonly id: string;
  readonly name: string;
  readonly nameAr: string;
  readonly location: string;
  readonly source: string;
  readonly synthetic: boolean;
  readonly status: string;
  /** `idle connecting live closing unreachable unauthorized not_found no_publisher no_keyframe b_frames unsupported_codec unusable lost protocol`. */
  readonly state: string;
  /** One sentence, where there is no picture. */
  readonly reason: string;
  /** Until the server calls the camera again. */
  readonly retryInS: number | null;
  readonly viewerCount: number;
}

/** A camera that is in another state than before. */
export interface CameraNews {
  readonly id: string;
  /** `REMOVED` where there is no such camera any more. */
  readonly status: string;
  readonly state: string;
  readonly reason: string;
}

export interface Usage {
  readonly current: number;
  readonly limit: number;
}

export interface SourceUsage extends Usage {
  readonly source: string;
}

export interface Totals {
  readonly viewers: number;
  /** Cameras that are watched. */
  readonly streams: number;
  readonly sources: readonly SourceUsage[];
  readonly total: Usage;
  /** Viewers by camera; cameras without any are absent. */
  readonly viewersByCamera: ReadonlyMap<string, number>;
}

/** A wall that the server keeps. */
export interface SavedWall {
  readonly id: string;
  readonly name: string;
  /** Row by row. */
  readonly cameraIds: readonly string[];
}

export interface CameraPage {
  readonly cameras: readonly Camera[];
  readonly total: number;
}

export function cameraFrom(value: unknown): Camera {
  const json = record(value);
  return {
    id: text(json["id"]),
    name: text(json["name"]) || text(json["id"]),
    nameAr: text(json["name_ar"]),
    location: text(json["location"]),
    source: text(json["source"]),
    synthetic: json["synthetic"] === true,
    status: text(json["status"]),
    state: text(json["state"]),
    reason: asSentence(text(json["reason"])),
    retryInS: typeof json["retry_in_s"] === "number" ? json["retry_in_s"] : null,
    viewerCount: count(json["viewer_count"]),
  };
}

export function cameraNewsFrom(value: unknown): CameraNews {
  const json = record(value);
  return {
    id: text(json["camera_id"]),
    status: text(json["status"]),
    state: text(json["state"]),
    reason: asSentence(text(json["reason"])),
  };
}

export function watchingFrom(value: unknown): Watching {
  const json = record(value);
  return { rendition: text(json["rendition"]), switches: count(json["switches"]) };
}

/** Most ICE servers that are taken: browsers slow down beyond four or five. */
const ICE_SERVERS_MAX = 4;

/** STUN and TURN servers; what a browser would refuse is left out. */
export function iceServersFrom(value: unknown): RTCIceServer[] {
  const isAddress = (url: string) => /^(stun|stuns|turn|turns):/i.test(url);
  const servers = list(value).map(record).map((json) => ({
    urls: list(json["urls"]).map(text).filter(isAddress),
    ...(typeof json["username"] === "string" ? { username: json["username"] } : {}),
    ...(typeof json["credential"] === "string" ? { credential: json["credential"] } : {}),
  }));
  return servers.filter(({ urls }) => urls.length > 0).slice(0, ICE_SERVERS_MAX);
}

export function cameraPageFrom(value: unknown): CameraPage {
  const json = record(value);
  const cameras = list(json["cameras"]).map(cameraFrom);
  return { cameras, total: Math.max(count(json["total"]), cameras.length) };
}

export function savedWallFrom(value: unknown): SavedWall {
  const json = record(value);
  const tiles = list(json["tiles"]).map(record);
  const inRows = tiles.toSorted((a, b) => count(a["y"]) - count(b["y"]) || count(a["x"]) - count(b["x"]));
  const cameraIds = inRows.map((tile) => text(tile["camera_id"])).filter((id) => id !== "");
  return { id: text(json["id"]), name: text(json["name"]), cameraIds: [...new Set(cameraIds)] };
}

export function savedWallsFrom(value: unknown): SavedWall[] {
  return list(record(value)["layouts"]).map(savedWallFrom);
}

export function totalsFrom(value: unknown): Totals {
  const json = record(value);
  const cameras = list(json["camera_stats"]).map(record);
  const watched = cameras.map((row) => [text(row["camera_id"]), count(row["viewer_count"])] as const);
  return {
    viewers: count(json["total_viewers"]),
    streams: watched.filter(([, viewers]) => viewers > 0).length,
    sources: list(json["stats"])
      .map(record)
      .map((row) => ({ source: text(row["source"]), ...usageFrom(row) })),
    total: usageFrom(record(json["total"])),
    viewersByCamera: new Map(watched),
  };
}

function usageFrom(json: Readonly<Record<string, unknown>>): Usage {
  return { current: count(json["current"]), limit: count(json["limit"]) };
}

export function record(value: unknown): Readonly<Record<string, unknown>> {
  return typeof value === "object" && value !== null ? (value as Record<string, unknown>) : {};
}

export function text(value: unknown): string {
  return typeof value === "string" ? value : "";
}

function list(value: unknown): readonly unknown[] {
  return Array.isArray(value) ? value : [];
}

function count(value: unknown): number {
  return typeof value === "number" && Number.isFinite(value) && value > 0 ? value : 0;
}
