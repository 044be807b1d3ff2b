/**
 * The HTTP API, as far as the page uses it. Every call rejects with a `Refusal`.
 *
 * Knows addresses and headers; what an answer contains is `wire.ts`.
 */

import { refusalFrom, unreachable } from "../rtc/errors";
import type { Heartbeat, Reservation, SessionApi } from "../rtc/session";
import { ownAddress } from "../rtc/whep";
import {
  type Camera,
  type CameraPage,
  cameraFrom,
  cameraPageFrom,
  iceServersFrom,
  record,
  type SavedWall,
  savedWallFrom,
  savedWallsFrom,
  text,
  type Totals,
  totalsFrom,
  watchingFrom,
} from "./wire";

const REQUEST_MS_MAX = 10_000;
/** Cameras asked for at once, as many as the server gives; larger parks take several requests. */
const PAGE = 1_000;
/** As many as a server has. */
const CAMERAS_MAX = 10_000;

export interface ApiOptions {
  readonly fetch: typeof fetch;
  /** The API key in use, as a JWT; empty where the server asks for none. */
  readonly key: () => string;
  /** Who watches, for the server's account: one name a browser, or who the key says it is. */
  readonly userId: () => string;
  /** What this page calls itself, here and at the WebSocket: when that ends, the server looks for its viewers. */
  readonly page: string;
}

export class Api implements SessionApi {
  readonly #options: ApiOptions;

  constructor(options: ApiOptions) {
    this.#options = options;
  }

  /** The whole camera park. */
  async cameras(): Promise<Camera[]> {
    const cameras: Camera[] = [];
    let page: CameraPage;
    do {
      page = cameraPageFrom(await this.#call("GET", `/api/v1/cameras?limit=${PAGE}&offset=${cameras.length}`));
      cameras.push(...page.cameras);
    } while (page.cameras.length > 0 && cameras.length < Math.min(page.total, CAMERAS_MAX));
    return cameras;
  }

  async camera(cameraId: string): Promise<Camera> {
    return cameraFrom(await this.#call("GET", `/api/v1/cameras/${encodeURIComponent(cameraId)}`));
  }

  async totals(): Promise<Totals> {
    return totalsFrom(await this.#call("GET", "/api/v1/stream/stats"));
  }

  /** The walls that whoever uses the page has saved, by name. */
  async savedWalls(): Promise<SavedWall[]> {
    return savedWallsFrom(await this.#call("GET", "/api/v1/layouts"));
  }

  async savedWall(id: string): Promise<SavedWall> {
    return savedWallFrom(await this.#call("GET", wallPath(id)));
  }

  async saveWall(name: string, cameraIds: readonly string[]): Promise<SavedWall> {
    return savedWallFrom(await this.#call("POST", "/api/v1/layouts", { name, tiles: tilesOf(cameraIds) }));
  }

  /** Its name stays. */
  async changeWall(id: string, cameraIds: readonly string[]): Promise<SavedWall> {
    return savedWallFrom(await this.#call("PUT", wallPath(id), { tiles: tilesOf(cameraIds) }));
  }

  async deleteWall(id: string): Promise<void> {
    await this.#call("DELETE", wallPath(id));
  }

  async reserve(cameraId: string, quality: string): Promise<Reservation> {
    const body = { camera_id: cameraId, user_id: this.#options.userId(), quality, page: this.#options.page };
    const json = record(await this.#call("POST", "/api/v1/stream/reserve", body));
    const whepUrl = text(json["whep_url"]) || `/whep/${encodeURIComponent(cameraId)}`;
    return {
      reservationId: text(json["reservation_id"]),
      whepUrl: ownAddress(whepUrl, "/"),
      token: text(json["token"]),
      iceServers: iceServersFrom(json["ice_servers"]),
      watching: watchingFrom(json),
    };
  }

  async heartbeat(
    reservationId: string,
    quality: string | null,
    framesDecoded: number | null = null,
  ): Promise<Heartbeat> {
    const path = `/api/v1/stream/heartbeat/${encodeURIComponent(reservationId)}`;
    const body = {
      ...(quality === null ? {} : { quality }),
      ...(framesDecoded === null ? {} : { frames_decoded: framesDecoded }),
    };
    const json = record(await this.#call("POST", path, body));
    return { token: text(json["token"]), watching: watchingFrom(json) };
  }

  async release(reservationId: string): Promise<void> {
    await this.#call("DELETE", releasePath(reservationId));
  }

  abandon(reservationId: string): void {
    const init = { method: "DELETE", headers: this.#headers(), keepalive: true };
    void this.#options.fetch(releasePath(reservationId), init).catch(() => undefined);
  }

  async #call(method: string, path: string, body?: unknown): Promise<unknown> {
    const answer = await this.#options
      .fetch(path, {
        method,
        headers: { ...this.#headers(), ...(body === undefined ? {} : { "Content-Type": "application/json" }) },
        ...(body === undefined ? {} : { body: JSON.stringify(body) }),
        cache: "no-store",
        signal: AbortSignal.timeout(REQUEST_MS_MAX),
      })
      .catch(() => {
        throw unreachable();
      });
    if (!answer.ok) throw await refusalFrom(answer);
    return answer.json().catch(() => null);
  }

  #headers(): Record<string, string> {
    const key = this.#options.key();
    return key === "" ? { Accept: "application/json" } : { Accept: "application/json", Authorization: `Bearer ${key}` };
  }
}

function wallPath(id: string): string {
  return `/api/v1/layouts/${encodeURIComponent(id)}`;
}

/** The server finds a place for each. */
function tilesOf(cameraIds: readonly string[]): { camera_id: string }[] {
  return cameraIds.map((id) => ({ camera_id: id }));
}

function releasePath(reservationId: string): string {
  return `/api/v1/stream/release/${encodeURIComponent(reservationId)}`;
}
