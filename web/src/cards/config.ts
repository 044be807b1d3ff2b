/** What a person wrote below `type: custom:voice-…-card`, read strictly: each mistake is one clear sentence. */

import { addressFrom, type PageFacts, type VoiceAddress } from "../rtc/voice-address";
import type { SwitchMode } from "../rtc/voice-switch";

/** A card's configuration, as Home Assistant hands it over: whatever YAML can be. */
export interface RawConfig {
  readonly type: string;
  readonly [option: string]: unknown;
}

export interface SendingConfig {
  readonly address: VoiceAddress;
  /** Empty where the server asks for none. */
  readonly token: string;
  readonly title: string;
  readonly mode: SwitchMode;
}

export interface ReceivingConfig {
  readonly address: VoiceAddress;
  /** Empty where the server asks for none. */
  readonly token: string;
  readonly title: string;
  readonly autoListen: boolean;
  /** An entity of Home Assistant that plays, or `null` for this browser alone. */
  readonly targetMediaPlayer: string | null;
  /** What that entity is told to play. */
  readonly streamUrl: string;
}

/** Where a card is: the page, and the server that its script came from. */
export interface Surroundings {
  readonly page: PageFacts;
  readonly home: VoiceAddress | null;
}

export function sendingConfigFrom(raw: RawConfig, around: Surroundings): SendingConfig {
  return { address: addressOf(raw, around), token: tokenOf(raw["token"]), title: titleOf(raw, "Talk"), mode: modeOf(raw["mode"]) };
}

export function receivingConfigFrom(raw: RawConfig, around: Surroundings): ReceivingConfig {
  const address = addressOf(raw, around);
  return {
    address,
    token: tokenOf(raw["token"]),
    title: titleOf(raw, "Listen"),
    autoListen: flag(raw, "auto_listen"),
    targetMediaPlayer: playerOf(raw["target_media_player"]),
    streamUrl: streamUrlOf(raw["stream_url"]) ?? address.at("stream/latest.mp3").href,
  };
}

/** Whether a speaker elsewhere would look for this address on itself. */
export function isOnlyHere(url: string): boolean {
  return /^(localhost|.*\.localhost|127(\.\d+){3}|\[::1\])$/i.test(new URL(url).hostname);
}

function addressOf(raw: RawConfig, { page, home }: Surroundings): VoiceAddress {
  const setting = raw["server_url"];
  if (isUnset(setting)) {
    if (home !== null) return home;
    throw new Error("server_url is missing; write where Manifold runs, like http://192.168.1.20:8080.");
  }
  if (typeof setting !== "string") throw new Error(`server_url has to be text, like "http://192.168.1.20:8080"; it is ${kindOf(setting)}.`);
  return addressFrom(setting, page);
}

/** `title`, or `name` as older cards had it. */
function titleOf(raw: RawConfig, otherwise: string): string {
  for (const option of ["title", "name"]) {
    const value = raw[option];
    if (isUnset(value)) continue;
    if (typeof value !== "string" && typeof value !== "number") throw new Error(`${option} has to be text; it is ${kindOf(value)}.`);
    return String(value);
  }
  return otherwise;
}

function tokenOf(value: unknown): string {
  if (isUnset(value)) return "";
  if (typeof value === "string") return value;
  throw new Error("token has to be text; put quotes around it.");
}

function modeOf(value: unknown): SwitchMode {
  if (isUnset(value) || value === "hold") return "hold";
  if (value === "latch") return "latch";
  throw new Error("mode has to be “hold” (talk while it is pressed) or “latch” (press on, press off).");
}

function flag(raw: RawConfig, option: string): boolean {
  const value = raw[option];
  if (isUnset(value)) return false;
  if (typeof value !== "boolean") throw new Error(`${option} has to be true or false; it is ${kindOf(value)}.`);
  return value;
}

function playerOf(value: unknown): string | null {
  if (isUnset(value)) return null;
  if (typeof value === "string" && /^media_player\.[a-z0-9_]+$/.test(value)) return value;
  throw new Error("target_media_player has to be one media player of Home Assistant, like media_player.kitchen.");
}

function streamUrlOf(value: unknown): string | null {
  if (isUnset(value)) return null;
  if (typeof value === "string" && /^https?:\/\/[^/]/.test(value)) return value;
  throw new Error("stream_url has to begin with http:// or https://, like http://192.168.1.20:8080/stream/latest.mp3.");
}

function isUnset(value: unknown): boolean {
  return value === undefined || value === null || value === "";
}

function kindOf(value: unknown): string {
  if (Array.isArray(value)) return "a list";
  return typeof value === "object" ? "a table" : `“${String(value)}”`;
}
