/**
 * What the server tells as it happens, over a WebSocket: figures, and cameras in another state.
 *
 * Connects anew by itself. Whoever asks the server from time to time instead looks at `fresh`: while it is
 * true, nothing needs to be asked.
 */

import { type CameraNews, cameraNewsFrom, record, type Totals, totalsFrom } from "./wire";

export interface LiveOptions {
  /** Where to connect, made anew each time: the key may have changed. */
  readonly address: () => string;
  readonly newSocket: (address: string) => WebSocket;
  /** 0 to 1, spreads the reconnects of many pages. */
  readonly random: () => number;
  readonly onTotals: (totals: Totals) => void;
  readonly onCamera: (news: CameraNews) => void;
}

/** The server tells its figures every 5 s, whether or not they change. */
const FRESH_MS = 12_000;
const BACKOFF_MS = [1_000, 2_000, 5_000, 15_000, 30_000] as const;

export class LiveStats {
  readonly #options: LiveOptions;
  #socket: WebSocket | null = null;
  #toldAtMs = Number.NEGATIVE_INFINITY;
  #failures = 0;
  #timer: ReturnType<typeof setTimeout> | undefined;
  #running = false;

  constructor(options: LiveOptions) {
    this.#options = options;
  }

  /** Whether the server has told its figures lately. */
  get fresh(): boolean {
    return this.#socket !== null && performance.now() - this.#toldAtMs < FRESH_MS;
  }

  /** Connects, and again after each end; a second call changes nothing. */
  start(): void {
    if (this.#running) return;
    this.#running = true;
    this.#failures = 0;
    this.#connect();
  }

  stop(): void {
    this.#running = false;
    clearTimeout(this.#timer);
    const socket = this.#socket;
    this.#socket = null;
    socket?.close();
  }

  /** With the key that there is from here on. */
  restart(): void {
    this.stop();
    this.start();
  }

  #connect(): void {
    const socket = this.#options.newSocket(this.#options.address());
    this.#socket = socket;
    this.#toldAtMs = Number.NEGATIVE_INFINITY;
    socket.addEventListener("message", (event) => {
      if (socket === this.#socket) this.#handleMessage(event.data);
    });
    socket.addEventListener("close", () => {
      if (socket === this.#socket) this.#handleEnd();
    });
  }

  #handleMessage(text: unknown): void {
    const message = record(parsed(text));
    switch (message["type"]) {
      case "STREAM_STATS":
        this.#toldAtMs = performance.now();
        this.#failures = 0;
        this.#options.onTotals(totalsFrom(message["data"]));
        return;
      case "CAMERA_STATUS":
        this.#options.onCamera(cameraNewsFrom(message["data"]));
        return;
      default:
      // Limits come with the figures; what newer servers tell is passed over.
    }
  }

  #handleEnd(): void {
    this.#socket = null;
    const step = BACKOFF_MS[Math.min(this.#failures, BACKOFF_MS.length - 1)] ?? 30_000;
    this.#failures += 1;
    if (this.#running) this.#timer = setTimeout(() => this.#connect(), step * (1 - this.#options.random() / 5));
  }
}

/** `/ws/stream/stats` on the page's own origin, for the page that calls itself `page`. Browsers give a WebSocket no header, so the key goes into the query. */
export function liveAddress(origin: string, page: string, key: string): string {
  const url = new URL("/ws/stream/stats", origin);
  url.protocol = url.protocol === "https:" ? "wss:" : "ws:";
  url.searchParams.set("page", page);
  if (key !== "") url.searchParams.set("token", key);
  return url.href;
}

function parsed(text: unknown): unknown {
  try {
    return typeof text === "string" ? JSON.parse(text) : null;
  } catch {
    return null;
  }
}
