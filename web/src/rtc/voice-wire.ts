/**
 * The JSON messages of the voice WebSocket, as types. Anything unknown or misshapen is `null`: a newer
 * server may say more than this page understands.
 */

/** What a client says. */
export type ClientMessage =
  | { readonly type: "start_sending" }
  | { readonly type: "start_receiving"; readonly stream_id: string }
  | { readonly type: "webrtc_offer"; readonly offer: RTCSessionDescriptionInit }
  | { readonly type: "webrtc_answer"; readonly answer: RTCSessionDescriptionInit }
  | { readonly type: "ice_candidate"; readonly candidate: RTCIceCandidateInit }
  | { readonly type: "get_available_streams" }
  | { readonly type: "stop_stream" }
  | { readonly type: "ping" };

/** How loud a stream is at one moment. */
export interface Level {
  readonly streamId: string;
  /** Amplitude, 0 to 1. */
  readonly level: number;
}

/** What the server says. */
export type ServerMessage =
  | { readonly type: "sender_ready"; readonly connectionId: string }
  /** `streamId`: whose voice it is; empty where the server does not say. */
  | { readonly type: "webrtc_offer"; readonly sdp: string; readonly streamId: string }
  | { readonly type: "webrtc_answer"; readonly sdp: string }
  | { readonly type: "ice_candidate"; readonly candidate: RTCIceCandidateInit }
  /** Oldest first. */
  | { readonly type: "available_streams"; readonly streams: readonly string[] }
  | { readonly type: "stream_available"; readonly streamId: string }
  | { readonly type: "stream_ended"; readonly streamId: string }
  | ({ readonly type: "audio_data" } & Level)
  | { readonly type: "pong" }
  | { readonly type: "error"; readonly message: string };

/** The error that answers `start_receiving` while nobody speaks. */
export const NO_STREAM = "No audio stream available";
/** The error when the stream that was asked for or listened to is over. */
export const STREAM_ENDED = "Stream ended";

/** The stream that a sender's connection makes. */
export function streamIdOf(connectionId: string): string {
  return `stream_${connectionId}`;
}

/** `stream_3f9c…` as `Voice 3F9C`: ids are too long to be told apart. */
export function voiceName(streamId: string): string {
  return `Voice ${streamId.replace(/^stream_/, "").slice(0, 4).toUpperCase()}`;
}

/** Reads one text message. */
export function serverMessageFrom(data: unknown): ServerMessage | null {
  if (typeof data !== "string") return null;
  let json: unknown;
  try {
    json = JSON.parse(data);
  } catch {
    return null;
  }
  return isRecord(json) ? messageFrom(json) : null;
}

function messageFrom(json: Record<string, unknown>): ServerMessage | null {
  switch (json["type"]) {
    case "sender_ready":
      return withText(json["connection_id"], (connectionId) => ({ type: "sender_ready", connectionId }));
    case "webrtc_offer":
      return withText(sdpOf(json["offer"]), (sdp) => ({ type: "webrtc_offer", sdp, streamId: text(json["stream_id"]) }));
    case "webrtc_answer":
      return withText(sdpOf(json["answer"]), (sdp) => ({ type: "webrtc_answer", sdp }));
    case "ice_candidate":
      return isRecord(json["candidate"]) ? { type: "ice_candidate", candidate: json["candidate"] } : null;
    case "available_streams":
      return { type: "available_streams", streams: textsOf(json["streams"]) };
    case "stream_available":
      return withText(json["stream_id"], (streamId) => ({ type: "stream_available", streamId }));
    case "stream_ended":
      return withText(json["stream_id"], (streamId) => ({ type: "stream_ended", streamId }));
    case "audio_data":
      return withText(json["stream_id"], (streamId) => ({ type: "audio_data", streamId, level: amplitude(json["level"]) }));
    case "pong":
      return { type: "pong" };
    case "error":
      return { type: "error", message: text(json["message"]) };
    default:
      return null;
  }
}

function withText(value: unknown, make: (text: string) => ServerMessage): ServerMessage | null {
  return typeof value === "string" && value !== "" ? make(value) : null;
}

function text(value: unknown): string {
  return typeof value === "string" ? value : "";
}

function sdpOf(description: unknown): unknown {
  return isRecord(description) ? description["sdp"] : undefined;
}

function textsOf(value: unknown): string[] {
  return Array.isArray(value) ? value.filter((item): item is string => typeof item === "string" && item !== "") : [];
}

function amplitude(value: unknown): number {
  return typeof value === "number" && value > 0 ? Math.min(1, value) : 0;
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}
