/**
 * Sends one voice: microphone, offer, and all of it again when the connection fails while a person
 * still talks.
 *
 * The microphone is open only between `start` and `stop`, so that its light tells the truth. The path
 * to the server is made meanwhile: the offer has a place for the track before there is one.
 * How hold and toggle become `start` and `stop` is `voice-switch.ts`.
 */

import { type Meter, meterOf } from "./meter";
import { DEFAULT_SETTINGS, type VoiceSettings } from "./voice-setup";
import { type SocketEvent, VoiceSocket } from "./voice-socket";
import { microphoneTrouble, serverTrouble, VoiceTrouble } from "./voice-trouble";
import { type ServerMessage, streamIdOf } from "./voice-wire";

export type SenderState =
  | { readonly kind: "idle" }
  /** Microphone or path are not there yet: what is said now is lost. */
  | { readonly kind: "opening" }
  | { readonly kind: "on-air" }
  /** Was on air, and connects again by itself; `trouble` says why. */
  | { readonly kind: "interrupted"; readonly trouble: VoiceTrouble }
  /** It takes a person to change something. */
  | { readonly kind: "failed"; readonly trouble: VoiceTrouble };

/** What a sender is built from; tests bring their own. */
export interface SenderOptions {
  readonly socket: VoiceSocket;
  readonly newPeer: (settings: VoiceSettings) => RTCPeerConnection;
  /** `undefined` where the page is not allowed any, as on plain HTTP. */
  readonly microphone: ((constraints: MediaStreamConstraints) => Promise<MediaStream>) | undefined;
  readonly meterOf: (track: MediaStreamTrack) => Meter;
  /** As the server last told them; asked at each start. */
  readonly settings: () => VoiceSettings;
  readonly onState: (state: SenderState) => void;
}

/** On a network of one building path and keys take well under a second. */
const CONNECT_MS_MAX = 8_000;
/** Chromium reports an interruption after about 5 s of silence. */
const INTERRUPTED_MS_MAX = 2_500;
const RETRY_MS = [200, 1_000, 2_000, 4_000] as const;
/** A used socket stays open this long after the last word, so that an answer goes on air at once. */
const IDLE_MS = 300_000;

export function browserPeer({ iceServers }: VoiceSettings): RTCPeerConnection {
  return new RTCPeerConnection({ iceServers: [...iceServers], bundlePolicy: "max-bundle" });
}

export function browserSender(
  socketUrl: () => string,
  settings: () => VoiceSettings,
  onState: (state: SenderState) => void,
): VoiceSender {
  // Absent on pages that came by plain HTTP, whatever the type says.
  const devices: MediaDevices | undefined = navigator.mediaDevices;
  return new VoiceSender({
    socket: new VoiceSocket(socketUrl),
    newPeer: browserPeer,
    microphone: devices === undefined ? undefined : (constraints) => devices.getUserMedia(constraints),
    meterOf,
    settings,
    onState,
  });
}

export class VoiceSender {
  readonly #options: SenderOptions;
  readonly #unlisten: () => void;
  #state: SenderState = { kind: "idle" };
  #talk: Talk | null = null;
  #deviceId = "";
  #muted = false;
  #streamId: string | null = null;
  #failures = 0;
  #retry: ReturnType<typeof setTimeout> | undefined;
  #idle: ReturnType<typeof setTimeout> | undefined;
  /** The microphone, from `start` to `stop`, over every reconnection between. */
  #microphone: Microphone | null = null;
  /** Counts the starts, so that what belongs to an older one is told apart. */
  #turn = 0;

  constructor(options: SenderOptions) {
    this.#options = options;
    this.#unlisten = options.socket.listen((event) => this.#handleSocket(event));
  }

  get state(): SenderState {
    return this.#state;
  }

  /** The stream that this sender makes or last made, so that a page does not play its own voice. */
  get streamId(): string | null {
    return this.#streamId;
  }

  get isMuted(): boolean {
    return this.#muted;
  }

  /** The microphone that is open; `null` between talks. */
  get track(): MediaStreamTrack | null {
    return this.#microphone?.track ?? null;
  }

  /** How loud the microphone is, 0 to 1. */
  level(): number {
    return this.#muted ? 0 : (this.#microphone?.meter.level() ?? 0);
  }

  /** Begins to talk; while talking a second call changes nothing. */
  start(): void {
    if (this.#isWanted()) return;
    clearTimeout(this.#idle);
    this.#turn += 1;
    this.#failures = 0;
    if (this.#options.microphone === undefined) {
      this.#setState({ kind: "failed", trouble: new VoiceTrouble("insecure") });
      return;
    }
    this.#setState({ kind: "opening" });
    this.#options.socket.start();
    this.#options.socket.retryNow();
    void this.#openMicrophone(this.#turn);
    this.#connect();
  }

  /** Stops talking; the microphone is let go at once. What failed stays told until the next start. */
  stop(): void {
    if (!this.#isWanted()) return;
    this.#end({ kind: "idle" });
    this.#idle = setTimeout(() => this.#options.socket.close(), IDLE_MS);
  }

  /** Ends everything. */
  close(): void {
    this.stop();
    clearTimeout(this.#idle);
    this.#unlisten();
    this.#options.socket.close();
  }

  /** Sends silence until `unmute`. */
  mute(): void {
    this.#setMuted(true);
  }

  unmute(): void {
    this.#setMuted(false);
  }

  /** Talks through another microphone, from the next word on; an empty id is the system's choice. */
  async replaceDevice(deviceId: string): Promise<void> {
    this.#deviceId = deviceId;
    if (!this.#isWanted()) return;
    await this.#openMicrophone(this.#turn);
  }

  #isWanted(): boolean {
    return this.#state.kind !== "idle" && this.#state.kind !== "failed";
  }

  async #openMicrophone(turn: number): Promise<void> {
    const ask = this.#options.microphone;
    if (ask === undefined) return;
    try {
      const stream = await this.#ask(ask);
      const [track] = stream.getAudioTracks();
      if (track === undefined) throw new VoiceTrouble("no-microphone");
      if (turn !== this.#turn || !this.#isWanted()) {
        track.stop();
        return;
      }
      this.#takeMicrophone(track);
    } catch (thrown) {
      if (turn === this.#turn) this.#end({ kind: "failed", trouble: microphoneTrouble(thrown) });
    }
  }

  /** A chosen device that is gone gives way to any other. */
  async #ask(ask: (constraints: MediaStreamConstraints) => Promise<MediaStream>): Promise<MediaStream> {
    const wishes = { ...DEFAULT_SETTINGS.wishes, ...this.#options.settings().wishes };
    if (this.#deviceId === "") return ask({ audio: wishes });
    try {
      return await ask({ audio: { ...wishes, deviceId: { exact: this.#deviceId } } });
    } catch (thrown) {
      const gone = thrown instanceof Error && ["OverconstrainedError", "NotFoundError"].includes(thrown.name);
      if (!gone) throw thrown;
      return ask({ audio: wishes });
    }
  }

  #takeMicrophone(track: MediaStreamTrack): void {
    this.#microphone?.close();
    track.contentHint = "speech";
    track.enabled = !this.#muted;
    this.#microphone = new Microphone(track, this.#options.meterOf(track));
    track.addEventListener("ended", () => {
      if (this.#microphone?.track === track) this.#end({ kind: "failed", trouble: new VoiceTrouble("unplugged") });
    });
    void this.#talk?.carry(track);
    this.#review();
  }

  #connect(): void {
    clearTimeout(this.#retry);
    this.#talk?.close();
    this.#talk = null;
    if (this.#options.socket.state.kind !== "open") return;
    this.#options.socket.send({ type: "start_sending" });
    const talk = new Talk(this.#options, {
      onStage: () => {
        if (this.#talk === talk) this.#review();
      },
      onLost: (trouble) => {
        if (this.#talk === talk) this.#handleLoss(trouble);
      },
    });
    this.#talk = talk;
    if (this.#microphone !== null) void talk.carry(this.#microphone.track);
  }

  #handleSocket(event: SocketEvent): void {
    if (!this.#isWanted()) return;
    if (event.kind === "message") this.#handleMessage(event.message);
    else if (event.kind === "state" && event.state.kind === "open") this.#connect();
    else if (event.kind === "state" && event.state.kind === "away") {
      this.#talk?.close();
      this.#talk = null;
      this.#setState({ kind: "interrupted", trouble: new VoiceTrouble(event.state.full ? "full" : "away") });
    }
  }

  #handleMessage(message: ServerMessage): void {
    switch (message.type) {
      case "sender_ready":
        this.#streamId = streamIdOf(message.connectionId);
        void this.#talk?.offer();
        return;
      case "webrtc_answer":
        void this.#talk?.handleAnswer(message.sdp);
        return;
      case "ice_candidate":
        void this.#talk?.handleCandidate(message.candidate);
        return;
      case "error":
        // After a loss the socket tells it; here the server answered and said no.
        this.#handleLoss(serverTrouble(message.message));
        return;
      case "stream_ended":
        if (message.streamId === this.#streamId && this.#state.kind === "on-air") this.#handleLoss(new VoiceTrouble("away"));
        return;
      case "webrtc_offer":
      case "available_streams":
      case "stream_available":
      case "audio_data":
      case "pong":
    }
  }

  #review(): void {
    if (this.#talk?.isConnected !== true || this.#microphone === null || !this.#isWanted()) return;
    this.#failures = 0;
    this.#setState({ kind: "on-air" });
  }

  #handleLoss(trouble: VoiceTrouble): void {
    this.#talk?.close();
    this.#talk = null;
    this.#setState({ kind: "interrupted", trouble });
    const delayMs = RETRY_MS[Math.min(this.#failures, RETRY_MS.length - 1)];
    this.#failures += 1;
    clearTimeout(this.#retry);
    this.#retry = setTimeout(() => {
      if (this.#isWanted()) this.#connect();
    }, delayMs);
  }

  #end(state: SenderState): void {
    clearTimeout(this.#retry);
    if (this.#talk !== null) this.#options.socket.send({ type: "stop_stream" });
    this.#talk?.close();
    this.#talk = null;
    this.#microphone?.close();
    this.#microphone = null;
    this.#setState(state);
  }

  #setMuted(muted: boolean): void {
    this.#muted = muted;
    if (this.#microphone !== null) this.#microphone.track.enabled = !muted;
  }

  #setState(state: SenderState): void {
    this.#state = state;
    this.#options.onState(state);
  }
}

/** The open microphone and its meter. */
class Microphone {
  readonly track: MediaStreamTrack;
  readonly meter: Meter;

  constructor(track: MediaStreamTrack, meter: Meter) {
    this.track = track;
    this.meter = meter;
  }

  close(): void {
    this.track.stop();
    this.meter.close();
  }
}

interface TalkEvents {
  readonly onStage: () => void;
  readonly onLost: (trouble: VoiceTrouble) => void;
}

/** One peer connection to the server, used once. */
class Talk {
  readonly #socket: VoiceSocket;
  readonly #peer: RTCPeerConnection;
  readonly #events: TalkEvents;
  readonly #sender: RTCRtpSender;
  readonly #offer: Promise<void>;
  #deadline: ReturnType<typeof setTimeout>;
  #closed = false;

  constructor({ socket, newPeer, settings }: SenderOptions, events: TalkEvents) {
    this.#socket = socket;
    this.#events = events;
    this.#peer = newPeer(settings());
    this.#sender = this.#peer.addTransceiver("audio", { direction: "sendonly" }).sender;
    this.#peer.addEventListener("connectionstatechange", () => this.#handleState());
    this.#offer = this.#peer.setLocalDescription();
    this.#offer.catch(() => this.#lose(new VoiceTrouble("browser")));
    this.#deadline = this.#expire(CONNECT_MS_MAX);
  }

  get isConnected(): boolean {
    return this.#peer.connectionState === "connected";
  }

  /** Sends the offer; candidates need not be told, since the server answers to whoever asks (ICE-lite). */
  async offer(): Promise<void> {
    await this.#offer;
    const sdp = this.#peer.localDescription?.sdp;
    if (!this.#closed && sdp !== undefined) this.#socket.send({ type: "webrtc_offer", offer: { type: "offer", sdp } });
  }

  async handleAnswer(sdp: string): Promise<void> {
    if (this.#closed || this.#peer.signalingState !== "have-local-offer") return;
    await this.#peer.setRemoteDescription({ type: "answer", sdp }).catch(() => this.#lose(new VoiceTrouble("browser")));
  }

  async handleCandidate(candidate: RTCIceCandidateInit): Promise<void> {
    if (!this.#closed) await this.#peer.addIceCandidate(candidate).catch(() => undefined);
  }

  async carry(track: MediaStreamTrack): Promise<void> {
    if (!this.#closed) await this.#sender.replaceTrack(track).catch(() => this.#lose(new VoiceTrouble("browser")));
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
        this.#events.onStage();
        return;
      case "disconnected":
        clearTimeout(this.#deadline);
        this.#deadline = this.#expire(INTERRUPTED_MS_MAX);
        return;
      case "failed":
      case "closed":
        this.#lose(new VoiceTrouble("no-path"));
        return;
      case "new":
      case "connecting":
    }
  }

  #expire(afterMs: number): ReturnType<typeof setTimeout> {
    return setTimeout(() => this.#lose(new VoiceTrouble("no-path")), afterMs);
  }

  #lose(trouble: VoiceTrouble): void {
    if (this.#closed) return;
    this.close();
    this.#events.onLost(trouble);
  }
}
