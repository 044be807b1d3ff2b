/** What can be wrong with talking and listening: each kind with words for people. */

export type TroubleKind =
  /** The page came by plain HTTP: browsers give it no microphone. */
  | "insecure"
  | "denied"
  | "no-microphone"
  /** Another program holds the microphone, or the system does not hand it out. */
  | "busy"
  /** It was unplugged while it was used. */
  | "unplugged"
  | "full"
  | "away"
  /** The server said no, in its own words. */
  | "refused"
  /** Signalling works, but no media path was found. */
  | "no-path"
  /** This browser lacks something. */
  | "browser";

/** Why something does not work, and what to do. */
export class VoiceTrouble extends Error {
  readonly kind: TroubleKind;
  /** A few words. */
  readonly headline: string;

  constructor(kind: TroubleKind, detail = "") {
    const words = WORDS[kind];
    super(detail === "" ? words.sentence : detail);
    this.name = "VoiceTrouble";
    this.kind = kind;
    this.headline = words.headline;
  }

  /** One or two sentences: what it means, what to do. */
  get sentence(): string {
    return this.message;
  }
}

const WORDS: Record<TroubleKind, { readonly headline: string; readonly sentence: string }> = {
  insecure: {
    headline: "The microphone is off on plain HTTP",
    sentence: "Browsers hand a microphone to HTTPS pages only. Listening works; to talk, open this page by HTTPS.",
  },
  denied: {
    headline: "The microphone is not allowed",
    sentence: "This browser was told not to hand the microphone to this page. Allow it in the address bar (or in the phone's settings), then press again.",
  },
  "no-microphone": {
    headline: "No microphone found",
    sentence: "This device has no microphone, or it is switched off. Connect one and press again.",
  },
  busy: {
    headline: "The microphone is taken",
    sentence: "Another program uses the microphone, or the system does not hand it out. Close the other program and press again.",
  },
  unplugged: {
    headline: "The microphone is gone",
    sentence: "The microphone was disconnected while you talked. Connect it or choose another one, and press again.",
  },
  full: {
    headline: "The server is full",
    sentence: "All places on the voice server are taken. This page tries again by itself.",
  },
  away: {
    headline: "The server cannot be reached",
    sentence: "It is stopped, restarting, or the network is down. This page tries again by itself.",
  },
  refused: {
    headline: "The server refused",
    sentence: "The server refused without a reason.",
  },
  "no-path": {
    headline: "No way for the sound",
    sentence: "The server answers, but no sound gets through: a firewall may block its media port (UDP). “manifold doctor” on the server says which one.",
  },
  browser: {
    headline: "This browser cannot talk",
    sentence: "This browser lacks WebRTC. A current Chrome, Edge, Firefox or Safari has it.",
  },
};

/** What `getUserMedia` rejected with (W3C Media Capture §10.2). */
export function microphoneTrouble(thrown: unknown): VoiceTrouble {
  if (thrown instanceof VoiceTrouble) return thrown;
  switch (thrown instanceof Error ? thrown.name : "") {
    case "NotAllowedError":
    case "PermissionDeniedError":
    case "SecurityError":
      return new VoiceTrouble("denied");
    case "NotFoundError":
    case "DevicesNotFoundError":
    case "OverconstrainedError":
      return new VoiceTrouble("no-microphone");
    case "NotReadableError":
    case "TrackStartError":
    case "AbortError":
      return new VoiceTrouble("busy");
    default:
      return new VoiceTrouble("browser", thrown instanceof Error ? thrown.message : "");
  }
}

/** An `error` of the server, by its words. */
export function serverTrouble(message: string): VoiceTrouble {
  const words = message.replace(/^Server error:\s*/, "").trim();
  if (words === "") return new VoiceTrouble("refused");
  const sentence = words.charAt(0).toUpperCase() + words.slice(1);
  return new VoiceTrouble("refused", /[.!?]$/.test(sentence) ? sentence : `${sentence}.`);
}
