/** What the talk room says of its states. */

import type { ReceiverState } from "../rtc/voice-receiver";
import type { SenderState } from "../rtc/voice-sender";
import type { SocketState } from "../rtc/voice-socket";
import type { SwitchMode } from "../rtc/voice-switch";

export interface TalkWords {
  /** On the button. */
  readonly label: string;
  /** Below it. */
  readonly hint: string;
}

export function talkWords(state: SenderState, mode: SwitchMode): TalkWords {
  switch (state.kind) {
    case "idle":
    case "failed":
      return mode === "hold"
        ? { label: "Hold to talk", hint: "Hold the button, or Space or Enter" }
        : { label: "Press to talk", hint: "Press the button, or Space or Enter" };
    case "opening":
      return { label: "One moment", hint: "Opening the microphone and the way to the server" };
    case "on-air":
      return { label: "On air", hint: mode === "hold" ? "Everybody who listens hears you; let go to end" : "Everybody who listens hears you; press again to end" };
    case "interrupted":
      return { label: "Interrupted", hint: "Nobody hears you now; connecting again" };
  }
}

/** On a page that came by plain HTTP. */
export const NO_MICROPHONE: TalkWords = { label: "Microphone off", hint: "" };

/** `connection` explains a silence that is not the voices'. */
export function hearingWords(state: ReceiverState, connection: SocketState): string {
  if (connection.kind === "away") return connection.full ? "The server is full; trying again" : "The server is away; trying again";
  if (connection.kind === "connecting") return "Connecting";
  switch (state.kind) {
    case "off":
      return "Not listening";
    case "waiting":
      return "Waiting for a voice";
    case "connecting":
      return "Connecting to the voice";
    case "playing":
      return "Hearing";
    case "blocked":
      return "Ready; the browser wants a tap first";
    case "interrupted":
      return state.trouble.kind === "no-path" ? "No way for the sound; trying again" : `${state.trouble.sentence} Trying again`;
  }
}
