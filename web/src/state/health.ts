/**
 * What a tile says where there is no picture: how it stands, why, and what happens next.
 *
 * Pure: everything it needs is handed in.
 */

import type { Camera } from "../api/wire";
import type { Refusal } from "../rtc/errors";
import { type Facts, isCameraFine, type Rung, standing } from "../rtc/ladder";
import type { SessionState } from "../rtc/session";

export type Condition = "idle" | "connecting" | "playing" | "waiting" | "error";

export interface Health {
  readonly condition: Condition;
  readonly rung: Rung;
  /** A few words. */
  readonly headline: string;
  /** One sentence; empty while playing. */
  readonly reason: string;
  /** The same in Arabic, where the server gives it. */
  readonly reasonAr: string;
  /** When something will happen by itself, on the `performance.now()` clock; `null` where nothing is timed. */
  readonly next: { readonly what: "retry" | "camera"; readonly atMs: number } | null;
}

export interface HealthFacts extends Facts {
  readonly camera: Camera | null;
  /** When `camera` was told. */
  readonly cameraAtMs: number;
  /** Whether a picture was ever shown. */
  readonly everPlayed: boolean;
}

export function health(facts: HealthFacts): Health {
  const { rung, sentence } = standing(facts);
  const cause = causeOf(facts.session);
  return {
    condition: conditionOf(facts, rung),
    rung,
    headline: headlineOf(facts, rung, cause),
    reason: reasonOf(facts, cause, sentence),
    reasonAr: cause?.sentenceAr ?? "",
    next: nextOf(facts),
  };
}

/** The words for a camera's state, where it has no picture. */
export function cameraHeadline(state: string): string {
  const words: Record<string, string> = {
    idle: "Ready",
    connecting: "Calling the camera",
    live: "Live",
    closing: "Winding down",
    unreachable: "Camera unreachable",
    unauthorized: "Password refused",
    not_found: "Wrong path",
    no_publisher: "Nobody publishes",
    no_keyframe: "No keyframe",
    b_frames: "B-frames",
    unsupported_codec: "Codec not playable",
    unusable: "Address not usable",
    lost: "Signal lost",
    protocol: "Protocol error",
  };
  return words[state] ?? "Unknown state";
}

function causeOf(session: SessionState): Refusal | null {
  return session.kind === "pausing" || session.kind === "refused" ? session.cause : null;
}

/** Refusals that need a person; all others are waited out. */
const ERRORS: ReadonlySet<number> = new Set([400, 401, 403, 404, 406, 415]);

function conditionOf(facts: HealthFacts, rung: Rung): Condition {
  switch (facts.session.kind) {
    case "idle":
    case "closed":
      return "idle";
    case "reserving":
    case "offering":
    case "connecting":
      return "connecting";
    case "interrupted":
      return "waiting";
    case "pausing":
    case "refused":
      return ERRORS.has(facts.session.cause.status) ? "error" : "waiting";
    case "connected":
      if (rung === "playing") return "playing";
      return facts.everPlayed || !isCameraFine(facts.cameraState) ? "waiting" : "connecting";
  }
}

function headlineOf(facts: HealthFacts, rung: Rung, cause: Refusal | null): string {
  if (cause !== null) return refusalHeadline(facts, cause);
  if (rung === "playing") return "Playing";
  if (rung === "camera") return cameraHeadline(facts.cameraState);
  if (facts.session.kind === "interrupted") return "Connection interrupted";
  return facts.everPlayed && facts.session.kind === "connected" ? "Picture stopped" : "Connecting";
}

function refusalHeadline(facts: HealthFacts, cause: Refusal): string {
  switch (cause.status) {
    case 401:
      return "Key needed";
    case 403:
      return "Not allowed";
    case 404:
      return "Unknown camera";
    case 406:
      return "No common codec";
    case 409:
      return facts.camera === null ? "No picture" : cameraHeadline(facts.cameraState);
    case 410:
      return endedHeadline(cause.code);
    case 429:
      return "All places taken";
    case 0:
      return cause.code === "LOST" ? "Reconnecting" : "Server unreachable";
    default:
      return "Refused by the server";
  }
}

/** Of a reservation that the server ended. */
function endedHeadline(code: string): string {
  const words: Record<string, string> = {
    PREEMPTED: "Place given away",
    REMOVED: "Sent away",
    TOKEN_EXPIRED: "Token expired",
    CAMERA_REMOVED: "Camera removed",
  };
  return words[code] ?? "Reconnecting";
}

/** The camera's own reason is fresher than the refusal that quoted it. */
function reasonOf(facts: HealthFacts, cause: Refusal | null, sentence: string): string {
  return cause?.status === 409 && facts.cameraReason !== "" ? facts.cameraReason : sentence;
}

function nextOf(facts: HealthFacts): Health["next"] {
  if (facts.session.kind === "pausing") return { what: "retry", atMs: facts.session.retryAtMs };
  if (facts.session.kind !== "connected" || facts.advancing) return null;
  const retryInS = facts.camera?.retryInS ?? null;
  return retryInS === null ? null : { what: "camera", atMs: facts.cameraAtMs + retryInS * 1000 };
}
