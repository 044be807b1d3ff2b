/**
 * Plays one voice: the one that was chosen, or always the newest. Connects again when the path breaks,
 * and when a voice that ended returns.
 *
 * `#review` is the only place that decides what to ask for. The server answers one request at a time,
 * so a second one waits for the answer to the first. It plays through an `<audio>` element that the
 * caller owns: browsers let a person's gesture unlock that.
 */

import { type VoiceFigures, NO_VOICE_FIGURES, VoiceCounters } from "./voice-figures";
import type { SocketEvent, VoiceSocket } from "./voice-socket";
import { serverTrouble, VoiceTrouble } from "./voice-trouble";
import { NO_STREAM, type ServerMessage, STREAM_ENDED } from "./voice-wire";

/** Whom to listen to. */
export type Choice =
  | { readonly kind: "nobody" }
  /** Whoever began last. */
  | { readonly kind: "newest" }
  | { readonly kind: "stream"; readonly streamId: string };

export type ReceiverState =
  | { readonly kind: "off" }
  /** Nobody speaks, or the chosen voice does not. */
  | { readonly kind: "waiting" }
  | { readonly kind: "connecting"; readonly streamId: string }
  | { readonly kind: "playing"; readonly streamId: string }
  /** The sound is there, but the browser wants a gesture before it plays: call `unlock` from one. */
  | { readonly kind: "blocked"; readonly streamId: string }
  /** Tries again by itself. */
  | { readonly kind: "interrupted"; readonly streamId: string | null; readonly trouble: VoiceTrouble };

/** The part of an `<audio>` element that is used; tests bring their own. */
export type AudioOut = Pick<HTMLAudioElement, "srcObject" | "volume" | "play" | "pause">;

export interface ReceiverOptions {
  readonly socket: VoiceSocket;
  readonly audio: AudioOut;
  readonly newPeer: () => RTCPeerConnection;
  /** A page does not play its own voice. */
  readonly isOwn: (streamId: string) => boolean;
  readonly onState: (state: ReceiverState) => void;
}

/** The server offers within a round trip; the peer needs well under a second. */
const CONNECT_MS_MAX = 8_000;
/** Chromium reports an interruption after about 5 s of silence. */
const INTERRUPTED_MS_MAX = 2_500;
const RETRY_MS = [300, 1_000, 2_000, 4_000] as const;

export class VoiceReceiver {
  readonly #options: ReceiverOptions;
  readonly #unlisten: () => void;
  readonly #counters = new VoiceCounters();
  #state: ReceiverState = { kind: "off" };
  #choice: Choice = { kind: "nobody" };
  /** What was asked for and not yet offered. */
  #asked: string | null = null;
  #listening: Listening | null = null;
  #failures = 0;
  /** Of the request that is under way, or of the pause before the next one. */
  #timer: ReturnType<typeof setTimeout> | undefined;
  #pausing = false;

  constructor(options: ReceiverOptions) {
    this.#options = options;
    this.#unlisten = options.socket.listen((event) => this.#handleSocket(event));
  }

  get state(): ReceiverState {
    return this.#state;
  }

  get choice(): Choice {
    return this.#choice;
  }

  /** 0 to 1. Some phones leave that to their own keys. */
  set volume(volume: number) {
    this.#options.audio.volume = Math.min(1, Math.max(0, volume));
  }

  /** Listens to someone else, or to nobody. */
  follow(choice: Choice): void {
    this.#choice = choice;
    this.#failures = 0;
    this.#pausing = false;
    this.#review();
  }

  /** Plays what the browser held back. To be called from a click or a key. */
  unlock(): void {
    if (this.#state.kind === "blocked") void this.#play(this.#state.streamId);
  }

  /** What the counters say of the voice that plays. */
  async figures(): Promise<VoiceFigures> {
    const report = await this.#listening?.stats();
    return report === undefined ? NO_VOICE_FIGURES : this.#counters.handleReport(report);
  }

  close(): void {
    this.follow({ kind: "nobody" });
    this.#unlisten();
  }

  /** Whom the choice means at the moment; `null` for nobody. */
  #wanted(): string | null {
    const { streams } = this.#options.socket;
    switch (this.#choice.kind) {
      case "nobody":
        return null;
      case "newest":
        return streams.findLast((streamId) => !this.#options.isOwn(streamId)) ?? null;
      case "stream":
        return streams.includes(this.#choice.streamId) ? this.#choice.streamId : null;
    }
  }

  #review(): void {
    if (this.#asked !== null || this.#pausing) return;
    const wanted = this.#wanted();
    if (wanted === null) {
      this.#hush();
      return;
    }
    if (wanted === this.#listening?.streamId) return;
    if (!this.#options.socket.send({ type: "start_receiving", stream_id: wanted })) return;
    this.#drop();
    this.#asked = wanted;
    this.#setState({ kind: "connecting", streamId: wanted });
    this.#expire(CONNECT_MS_MAX);
  }

  /** Nobody is to be heard. */
  #hush(): void {
    if (this.#listening !== null) this.#options.socket.send({ type: "stop_stream" });
    this.#drop();
    if (this.#options.socket.state.kind === "away" && this.#choice.kind !== "nobody") return;
    this.#setState(this.#choice.kind === "nobody" ? { kind: "off" } : { kind: "waiting" });
  }

  #handleSocket(event: SocketEvent): void {
    switch (event.kind) {
      case "state":
        if (event.state.kind === "away") this.#handleAway(event.state.full);
        else if (event.state.kind === "open") this.#review();
        return;
      case "streams":
        // A voice that comes or goes is news: no reason to sit out a pause.
        this.#pausing = false;
        this.#review();
        return;
      case "message":
        this.#handleMessage(event.message);
        return;
      case "level":
    }
  }

  #handleMessage(message: ServerMessage): void {
    switch (message.type) {
      case "webrtc_offer":
        this.#handleOffer(message.sdp, message.streamId);
        return;
      case "ice_candidate":
        this.#listening?.handleCandidate(message.candidate);
        return;
      case "error":
        this.#handleError(message.message);
        return;
      case "stream_ended":
      case "stream_available":
      case "sender_ready":
      case "webrtc_answer":
      case "available_streams":
      case "audio_data":
      case "pong":
    }
  }

  /** The server also offers unasked, to who asked for a voice before there was one. */
  #handleOffer(sdp: string, offered: string): void {
    const streamId = offered === "" ? this.#asked : offered;
    if (streamId === null || (this.#asked !== null && this.#asked !== streamId)) return;
    if (streamId === this.#listening?.streamId) return;
    this.#asked = null;
    this.#pausing = false;
    clearTimeout(this.#timer);
    if (streamId !== this.#wanted()) {
      // Else the server takes a later wish for the same voice for a repetition.
      this.#options.socket.send({ type: "stop_stream" });
      this.#review();
      return;
    }
    this.#drop();
    const listening = new Listening(streamId, this.#options, {
      onSound: (stream) => {
        this.#options.audio.srcObject = stream;
        void this.#play(streamId);
      },
      onLost: () => {
        if (this.#listening === listening) this.#handleLoss(new VoiceTrouble("no-path"));
      },
    });
    this.#counters.reset();
    this.#listening = listening;
    void listening.answer(sdp);
  }

  #handleError(message: string): void {
    if (this.#asked === null && this.#listening === null) return;
    const isOver = message === NO_STREAM || message === STREAM_ENDED;
    this.#handleLoss(isOver ? null : serverTrouble(message));
  }

  #handleAway(full: boolean): void {
    this.#asked = null;
    this.#pausing = false;
    clearTimeout(this.#timer);
    const streamId = this.#listening?.streamId ?? null;
    this.#drop();
    if (this.#choice.kind === "nobody") return;
    this.#setState({ kind: "interrupted", streamId, trouble: new VoiceTrouble(full ? "full" : "away") });
  }

  /** Asks again after a pause. Without a trouble the voice is just over, and the list will say so. */
  #handleLoss(trouble: VoiceTrouble | null): void {
    const streamId = this.#asked ?? this.#listening?.streamId ?? null;
    this.#asked = null;
    if (trouble !== null) this.#options.socket.send({ type: "stop_stream" });
    this.#drop();
    this.#setState(trouble === null ? { kind: "waiting" } : { kind: "interrupted", streamId, trouble });
    const delayMs = RETRY_MS[Math.min(this.#failures, RETRY_MS.length - 1)] ?? CONNECT_MS_MAX;
    this.#failures += 1;
    this.#pausing = true;
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => {
      this.#pausing = false;
      this.#review();
    }, delayMs);
  }

  async #play(streamId: string): Promise<void> {
    try {
      await this.#options.audio.play();
    } catch (thrown) {
      const isBlocked = thrown instanceof Error && thrown.name === "NotAllowedError";
      if (isBlocked && this.#listening?.streamId === streamId) this.#setState({ kind: "blocked", streamId });
      // Otherwise another voice took the element meanwhile.
      return;
    }
    if (this.#listening?.streamId !== streamId) return;
    this.#failures = 0;
    this.#setState({ kind: "playing", streamId });
  }

  #expire(afterMs: number): void {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.#handleLoss(new VoiceTrouble("refused", "The server did not answer.")), afterMs);
  }

  #drop(): void {
    if (this.#listening === null) return;
    this.#listening.close();
    this.#listening = null;
    this.#options.audio.pause();
    this.#options.audio.srcObject = null;
  }

  #setState(state: ReceiverState): void {
    if (state.kind === this.#state.kind && (state.kind === "off" || state.kind === "waiting")) return;
    this.#state = state;
    this.#options.onState(state);
  }
}

interface ListeningEvents {
  /** The path and the keys stand, and this is what comes by them. */
  readonly onSound: (stream: MediaStream) => void;
  readonly onLost: () => void;
}

/** One peer connection from the server, used once. */
class Listening {
  readonly streamId: string;
  readonly #socket: VoiceSocket;
  readonly #peer: RTCPeerConnection;
  readonly #events: ListeningEvents;
  #stream: MediaStream | null = null;
  #deadline: ReturnType<typeof setTimeout>;
  #closed = false;
  #heard = false;

  constructor(streamId: string, { socket, newPeer }: ReceiverOptions, events: ListeningEvents) {
    this.streamId = streamId;
    this.#socket = socket;
    this.#events = events;
    this.#peer = newPeer();
    this.#peer.addEventListener("connectionstatechange", () => this.#handleState());
    this.#peer.addEventListener("track", (event) => {
      this.#stream = event.streams[0] ?? new MediaStream([event.track]);
      this.#handleState();
    });
    this.#deadline = setTimeout(() => this.#lose(), CONNECT_MS_MAX);
  }

  /** Answers at once: the server learns of our addresses from our own checks (ICE-lite). */
  async answer(sdp: string): Promise<void> {
    try {
      await this.#peer.setRemoteDescription({ type: "offer", sdp });
      await this.#peer.setLocalDescription();
    } catch {
      this.#lose();
      return;
    }
    const answer = this.#peer.localDescription?.sdp;
    if (!this.#closed && answer !== undefined) {
      this.#socket.send({ type: "webrtc_answer", answer: { type: "answer", sdp: answer } });
    }
  }

  handleCandidate(candidate: RTCIceCandidateInit): void {
    if (!this.#closed) void this.#peer.addIceCandidate(candidate).catch(() => undefined);
  }

  stats(): Promise<RTCStatsReport> {
    return this.#peer.getStats();
  }

  close(): void {
    this.#closed = true;
    clearTimeout(this.#deadline);
    this.#peer.close();
  }

  #handleState(): void {
    if (this.#closed) return;
    switch (this.#peer.connectionState) {
      case "connected":
        clearTimeout(this.#deadline);
        if (this.#stream !== null && !this.#heard) {
          this.#heard = true;
          this.#events.onSound(this.#stream);
        }
        return;
      case "disconnected":
        clearTimeout(this.#deadline);
        this.#deadline = setTimeout(() => this.#lose(), INTERRUPTED_MS_MAX);
        return;
      case "failed":
      case "closed":
        this.#lose();
        return;
      case "new":
      case "connecting":
    }
  }

  #lose(): void {
    if (this.#closed) return;
    this.close();
    this.#events.onLost();
  }
}
