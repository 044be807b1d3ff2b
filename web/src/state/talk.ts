/**
 * The talk room, as the page shows it: who speaks, whom one hears, and one's own voice.
 *
 * Two sockets: one hears, and stays open; the other one speaks, and is opened by the first press. The
 * server carries one of the two a socket.
 */

import { effect, signal } from "@preact/signals";
import { addressOfPage, type VoiceAddress } from "../rtc/voice-address";
import { NO_VOICE_FIGURES, type VoiceFigures } from "../rtc/voice-figures";
import { type Choice, type ReceiverState, VoiceReceiver } from "../rtc/voice-receiver";
import { browserPeer, browserSender, type SenderState, type VoiceSender } from "../rtc/voice-sender";
import { DEFAULT_SETTINGS, fetchSecureDoor, fetchSettings, type SecureDoor } from "../rtc/voice-setup";
import { type SocketState, VoiceSocket } from "../rtc/voice-socket";
import { type SwitchMode, TalkSwitch } from "../rtc/voice-switch";
import { voiceName } from "../rtc/voice-wire";
import { announce } from "./announce";
import { read, write } from "./settings";

/** A voice that can be heard. */
export interface Voice {
  readonly streamId: string;
  /** Short, and the same as long as the voice lasts. */
  readonly name: string;
  readonly isOwn: boolean;
  /** Since when this page knows of it, on the `performance.now()` clock. */
  readonly sinceMs: number;
}

export interface Microphone {
  readonly id: string;
  readonly label: string;
}

const FIGURES_MS = 1_000;
/** The server tells levels ten times a second; what is older than a few of these is silence. */
const LEVEL_MS_MAX = 400;

export class TalkRoom {
  readonly address: VoiceAddress;
  readonly voices = signal<readonly Voice[]>([]);
  readonly choice = signal<Choice>(choiceFrom(read(localStorage, "manifold.listen")));
  readonly hearing = signal<ReceiverState>({ kind: "off" });
  readonly talking = signal<SenderState>({ kind: "idle" });
  readonly connection = signal<SocketState>({ kind: "closed" });
  readonly figures = signal<VoiceFigures>(NO_VOICE_FIGURES);
  readonly volume = signal(volumeFrom(read(localStorage, "manifold.volume")));
  readonly mode = signal<SwitchMode>(read(localStorage, "manifold.talk") === "latch" ? "latch" : "hold");
  readonly microphones = signal<readonly Microphone[]>([]);
  readonly microphoneId = signal(read(localStorage, "manifold.microphone"));
  readonly settings = signal(DEFAULT_SETTINGS);
  /** For servers that ask for one. */
  readonly token = signal(read(localStorage, "manifold.voice-token"));
  /** `null` where the page is secure, or the server has no HTTPS. */
  readonly secureDoor = signal<SecureDoor | null>(null);
  /** Whether this page gets a microphone at all. */
  readonly isSecure = isSecureContext;
  readonly talk: TalkSwitch;

  readonly #socket: VoiceSocket;
  readonly #sender: VoiceSender;
  readonly #receiver: VoiceReceiver;
  readonly #audio: HTMLAudioElement;
  readonly #levels = new Map<string, { readonly level: number; readonly atMs: number }>();
  readonly #endings: (() => void)[] = [];
  readonly #wake = new WakeLock();

  /** `audio`: what plays; it belongs to the page, and has to be in it. */
  constructor(audio: HTMLAudioElement, address = addressOfPage(location.href)) {
    this.address = address;
    this.#audio = audio;
    const url = (): string => address.socket(this.token.peek());
    this.#socket = new VoiceSocket(url);
    this.#sender = browserSender(url, () => this.settings.peek(), (state) => this.#handleTalking(state));
    this.#receiver = new VoiceReceiver({
      socket: this.#socket,
      audio,
      newPeer: () => browserPeer(this.settings.peek()),
      isOwn: (streamId) => streamId === this.#sender.streamId,
      onState: (state) => this.#handleHearing(state),
    });
    this.talk = new TalkSwitch({ start: () => this.#startTalking(), stop: () => this.#sender.stop() });
  }

  /** Joins the room; the result of `effect`s and listeners ends with `close`. */
  start(): void {
    this.#endings.push(
      this.#socket.listen((event) => {
        if (event.kind === "streams") this.#handleStreams(event.streams);
        else if (event.kind === "level") this.#levels.set(event.streamId, { level: event.level, atMs: performance.now() });
        else if (event.kind === "state") this.connection.value = event.state;
      }),
      effect(() => this.#receiver.follow(this.choice.value)),
      effect(() => {
        this.#receiver.volume = this.volume.value;
        write(localStorage, "manifold.volume", String(this.volume.value));
      }),
      effect(() => {
        this.talk.mode = this.mode.value;
        write(localStorage, "manifold.talk", this.mode.value);
      }),
      effect(() => {
        void this.#sender.replaceDevice(this.microphoneId.value);
        write(localStorage, "manifold.microphone", this.microphoneId.value);
      }),
      effect(() => {
        if (this.choice.value.kind !== "stream") write(localStorage, "manifold.listen", this.choice.value.kind);
      }),
    );
    this.#listenToPage();
    this.#socket.start();
    void fetchSettings(this.address).then((settings) => (this.settings.value = settings));
    if (!this.isSecure) void fetchSecureDoor(this.address).then((door) => (this.secureDoor.value = door));
    void this.#listMicrophones();
  }

  close(): void {
    for (const end of this.#endings.splice(0)) end();
    this.talk.end();
    this.#sender.close();
    this.#receiver.close();
    this.#socket.close();
    this.#wake.release();
  }

  /** How loud a voice is, 0 to 1. */
  level(streamId: string): number {
    const known = this.#levels.get(streamId);
    return known !== undefined && performance.now() - known.atMs <= LEVEL_MS_MAX ? known.level : 0;
  }

  /** How loud one's own microphone is, 0 to 1. */
  ownLevel(): number {
    return this.#sender.level();
  }

  get ownStreamId(): string | null {
    return this.#sender.streamId;
  }

  /** From a click or a key: plays what the browser held back. */
  unlock(): void {
    this.#receiver.unlock();
  }

  /** Uses another token from here on. */
  useToken(token: string): void {
    this.token.value = token;
    write(localStorage, "manifold.voice-token", token);
    this.#socket.retryNow();
  }

  #startTalking(): void {
    // The same gesture lets the page play.
    this.#receiver.unlock();
    this.#sender.start();
  }

  #handleTalking(state: SenderState): void {
    const before = this.talking.peek().kind;
    this.talking.value = state;
    if (state.kind === "failed") this.talk.handleEnded();
    if (state.kind === before) return;
    if (state.kind === "on-air") {
      this.#wake.request();
      navigator.vibrate?.(20);
      announce("On air.");
      void this.#listMicrophones();
    } else if (state.kind !== "interrupted") {
      this.#wake.release();
      if (before === "on-air") announce("Off air.");
    }
    this.#nameVoices(this.#socket.streams);
  }

  #handleHearing(state: ReceiverState): void {
    const before = this.hearing.peek();
    this.hearing.value = state;
    if (state.kind !== "playing") this.figures.value = NO_VOICE_FIGURES;
    if (state.kind === "playing" && before.kind !== "playing") announce(`Hearing ${voiceName(state.streamId)}.`);
  }

  #handleStreams(streams: readonly string[]): void {
    for (const streamId of this.#levels.keys()) {
      if (!streams.includes(streamId)) this.#levels.delete(streamId);
    }
    this.#nameVoices(streams);
  }

  /** Newest first: that is whom one looks for. */
  #nameVoices(streams: readonly string[]): void {
    const known = new Map(this.voices.peek().map((voice) => [voice.streamId, voice]));
    this.voices.value = streams.toReversed().map((streamId) => ({
      streamId,
      name: voiceName(streamId),
      isOwn: streamId === this.#sender.streamId,
      sinceMs: known.get(streamId)?.sinceMs ?? performance.now(),
    }));
  }

  #listenToPage(): void {
    const end = new AbortController();
    const { signal } = end;
    addEventListener("online", () => this.#socket.retryNow(), { signal });
    document.addEventListener("visibilitychange", () => !document.hidden && this.#socket.retryNow(), { signal });
    for (const gesture of ["pointerdown", "keydown"]) addEventListener(gesture, () => this.unlock(), { signal });
    addEventListener("pagehide", () => this.close(), { signal });
    // Absent on plain HTTP, whatever the type says.
    const devices: MediaDevices | undefined = navigator.mediaDevices;
    devices?.addEventListener("devicechange", () => void this.#listMicrophones(), { signal });
    const figures = setInterval(() => void this.#takeFigures(), FIGURES_MS);
    this.#endings.push(
      () => end.abort(),
      () => clearInterval(figures),
    );
  }

  async #takeFigures(): Promise<void> {
    if (document.hidden || this.hearing.peek().kind !== "playing") return;
    const figures = await this.#receiver.figures();
    if (this.hearing.peek().kind === "playing") this.figures.value = figures;
  }

  /** Names are told only once the microphone was allowed; before, there is nothing to choose. */
  async #listMicrophones(): Promise<void> {
    const devices: MediaDevices | undefined = navigator.mediaDevices;
    const all = (await devices?.enumerateDevices().catch(() => [])) ?? [];
    this.microphones.value = all
      .filter(({ kind, deviceId, label }) => kind === "audioinput" && deviceId !== "" && deviceId !== "default" && label !== "")
      .map(({ deviceId, label }) => ({ id: deviceId, label }));
  }

  /** For tests and the curious. */
  report(): Record<string, unknown> {
    const [hearing, talking] = [this.hearing.peek(), this.talking.peek()];
    return {
      hearing: hearing.kind,
      streamId: "streamId" in hearing ? hearing.streamId : null,
      talking: talking.kind,
      trouble: "trouble" in talking ? talking.trouble.kind : null,
      ownStreamId: this.#sender.streamId,
      ownLevel: this.#sender.level(),
      voices: this.voices.peek().map((voice) => ({ ...voice, level: this.level(voice.streamId) })),
      connection: this.connection.peek().kind,
      volume: this.#audio.volume,
      ...this.figures.peek(),
    };
  }
}

/** Keeps the screen on, where the browser can. */
class WakeLock {
  #wanted = false;
  #sentinel: WakeLockSentinel | null = null;

  request(): void {
    this.#wanted = true;
    // Absent on plain HTTP and in older browsers, whatever the type says.
    const lock: Navigator["wakeLock"] | undefined = navigator.wakeLock;
    void lock?.request("screen").then(
      (sentinel) => {
        if (this.#wanted) this.#sentinel = sentinel;
        else void sentinel.release();
      },
      // Low battery, or not allowed: the screen goes dark, the voice stays.
      () => undefined,
    );
  }

  release(): void {
    this.#wanted = false;
    void this.#sentinel?.release();
    this.#sentinel = null;
  }
}

function choiceFrom(stored: string): Choice {
  return stored === "nobody" ? { kind: "nobody" } : { kind: "newest" };
}

function volumeFrom(stored: string): number {
  const volume = stored === "" ? 1 : Number(stored);
  return volume >= 0 && volume <= 1 ? volume : 1;
}
