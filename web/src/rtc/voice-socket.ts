/**
 * The voice WebSocket, kept open: reconnects by itself with a growing pause, notices when the server
 * fell silent, and knows which voices there are.
 *
 * It carries the messages of one sender or one receiver, but does not understand them;
 * `voice-sender.ts` and `voice-receiver.ts` do.
 */

import { type ClientMessage, type ServerMessage, serverMessageFrom } from "./voice-wire";

export type SocketState =
  | { readonly kind: "closed" }
  | { readonly kind: "connecting" }
  | { readonly kind: "open" }
  /** Tries again at `retryAtMs`, on the `performance.now()` clock. `full`: all places are taken. */
  | { readonly kind: "away"; readonly full: boolean; readonly retryAtMs: number };

/** What listeners hear. `message` is everything but the list of streams, levels and pongs. */
export type SocketEvent =
  | { readonly kind: "state"; readonly state: SocketState }
  | { readonly kind: "streams"; readonly streams: readonly string[] }
  | { readonly kind: "level"; readonly streamId: string; readonly level: number }
  | { readonly kind: "message"; readonly message: ServerMessage };

export type SocketListener = (event: SocketEvent) => void;

/** The part of a WebSocket that is used; tests bring their own. */
export type SocketLike = Pick<WebSocket, "readyState" | "send" | "close" | "addEventListener">;

export interface SocketOptions {
  readonly newSocket: (url: string) => SocketLike;
  /** 0 to 1, spreads the reconnects of many pages. */
  readonly random: () => number;
}

/** Proxies close what is silent for a minute; half of that is the custom. */
const PING_MS = 25_000;
/** A server that says nothing this long after a ping is gone. */
const PONG_MS_MAX = 8_000;
/** TCP gives up only after minutes. */
const CONNECT_MS_MAX = 8_000;
const BACKOFF_MS = [300, 700, 1_500, 3_000, 6_000, 10_000] as const;
/** A place becomes free when a person leaves, not within milliseconds. */
const FULL_RETRY_MS = 10_000;
/** The server is full (RFC 6455's registry, "Try Again Later"). */
const TRY_AGAIN_LATER = 1013;
/** No room full of people has more voices; the rest of a wrong list is left out. */
const STREAMS_MAX = 200;
const OPEN = 1;

export function browserSockets(): SocketOptions {
  return { newSocket: (url) => new WebSocket(url), random: Math.random };
}

export class VoiceSocket {
  readonly #url: () => string;
  readonly #options: SocketOptions;
  readonly #listeners = new Set<SocketListener>();
  #state: SocketState = { kind: "closed" };
  #streams: readonly string[] = [];
  #socket: SocketLike | null = null;
  #failures = 0;
  #timer: ReturnType<typeof setTimeout> | undefined;

  /** `url` is asked at each attempt: a token may be given meanwhile. */
  constructor(url: () => string, options: SocketOptions = browserSockets()) {
    this.#url = url;
    this.#options = options;
  }

  get state(): SocketState {
    return this.#state;
  }

  /** The voices there are, oldest first. */
  get streams(): readonly string[] {
    return this.#streams;
  }

  /** Calls `listener` from here on; the result ends that. */
  listen(listener: SocketListener): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  /** Opens the socket, and keeps it open; a second call changes nothing. */
  start(): void {
    if (this.#state.kind === "closed") this.#connect();
  }

  close(): void {
    this.#drop();
    this.#failures = 0;
    this.#setStreams([]);
    this.#setState({ kind: "closed" });
  }

  /** Tries again at once where it waits, e.g. because the network came back. */
  retryNow(): void {
    if (this.#state.kind !== "away") return;
    this.#failures = 0;
    this.#connect();
  }

  /** Says whether the message could be sent. */
  send(message: ClientMessage): boolean {
    if (this.#socket === null || this.#state.kind !== "open" || this.#socket.readyState !== OPEN) return false;
    this.#socket.send(JSON.stringify(message));
    return true;
  }

  #connect(): void {
    this.#drop();
    this.#setState({ kind: "connecting" });
    let socket: SocketLike;
    try {
      socket = this.#options.newSocket(this.#url());
    } catch {
      // A page that came by HTTPS may not open ws:// at all.
      this.#handleLoss(false);
      return;
    }
    this.#socket = socket;
    this.#timer = setTimeout(() => this.#handleLoss(false), CONNECT_MS_MAX);
    // What an abandoned socket still says concerns nobody.
    const whileCurrent = (handle: () => void) => (): void => {
      if (this.#socket === socket) handle();
    };
    socket.addEventListener("open", whileCurrent(() => this.#handleOpen()));
    socket.addEventListener("message", (event) => whileCurrent(() => this.#handleData(event.data))());
    socket.addEventListener("close", (event) => whileCurrent(() => this.#handleLoss(event.code === TRY_AGAIN_LATER))());
  }

  #handleOpen(): void {
    this.#setState({ kind: "open" });
    this.#awaitPing();
  }

  #handleData(data: unknown): void {
    if (this.#state.kind === "open") this.#awaitPing();
    const message = serverMessageFrom(data);
    if (message !== null) this.#handleMessage(message);
  }

  #handleMessage(message: ServerMessage): void {
    switch (message.type) {
      case "available_streams":
        this.#failures = 0;
        this.#setStreams([...new Set(message.streams)].slice(-STREAMS_MAX));
        return;
      case "stream_available":
        if (!this.#streams.includes(message.streamId)) {
          this.#setStreams([...this.#streams, message.streamId].slice(-STREAMS_MAX));
        }
        return;
      case "stream_ended":
        this.#setStreams(this.#streams.filter((streamId) => streamId !== message.streamId));
        this.#tell({ kind: "message", message });
        return;
      case "audio_data":
        this.#tell({ kind: "level", streamId: message.streamId, level: message.level });
        return;
      case "pong":
        return;
      case "sender_ready":
      case "webrtc_offer":
      case "webrtc_answer":
      case "ice_candidate":
      case "error":
        this.#tell({ kind: "message", message });
    }
  }

  /** Whatever arrives proves that the server is there; only silence is asked about. */
  #awaitPing(): void {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => {
      this.send({ type: "ping" });
      this.#timer = setTimeout(() => this.#handleLoss(false), PONG_MS_MAX);
    }, PING_MS);
  }

  #handleLoss(full: boolean): void {
    this.#drop();
    const step = BACKOFF_MS[Math.min(this.#failures, BACKOFF_MS.length - 1)] ?? FULL_RETRY_MS;
    const delayMs = (full ? FULL_RETRY_MS : step) * (0.75 + 0.5 * this.#options.random());
    this.#failures += 1;
    this.#timer = setTimeout(() => this.#connect(), delayMs);
    this.#setStreams([]);
    this.#setState({ kind: "away", full, retryAtMs: performance.now() + delayMs });
  }

  #drop(): void {
    clearTimeout(this.#timer);
    const socket = this.#socket;
    this.#socket = null;
    socket?.close();
  }

  #setStreams(streams: readonly string[]): void {
    if (streams.length === this.#streams.length && streams.every((id, at) => id === this.#streams[at])) return;
    this.#streams = streams;
    this.#tell({ kind: "streams", streams });
  }

  #setState(state: SocketState): void {
    if (state.kind === this.#state.kind && state.kind !== "away") return;
    this.#state = state;
    this.#tell({ kind: "state", state });
  }

  #tell(event: SocketEvent): void {
    for (const listener of [...this.#listeners]) listener(event);
  }
}
