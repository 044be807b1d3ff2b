/**
 * What the server says of its voice part: the microphone's constraints, and where its HTTPS is.
 *
 * Both answers are a help, not a need: without them the defaults hold.
 */

import type { VoiceAddress } from "./voice-address";

const REQUEST_MS_MAX = 4_000;

/** How the microphone shall be opened. */
export type MicrophoneWishes = Pick<
  MediaTrackConstraints,
  "channelCount" | "sampleRate" | "echoCancellation" | "noiseSuppression" | "autoGainControl"
>;

/** Speech in a room with loudspeakers. */
export const DEFAULT_WISHES: MicrophoneWishes = {
  channelCount: { ideal: 1 },
  echoCancellation: { ideal: true },
  noiseSuppression: { ideal: true },
  autoGainControl: { ideal: true },
};

/** Where a browser gets a secure page, so that it hands out the microphone. */
export interface SecureDoor {
  /** The same server by HTTPS. */
  readonly address: VoiceAddress;
  /** The certificate authority to install on phones, where the certificate is self-made. */
  readonly caUrl: string | null;
}

/** Asks for the microphone's constraints, once. */
export async function fetchWishes(address: VoiceAddress, get: typeof fetch = fetch): Promise<MicrophoneWishes> {
  const json = await fetchJson(address.at("voice/config"), get);
  const nested = json["audio_constraints"];
  return wishesFrom(isRecord(nested) ? nested : json);
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

/** The settings' names are those of `config.json`. A wish is never a must: a device that cannot still talks. */
export function wishesFrom(json: Readonly<Record<string, unknown>>): MicrophoneWishes {
  const flag = (name: string): ConstrainBoolean => ({ ideal: typeof json[name] === "boolean" ? json[name] : true });
  const rate = json["sample_rate"];
  return {
    channelCount: { ideal: json["channels"] === 2 ? 2 : 1 },
    ...(typeof rate === "number" && rate >= 8_000 && rate <= 48_000 ? { sampleRate: { ideal: rate } } : {}),
    echoCancellation: flag("echo_cancellation"),
    noiseSuppression: flag("noise_suppression"),
    autoGainControl: flag("auto_gain_control"),
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
