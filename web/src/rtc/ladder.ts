/**
 * Why there is no picture yet: the rung of the ladder that a viewer stands on, and one sentence.
 *
 * The rungs are climbed in this order; the first that does not hold is the one to name.
 */

import type { SessionState } from "./session";

export type Rung =
  | "server"
  | "token"
  | "quota"
  | "camera"
  | "offer"
  | "ice"
  | "dtls"
  | "first_packet"
  | "first_keyframe"
  | "decode"
  | "playing";

export interface Standing {
  readonly rung: Rung;
  readonly sentence: string;
}

/** What is known of a viewer. */
export interface Facts {
  readonly session: SessionState;
  /** State of the camera as the server tells it; empty where it was not asked yet. */
  readonly cameraState: string;
  /** The server's sentence about the camera; empty where all is well. */
  readonly cameraReason: string;
  readonly packetsReceived: number;
  readonly framesDecoded: number;
  /** Whether frames have been decoded within the last seconds. */
  readonly advancing: boolean;
  /** Whether packets have arrived within the last seconds. */
  readonly arriving: boolean;
}

/** Whether a picture can be expected of a camera in this state; the empty state is not known yet. */
export function isCameraFine(state: string): boolean {
  return ["", "idle", "connecting", "live", "closing"].includes(state);
}

export function standing(facts: Facts): Standing {
  const { session } = facts;
  switch (session.kind) {
    case "idle":
    case "reserving":
      return { rung: "server", sentence: "Asking the server for a place." };
    case "offering":
      return { rung: "offer", sentence: "Agreeing with the server on how to connect." };
    case "connecting":
      return session.stage === "dtls"
        ? { rung: "dtls", sentence: "The path is open; agreeing on the encryption keys." }
        : { rung: "ice", sentence: "Looking for a way to the server's media port." };
    case "interrupted":
      return { rung: "ice", sentence: "The server has gone silent; waiting for it to come back." };
    case "pausing":
    case "refused":
      return { rung: refusedRung(session.cause.status, session.cause.code), sentence: session.cause.sentence };
    case "connected":
      return connectedStanding(facts);
    case "closed":
      return { rung: "server", sentence: "Closed." };
  }
}

function refusedRung(status: number, code: string): Rung {
  switch (status) {
    case 401:
    case 403:
      return "token";
    case 429:
      return "quota";
    case 410:
      return code === "PREEMPTED" ? "quota" : "token";
    case 404:
    case 409:
      return "camera";
    case 406:
      return "offer";
    default:
      return code === "LOST" ? "ice" : "server";
  }
}

function connectedStanding(facts: Facts): Standing {
  if (facts.advancing) return { rung: "playing", sentence: "" };
  if (!isCameraFine(facts.cameraState)) {
    return { rung: "camera", sentence: facts.cameraReason || "The camera has no picture at the moment." };
  }
  if (!facts.arriving) return silentStanding(facts);
  if (facts.framesDecoded === 0) {
    return { rung: "first_keyframe", sentence: "Packets arrive; waiting for the first whole picture." };
  }
  return { rung: "decode", sentence: "Packets arrive, but this browser is not decoding them at the moment." };
}

function silentStanding(facts: Facts): Standing {
  if (facts.cameraState === "connecting" || facts.cameraState === "idle" || facts.cameraState === "closing") {
    return { rung: "camera", sentence: facts.cameraReason || "The server is calling the camera." };
  }
  return facts.packetsReceived === 0
    ? { rung: "first_packet", sentence: "Connected; waiting for the camera's first packet." }
    : { rung: "first_packet", sentence: "Connected, but no packets come from the camera." };
}
