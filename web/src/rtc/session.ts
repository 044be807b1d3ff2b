/**
 * One viewer of one camera, kept alive: reserve, WHEP, heartbeats, release, and all of it again
 * when the peer fails, the lease ends or the server restarts.
 *
 * `#run` is the only place that connects, and it ends one attempt, at the server too, before it
 * begins the next; so there are never two at once. What a viewer sees of it is `SessionState`.
 */

import { asRefusal, Refusal } from "./errors";
import type { PeerStage, Whep } from "./whep";

/** What the server granted. */
export interface Reservation {
  readonly reservationId: string;
  readonly whepUrl: string;
  readonly token: string;
  /** STUN and TURN servers for this viewer. */
  readonly iceServers: readonly RTCIceServer[];
  /** With what it begins. */
  readonly watching: Watching;
}

/** What the server says at a heartbeat. */
export interface Heartbeat {
  /** A fresh one. */
  readonly token: string;
  readonly watching: Watching;
}

/** Which of the camera's streams the server sends. */
export interface Watching {
  /** `main` or `sub`; empty where the server does not say. */
  readonly rendition: string;
  /** How often it went from one to the other in this session. */
  readonly switches: number;
}

/** The calls of the HTTP API that a session makes. All reject with a `Refusal`. */
export interface SessionApi {
  reserve(cameraId: string, quality: string): Promise<Reservation>;
  /**
   * Prolongs the lease; with a `quality` asks for another one from here on. Tells how many frames were
   * decoded, where that is known: nobody else sees whether the picture is there.
   */
  heartbeat(reservationId: string, quality: string | null, framesDecoded: number | null): Promise<Heartbeat>;
  release(reservationId: string): Promise<void>;
  /** Releases without waiting for an answer: the page is going away. */
  abandon(reservationId: string): void;
}

export type SessionState =
  | { readonly kind: "idle" }
  /** Asking for a place. */
  | { readonly kind: "reserving" }
  /** Offer sent, no answer yet. */
  | { readonly kind: "offering" }
  /** Answer taken; the path or the keys are not there yet. */
  | { readonly kind: "connecting"; readonly stage: PeerStage }
  | { readonly kind: "connected" }
  /** Was connected; may come back within seconds. */
  | { readonly kind: "interrupted" }
  /** Tries again at `retryAtMs`, on the `performance.now()` clock. */
  | { readonly kind: "pausing"; readonly cause: Refusal; readonly retryAtMs: number }
  /** Trying again by itself would not help. */
  | { readonly kind: "refused"; readonly cause: Refusal }
  | { readonly kind: "closed" };

export interface SessionOptions {
  readonly api: SessionApi;
  readonly newWhep: (onStage: (stage: PeerStage) => void) => Whep;
  /** 0 to 1, spreads the reconnects of many viewers. */
  readonly random: () => number;
  readonly onState: (state: SessionState) => void;
  /** The stream of each new attempt, before anything flows in it. */
  readonly onStream: (stream: MediaStream) => void;
  /** What the server sends, whenever it says so; `null` when a new attempt begins. */
  readonly onWatching: (watching: Watching | null) => void;
}

/** A third of the 30 s that a lease without media lives. */
const HEARTBEAT_MS = 10_000;
/** After a heartbeat that was not answered. */
const HEARTBEAT_RETRY_MS = 2_000;
/** After another quality was asked for: when the server is asked what came of it. A keyframe takes a second or two. */
const SWITCH_CHECK_MS = 2_500;
/** Least time between heartbeats asked for by `check`. */
const CHECK_MS_MIN = 1_000;
/** Path and keys take well under 1 s; a lost DTLS flight adds 1 s each. */
const CONNECT_MS_MAX = 12_000;
/** Chromium reports an interruption after about 5 s of silence; the lease ends after 14. */
const INTERRUPTED_MS_MAX = 4_000;
/** A connection that lived this long was a success: the next failure starts the backoff over. */
const SETTLED_MS = 5_000;
const BACKOFF_MS = [500, 1_000, 2_000, 4_000, 8_000] as const;
/** For refusals that only an operator can lift, such as an unknown camera. */
const SLOW_RETRY_MS = 30_000;
const QUOTA_RETRY_MS = 5_000;
/** After a place was given to someone who matters more: time to read so; the place is taken meanwhile. */
const PREEMPTED_RETRY_MS = 10_000;
/** So long the server is asked why it ended a connection. */
const WHY_MS_MAX = 1_500;
const ENDED = "The server or the network ended the connection.";
/** Gone: the status of refusals with which a reservation ended. */
const ENDED_STATUS = 410;

export class CameraSession {
  readonly cameraId: string;
  readonly #options: SessionOptions;
  #state: SessionState = { kind: "idle" };
  #attempt: Attempt | null = null;
  #wake: (() => void) | null = null;
  #closing = false;
  #failures = 0;
  #running: Promise<void> | null = null;
  #quality: string;

  /** `quality`: the first one that is asked for. */
  constructor(cameraId: string, quality: string, options: SessionOptions) {
    this.cameraId = cameraId;
    this.#quality = quality;
    this.#options = options;
  }

  get state(): SessionState {
    return this.#state;
  }

  /** When the WHEP POST of the current attempt left, on the `performance.now()` clock; 0 before. */
  get postedAtMs(): number {
    return this.#attempt?.whep.postedAtMs ?? 0;
  }

  /** The browser's counters of the current attempt; `null` between attempts. */
  async stats(): Promise<RTCStatsReport | null> {
    return (await this.#attempt?.whep.stats()) ?? null;
  }

  /** Starts the session; a second call changes nothing. */
  start(): void {
    this.#running ??= this.#run();
  }

  /** Ends a pause at once: the camera or the server is known to be back, or the key was changed. */
  retryNow(): void {
    this.#wake?.();
  }

  /** Asks the server at once whether the lease still stands, because the picture has stopped. */
  check(): void {
    this.#attempt?.check();
  }

  /** Asks for another quality from here on, of this attempt and of those that follow. */
  setQuality(quality: string): void {
    this.#quality = quality;
    this.#attempt?.tellQuality();
  }

  /** Ends the session here and at the server; further calls wait for the same end. */
  async close(): Promise<void> {
    this.#closing = true;
    this.#attempt?.stop();
    this.#wake?.();
    await this.#running;
    this.#set({ kind: "closed" });
  }

  /** The page is going away: says so to the server without waiting. */
  abandon(): void {
    this.#closing = true;
    this.#attempt?.abandon();
    this.#wake?.();
  }

  async #run(): Promise<void> {
    while (!this.#closing) {
      const cause = await this.#connectOnce();
      if (this.#closing) return;
      await this.#pause(cause);
    }
  }

  /** One attempt, from reservation to release. Yields why it ended. */
  async #connectOnce(): Promise<Refusal> {
    const attempt = new Attempt(this.cameraId, () => this.#quality, this.#options, (state) => this.#set(state));
    this.#attempt = attempt;
    this.#options.onWatching(null);
    this.#set({ kind: "reserving" });
    this.#options.onStream(attempt.whep.stream);
    const cause = await attempt.run();
    if (attempt.settled) this.#failures = 0;
    this.#attempt = null;
    return cause;
  }

  async #pause(cause: Refusal): Promise<void> {
    const delayMs = retryDelayMs(cause, this.#failures, this.#options.random());
    this.#failures += 1;
    const woken = new Promise<void>((resolve) => {
      this.#wake = resolve;
    });
    if (delayMs === null) {
      this.#set({ kind: "refused", cause });
      await woken;
    } else {
      this.#set({ kind: "pausing", cause, retryAtMs: performance.now() + delayMs });
      const timer = setTimeout(() => this.#wake?.(), delayMs);
      await woken;
      clearTimeout(timer);
    }
    this.#wake = null;
  }

  #set(state: SessionState): void {
    if (this.#state.kind === "closed") return;
    this.#state = state;
    this.#options.onState(state);
  }
}

/**
 * How long to wait after `cause`; `null` where waiting does not help.
 *
 * `failures` counts the attempts since the last success; `random` (0 to 1) takes up to a fifth off.
 */
export function retryDelayMs(cause: Refusal, failures: number, random: number): number | null {
  const asked = cause.retryAfterS === null ? null : cause.retryAfterS * 1000;
  const step = BACKOFF_MS[Math.min(failures, BACKOFF_MS.length - 1)] ?? SLOW_RETRY_MS;
  const backoff = step * (1 - random / 5);
  // A token that the media route refused has run out: the next reservation brings a fresh one.
  if (cause.code === TOKEN_REFUSED) return backoff;
  if (cause.code === "PREEMPTED") return PREEMPTED_RETRY_MS;
  switch (cause.status) {
    case 401:
    case 403:
    case 406:
      return null;
    case ENDED_STATUS:
      return cause.code === "REMOVED" ? null : backoff;
    case 400:
    case 404:
    case 415:
      return SLOW_RETRY_MS;
    case 429:
      return Math.max(1000, asked ?? QUOTA_RETRY_MS);
    case 409:
      return Math.max(1000, asked ?? backoff);
    default:
      return asked ?? backoff;
  }
}

const TOKEN_REFUSED = "TOKEN_REFUSED";

/** What the browser says; `null` where it says nothing. */
async function framesDecoded(whep: Whep): Promise<number | null> {
  let frames: number | null = null;
  const report = await whep.stats().catch(() => null);
  report?.forEach((stat: Record<string, unknown>) => {
    const isPicture = stat["type"] === "inbound-rtp" && stat["kind"] === "video";
    if (isPicture && typeof stat["framesDecoded"] === "number") frames = stat["framesDecoded"];
  });
  return frames;
}

/** Why a connection that stood, or nearly did, is over. */
function lost(sentence: string): Refusal {
  return new Refusal({ status: 0, code: "LOST", sentence, sentenceAr: "", retryAfterS: null });
}

/** One way through reserve, WHEP and release. Used once. */
class Attempt {
  readonly whep: Whep;
  readonly #cameraId: string;
  readonly #quality: () => string;
  readonly #api: SessionApi;
  readonly #onState: (state: SessionState) => void;
  readonly #onWatching: (watching: Watching) => void;
  readonly #ended: Promise<Refusal>;
  #end: (cause: Refusal) => void = () => undefined;
  #over = false;
  #reservation: Reservation | null = null;
  #answered = false;
  #connectedAtMs: number | null = null;
  #heartbeatAtMs = 0;
  /** At the last look. */
  #framesDecoded: number | null = null;
  /** What the server was last asked for, and knows of. */
  #toldQuality = "";
  #heartbeat: ReturnType<typeof setTimeout> | undefined;
  #deadline: ReturnType<typeof setTimeout> | undefined;

  constructor(
    cameraId: string,
    quality: () => string,
    options: SessionOptions,
    onState: (state: SessionState) => void,
  ) {
    this.#cameraId = cameraId;
    this.#quality = quality;
    this.#api = options.api;
    this.#onState = onState;
    this.#onWatching = options.onWatching;
    this.#ended = new Promise((resolve) => {
      this.#end = (cause) => {
        this.#over = true;
        resolve(cause);
      };
    });
    this.whep = options.newWhep((stage) => this.#handleStage(stage));
  }

  /** Whether the connection stood long enough to call it a success. */
  get settled(): boolean {
    return this.#connectedAtMs !== null && performance.now() - this.#connectedAtMs >= SETTLED_MS;
  }

  async run(): Promise<Refusal> {
    try {
      await this.#connect();
      return await this.#ended;
    } catch (thrown) {
      return asRefusal(thrown);
    } finally {
      this.#over = true;
      clearTimeout(this.#heartbeat);
      clearTimeout(this.#deadline);
      await this.#leave();
    }
  }

  stop(): void {
    this.#end(lost("Closed."));
  }

  abandon(): void {
    this.stop();
    this.whep.abandon();
    if (this.#reservation !== null) this.#api.abandon(this.#reservation.reservationId);
    this.#reservation = null;
  }

  check(): void {
    if (this.#reservation === null || !this.#answered) return;
    if (performance.now() - this.#heartbeatAtMs >= CHECK_MS_MIN) void this.#beat();
  }

  /** Tells the server of another quality at once, where there is one; else as soon as the server knows of us. */
  tellQuality(): void {
    if (this.#reservation === null || !this.#answered) return;
    if (this.#quality() !== this.#toldQuality) void this.#beat();
  }

  /** The offer is made while the reservation is on its way. */
  async #connect(): Promise<void> {
    const prepared = this.whep.prepare();
    prepared.catch(() => undefined);
    const quality = this.#quality();
    this.#reservation = await this.#api.reserve(this.#cameraId, quality);
    this.#toldQuality = quality;
    this.#onWatching(this.#reservation.watching);
    if (this.#over) return;
    await prepared;
    this.#onState({ kind: "offering" });
    await this.#offer(this.#reservation);
    if (this.#over) return;
    this.#answered = true;
    this.#scheduleHeartbeat(HEARTBEAT_MS);
    this.#handleStage(this.whep.stage);
    this.tellQuality();
  }

  async #offer(reservation: Reservation): Promise<void> {
    try {
      await this.whep.open(reservation.whepUrl, reservation.token, reservation.iceServers);
    } catch (thrown) {
      const cause = asRefusal(thrown);
      if (cause.status !== 401) throw cause;
      throw new Refusal({ ...cause, code: TOKEN_REFUSED });
    }
  }

  #handleStage(stage: PeerStage): void {
    if (!this.#answered || this.#over) return;
    switch (stage) {
      case "connected":
        clearTimeout(this.#deadline);
        this.#deadline = undefined;
        this.#connectedAtMs ??= performance.now();
        this.#onState({ kind: "connected" });
        return;
      case "interrupted":
        this.#onState({ kind: "interrupted" });
        this.check();
        this.#expire(INTERRUPTED_MS_MAX, "The connection to the server was lost.");
        return;
      case "ended":
        this.#expire(WHY_MS_MAX, ENDED);
        void this.#askWhy();
        return;
      case "new":
      case "ice":
        this.#onState({ kind: "connecting", stage });
        this.#expire(CONNECT_MS_MAX, "No way to the server's media port was found; a firewall may block UDP.");
        return;
      case "dtls":
        this.#onState({ kind: "connecting", stage });
        this.#expire(CONNECT_MS_MAX, "The path to the server is open, but the encryption keys were not agreed.");
    }
  }

  #expire(afterMs: number, sentence: string): void {
    clearTimeout(this.#deadline);
    this.#deadline = setTimeout(() => this.#end(lost(sentence)), afterMs);
  }

  #scheduleHeartbeat(afterMs: number): void {
    clearTimeout(this.#heartbeat);
    if (!this.#over) this.#heartbeat = setTimeout(() => void this.#lookAndBeat(), afterMs);
  }

  async #lookAndBeat(): Promise<void> {
    this.#framesDecoded = await framesDecoded(this.whep);
    if (!this.#over) await this.#beat();
  }

  async #beat(): Promise<void> {
    if (this.#reservation === null) return;
    this.#heartbeatAtMs = performance.now();
    clearTimeout(this.#heartbeat);
    const quality = this.#quality();
    const asks = quality !== this.#toldQuality;
    try {
      const id = this.#reservation.reservationId;
      const { token, watching } = await this.#api.heartbeat(id, asks ? quality : null, this.#framesDecoded);
      this.#toldQuality = quality;
      this.whep.renew(token);
      if (!this.#over) this.#onWatching(watching);
      this.#scheduleHeartbeat(asks ? SWITCH_CHECK_MS : HEARTBEAT_MS);
    } catch (thrown) {
      const cause = asRefusal(thrown);
      if (cause.status === 404) this.#handleLeaseEnded(cause);
      else this.#scheduleHeartbeat(HEARTBEAT_RETRY_MS);
    }
  }

  /** The connection was ended; where the place is gone too, the server knows why. */
  async #askWhy(): Promise<void> {
    try {
      if (this.#reservation !== null) await this.#api.heartbeat(this.#reservation.reservationId, null, this.#framesDecoded);
    } catch (thrown) {
      const cause = asRefusal(thrown);
      if (cause.status === 404) return this.#handleLeaseEnded(cause);
    }
    this.#end(lost(ENDED));
  }

  /** The server says how it ended, or knows nothing of us, e.g. because it restarted. */
  #handleLeaseEnded(cause: Refusal): void {
    this.#reservation = null;
    if (cause.code === "") this.#end(lost("The server gave this place away, or restarted."));
    else this.#end(new Refusal({ ...cause, sentence: cause.sentence, status: ENDED_STATUS }));
  }

  /** Ending the WHEP session ends the lease; the release is for where there was none. */
  async #leave(): Promise<void> {
    const confirmed = await this.whep.close();
    if (confirmed || this.#reservation === null) return;
    await this.#api.release(this.#reservation.reservationId).catch(() => undefined);
  }
}
