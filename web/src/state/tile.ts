/**
 * One tile of the wall: a session, its `<video>`, what is measured of it, and why it has no picture.
 *
 * Starts to connect when it is made, before anything is drawn, and ends with `close`.
 */

import { computed, effect, type Signal, signal } from "@preact/signals";
import type { Api } from "../api/client";
import type { Camera } from "../api/wire";
import { Figures, type FigureSet, NO_FIGURES } from "../rtc/figures";
import { CameraSession, type SessionState, type Watching } from "../rtc/session";
import { StripReader } from "../rtc/strip";
import { browserOptions, WhepClient } from "../rtc/whep";
import { announce } from "./announce";
import { type Health, health } from "./health";
import { camerasById } from "./park";
import { type Quality, qualityFor, SETTLE_MS } from "./quality";
import { figuresByDefault } from "./settings";

/** Counters are read this often while playing; and while waiting or only just playing. */
const SAMPLE_MS = 1_000;
const SAMPLE_EARLY_MS = 500;
const STEADY_MS = 3_000;
/** No frame for so long is a stopped picture; a camera at 1 frame a second is not. */
const STALLED_MS = 3_000;
const CAMERA_POLL_MS = 2_000;

/** The measured latency of a synthetic picture. */
export interface Clock {
  readonly frameNumber: number;
  readonly latencyMs: number;
}

export interface TileOptions {
  readonly api: Api;
  readonly certificate: () => RTCCertificate | null;
  /** How wide the picture will be, as far as that is known before it is laid out; in device pixels, 0 for not. */
  readonly expectedWidthPx: number;
}

export class Tile {
  readonly cameraId: string;
  readonly figures = signal<FigureSet>(NO_FIGURES);
  readonly clock = signal<Clock | null>(null);
  /** What the server last said that it sends. */
  readonly watching = signal<Watching | null>(null);
  readonly quality: Signal<Quality>;
  readonly muted = signal(true);
  readonly figuresShown = signal(figuresByDefault.peek());
  /** From the WHEP POST to the first frame, of the latest connection. */
  readonly firstFrameMs = signal<number | null>(null);
  /** From the opening of the tile to its first frame. */
  readonly firstFrameFromClickMs = signal<number | null>(null);
  readonly health = computed<Health>(() => this.#health());

  readonly #api: Api;
  readonly #session: CameraSession;
  readonly #sessionState = signal<SessionState>({ kind: "idle" });
  readonly #polled = signal<{ camera: Camera; atMs: number } | null>(null);
  readonly #advancing = signal(false);
  readonly #arriving = signal(false);
  readonly #everPlayed = signal(false);
  readonly #counters = new Figures();
  readonly #openedAtMs = performance.now();
  readonly #playWhenLoaded = () => this.#play();
  #video: HTMLVideoElement | null = null;
  #strip: StripReader | null = null;
  #stripIntervalMs = 250;
  #stream: MediaStream | null = null;
  #firstFrameAtMs = Number.POSITIVE_INFINITY;
  #lastFrameAtMs = Number.NEGATIVE_INFINITY;
  #lastPacketAtMs = Number.NEGATIVE_INFINITY;
  #sampleTimer: ReturnType<typeof setTimeout> | undefined;
  #pollTimer: ReturnType<typeof setTimeout> | undefined;
  #settleTimer: ReturnType<typeof setTimeout> | undefined;
  #resizes: ResizeObserver | null = null;
  readonly #stopAnnouncing: () => void;
  #closed = false;

  constructor(cameraId: string, options: TileOptions) {
    this.cameraId = cameraId;
    this.#api = options.api;
    this.quality = signal(qualityFor(options.expectedWidthPx, null));
    this.#session = new CameraSession(cameraId, this.quality.peek(), {
      api: options.api,
      newWhep: (onStage) => new WhepClient({ ...browserOptions(), certificate: options.certificate() }, onStage),
      random: Math.random,
      onState: (state) => this.#handleState(state),
      onStream: (stream) => this.#handleStream(stream),
      onWatching: (watching) => {
        this.watching.value = watching;
      },
    });
    this.#session.start();
    this.#stopAnnouncing = this.#announceChanges();
    this.#sampleTimer = setTimeout(() => void this.#sample(), SAMPLE_EARLY_MS);
    this.#pollTimer = setTimeout(() => void this.#poll(), CAMERA_POLL_MS / 2);
  }

  /** The camera as last told, by its own poll or by the list. */
  get camera(): Camera | null {
    return this.#polled.value?.camera ?? camerasById.value.get(this.cameraId) ?? null;
  }

  get name(): string {
    return this.camera?.name ?? this.cameraId;
  }

  /**
   * Takes the element that shows the picture; `null` when it goes away.
   *
   * One function for the tile's life: a new one at each rendering would start the picture over.
   */
  readonly attach = (video: HTMLVideoElement | null): void => {
    if (video === this.#video) return;
    this.#strip?.stop();
    this.#strip = null;
    this.#resizes?.disconnect();
    this.#video = video;
    if (video === null) return;
    this.#resizes = new ResizeObserver(() => this.#handleSize());
    this.#resizes.observe(video);
    this.#strip = new StripReader(video, (reading, latencyMs) => {
      this.clock.value = { frameNumber: reading.frameNumber, latencyMs };
    });
    this.#strip.setInterval(this.#stripIntervalMs);
    this.#play();
  };

  /** Shares out the reading of strips among the open tiles. */
  setStripInterval(intervalMs: number): void {
    this.#stripIntervalMs = intervalMs;
    this.#strip?.setInterval(intervalMs);
  }

  /** Tries again at once, where it was waiting. */
  retryNow(): void {
    this.#session.retryNow();
  }

  async close(): Promise<void> {
    this.#stop();
    await this.#session.close();
  }

  /** The page is going away. */
  abandon(): void {
    this.#stop();
    this.#session.abandon();
  }

  /** The picture has another size, on the wall or full screen. */
  #handleSize(): void {
    clearTimeout(this.#settleTimer);
    this.#settleTimer = setTimeout(() => {
      const widthPx = (this.#video?.clientWidth ?? 0) * devicePixelRatio;
      const quality = qualityFor(widthPx, this.quality.peek());
      if (this.#closed || quality === this.quality.peek()) return;
      this.quality.value = quality;
      this.#session.setQuality(quality);
    }, SETTLE_MS);
  }

  #stop(): void {
    this.#closed = true;
    this.#resizes?.disconnect();
    clearTimeout(this.#settleTimer);
    clearTimeout(this.#sampleTimer);
    clearTimeout(this.#pollTimer);
    this.#stopAnnouncing();
    this.#strip?.stop();
    if (this.#video !== null) this.#video.srcObject = null;
  }

  #handleState(state: SessionState): void {
    this.#sessionState.value = state;
  }

  #handleStream(stream: MediaStream): void {
    this.#stream = stream;
    this.#counters.reset();
    this.figures.value = NO_FIGURES;
    this.clock.value = null;
    this.#advancing.value = false;
    this.#arriving.value = false;
    this.#play();
  }

  #play(): void {
    const video = this.#video;
    const stream = this.#stream;
    if (video === null || stream === null || this.#closed) return;
    if (document.readyState !== "complete") {
      // A <video> without a frame would hold the page's load up for as long as the camera is silent.
      addEventListener("load", this.#playWhenLoaded, { once: true });
      return;
    }
    video.srcObject = stream;
    // Refused where autoplay is forbidden even without sound; the next frame tells.
    void video.play().catch(() => undefined);
    this.#awaitFirstFrame(video, stream);
    this.#strip?.start();
  }

  /** A stream whose tracks have ended paints one last, black frame, which is no picture. */
  #awaitFirstFrame(video: HTMLVideoElement, stream: MediaStream): void {
    video.requestVideoFrameCallback((_, frame) => {
      if (this.#stream !== stream || this.#video !== video || this.#closed) return;
      const live = stream.getVideoTracks().some((track) => track.readyState === "live");
      if (live && this.#session.postedAtMs > 0) this.#handleFirstFrame(frame.presentationTime);
      else this.#awaitFirstFrame(video, stream);
    });
  }

  #handleFirstFrame(atMs: number): void {
    this.#firstFrameAtMs = atMs;
    this.firstFrameMs.value = atMs - this.#session.postedAtMs;
    this.firstFrameFromClickMs.value ??= atMs - this.#openedAtMs;
    this.#strip?.setPatient(this.camera?.synthetic ?? false);
    this.#handleProgress(performance.now());
  }

  #handleProgress(atMs: number): void {
    this.#lastFrameAtMs = atMs;
    this.#lastPacketAtMs = atMs;
    this.#everPlayed.value = true;
    this.#advancing.value = true;
    this.#arriving.value = true;
  }

  /** Reads the counters, and finds out from them whether the picture moves. */
  async #sample(): Promise<void> {
    const report = await this.#session.stats().catch(() => null);
    if (this.#closed) return;
    const atMs = performance.now();
    if (report !== null) this.#handleReport(report, atMs);
    this.#arriving.value = atMs - this.#lastPacketAtMs < STALLED_MS;
    const stopped = this.#advancing.value && atMs - this.#lastFrameAtMs >= STALLED_MS;
    if (stopped) {
      this.#advancing.value = false;
      void this.#askCamera();
    }
    if (this.#everPlayed.value && !this.#arriving.value) this.#session.check();
    const steady = this.#advancing.value && atMs - this.#firstFrameAtMs >= STEADY_MS;
    const intervalMs = steady ? SAMPLE_MS : SAMPLE_EARLY_MS;
    this.#sampleTimer = setTimeout(() => void this.#sample(), intervalMs);
  }

  #handleReport(report: RTCStatsReport, atMs: number): void {
    const before = this.figures.value;
    const figures = this.#counters.handleReport(report, atMs);
    this.figures.value = figures;
    if (figures.packetsReceived > before.packetsReceived) this.#lastPacketAtMs = atMs;
    if (figures.framesDecoded > before.framesDecoded) this.#handleProgress(atMs);
    // Another size is another stream: the server says which.
    if (before.width !== null && figures.width !== before.width) this.#session.check();
  }

  /** Asks after the camera while there is no picture; its return ends a pause. */
  async #poll(): Promise<void> {
    if (this.#advancing.value) this.#polled.value = null;
    else await this.#askCamera();
    if (!this.#closed) this.#pollTimer = setTimeout(() => void this.#poll(), CAMERA_POLL_MS);
  }

  async #askCamera(): Promise<void> {
    const camera = await this.#api.camera(this.cameraId).catch(() => null);
    if (camera === null || this.#closed) return;
    this.#polled.value = { camera, atMs: performance.now() };
    const state = this.#sessionState.value;
    if (state.kind !== "pausing") return;
    const cameraIsBack = state.cause.status === 409 && (camera.state === "live" || camera.state === "idle");
    if (cameraIsBack || state.cause.code === "NETWORK") this.#session.retryNow();
  }

  #health(): Health {
    const camera = this.camera;
    return health({
      session: this.#sessionState.value,
      camera,
      cameraAtMs: this.#polled.value?.atMs ?? 0,
      cameraState: camera?.state ?? "",
      cameraReason: camera?.reason ?? "",
      packetsReceived: this.figures.value.packetsReceived,
      framesDecoded: this.figures.value.framesDecoded,
      advancing: this.#advancing.value,
      arriving: this.#arriving.value,
      everPlayed: this.#everPlayed.value,
    });
  }

  #announceChanges(): () => void {
    let told = "";
    return effect(() => {
      const { condition, headline, reason } = this.health.value;
      const words = condition === "playing" ? "playing" : `${headline}. ${reason}`;
      if (words === told || condition === "idle" || condition === "connecting") return;
      told = words;
      announce(`${this.name}: ${words}`);
    });
  }
}
