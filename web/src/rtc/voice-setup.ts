/**
 * What the server says of its voice part: the microphone's constraints, and where its HTTPS is.
 *
 * Both answers are a help, not a need: without them the defaults hold.
 */

import { iceServersFrom } from "../api/wire";
import type { VoiceAddress } from "./voice-address";

const REQUEST_MS_MAX = 4_000;

/** How the microphone shall be opened. */
export type MicrophoneWishes = Pick<
  MediaTrackConstraints,
  "channelCount" | "sampleRate" | "echoCancellation" | "noiseSuppression" | "autoGainControl"
>;

export interface VoiceSettings {
  readonly wishes: MicrophoneWishes;
  /** On a network of one building there are none, and none are needed. */
  readonly iceServers: readonly RTCIceServer[];
  /** Whoever has no token is turned away. */
  readonly needsToken: boolean;
  /** The server may have no voice part. */
  readonly isEnabled: boolean;
}

/** Speech in a room with loudspeakers, on a network of one building. */
export const DEFAULT_SETTINGS: VoiceSettings = {
  wishes: {
    channelCount: { ideal: 1 },
    echoCancellation: { ideal: true },
    noiseSuppression: { ideal: true },
    autoGainControl: { ideal: true },
  },
  iceServers: [],
  needsToken: false,
  isEnabled: true,
};

/** Where a browser gets a secure page, so that it hands out the microphone. */
export interface SecureDoor {
  /** The same server by HTTPS. */
  readonly address: VoiceAddress;
  /** The certificate authority to install on phones, where the certificate is self-made. */
  readonly caUrl: string | null;
}

/** Asks for the settings, once. */
export async function fetchSettings(address: VoiceAddress, get: typeof fetch = fetch): Promise<VoiceSettings> {
  const json = await fetchJson(address.at("voice/config"), get);
  return {
    wishes: isRecord(json["audio"]) ? wishesFrom(json["audio"]) : DEFAULT_SETTINGS.wishes,
    iceServers: iceServersFrom(json["iceServers"]),
    needsToken: json["token_required"] === true,
    isEnabled: json["enabled"] !== false,
  };
}

/** Asks for HTTPS; `null` where the server has none, or does not say. */
export async function fetchSecureDoor(address: VoiceAddress, get: typeof fetch = fetch): Promise<SecureDoor | null> {
  const json = await fetchJson(address.at("tls"), get);
  const port = json["https_port"];
  if (typeof port !== "number" || !Number.isInteger(port) || port < 1 || port > 65_535) return null;
  const ca = json["ca"];
  const hasCa = ca === true || (typeof ca === "string" && ca !== "");
  return { address: address.secure(port), caUrl: hasCa ? address.at("ca.crt").href : null };
}

/** A wish is never a must: a device that cannot still talks. */
function wishesFrom(json: Readonly<Record<string, unknown>>): MicrophoneWishes {
  const flag = (name: string): ConstrainBoolean => ({ ideal: typeof json[name] === "boolean" ? json[name] : true });
  const rate = json["sampleRate"];
  return {
    channelCount: { ideal: json["channelCount"] === 2 ? 2 : 1 },
    ...(typeof rate === "number" && rate >= 8_000 && rate <= 48_000 ? { sampleRate: { ideal: rate } } : {}),
    echoCancellation: flag("echoCancellation"),
    noiseSuppression: flag("noiseSuppression"),
    autoGainControl: flag("autoGainControl"),
  };
}

async function fetchJson(url: URL, get: typeof fetch): Promise<Record<string, unknown>> {
  try {
    const answer = await get(url, { signal: AbortSignal.timeout(REQUEST_MS_MAX) });
    const json: unknown = answer.ok ? await answer.json() : {};
    return isRecord(json) ? json : {};
  } catch {
    return {};
  }
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}
