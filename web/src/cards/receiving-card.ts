/** `voice-receiving-card`: hears voices in this browser, or has a media player of Home Assistant play them. */

import { meterPart } from "../rtc/meter";
import { type Choice, type ReceiverState, VoiceReceiver } from "../rtc/voice-receiver";
import { browserPeer } from "../rtc/voice-sender";
import { DEFAULT_SETTINGS, fetchSettings } from "../rtc/voice-setup";
import { type SocketEvent, VoiceSocket } from "../rtc/voice-socket";
import { voiceName } from "../rtc/voice-wire";
import { awayNote, followFrames, surroundings, VoiceCard } from "./card";
import { isOnlyHere, type RawConfig, type ReceivingConfig, receivingConfigFrom, type Surroundings } from "./config";
import { h, icon, say, SPEAKER } from "./dom";
import { ReceivingEditor } from "./editor";
import { nameOf } from "./hass";

const FIGURES_MS = 1_000;
/** The server tells levels ten times a second; what is older than a few of these is silence. */
const LEVEL_MS_MAX = 400;

export class ReceivingCard extends VoiceCard<ReceivingConfig> {
  readonly #audio = h("audio", { autoplay: true, hidden: true });
  readonly #listenLabel = h("span", {}, "Listen");
  readonly #listen = h("button", { class: "wide", type: "button" }, icon(SPEAKER), this.#listenLabel);
  readonly #player = h("button", { class: "wide quiet", type: "button" });
  readonly #choice = h("select", { "aria-label": "Whom to hear" });
  readonly #volume = h("input", { type: "range", min: "0", max: "100", value: "100", "aria-label": "Volume" });
  readonly #meter = h("span", { class: "meter", "aria-hidden": "true" }, h("span", { class: "meter-fill" }));
  readonly #latency = h("p", { class: "latency" });
  #socket: VoiceSocket | null = null;
  #receiver: VoiceReceiver | null = null;
  #settings = DEFAULT_SETTINGS;
  #wasOpen = false;
  #level = { value: 0, atMs: 0 };
  #playerTrouble = "";
  /** Voices at the last look: the first one after a silence starts the media player. */
  #voices = 0;
  #endings: (() => void)[] = [];

  constructor() {
    super();
    this.#listen.addEventListener("click", () => this.#toggle());
    this.#player.addEventListener("click", () => void this.#playOnPlayer());
    this.#volume.addEventListener("input", () => this.#receiver && (this.#receiver.volume = Number(this.#volume.value) / 100));
    this.#choice.addEventListener("change", () => this.#receiver?.follow(this.#chosen()));
  }

  static getStubConfig(): Record<string, unknown> {
    return { server_url: surroundings().home?.base.origin ?? "http://192.168.1.20:8080", auto_listen: true };
  }

  static getConfigElement(): HTMLElement {
    return document.createElement(ReceivingEditor.tag);
  }

  protected read(raw: RawConfig, around: Surroundings): ReceivingConfig {
    return receivingConfigFrom(raw, around);
  }

  protected join({ address, token, autoListen, targetMediaPlayer }: ReceivingConfig, body: HTMLElement): void {
    const isElsewhere = targetMediaPlayer !== null;
    const controls = h("div", { class: "controls" }, this.#choice, this.#volume);
    body.append(this.#listen, ...(isElsewhere ? [this.#player] : []), this.#meter, controls, this.#latency, this.#audio);
    const socket = new VoiceSocket(() => address.socket(token));
    const receiver = new VoiceReceiver({
      socket,
      audio: this.#audio,
      newPeer: () => browserPeer(this.#settings),
      isOwn: () => false,
      onState: () => this.render(),
    });
    [this.#socket, this.#receiver] = [socket, receiver];
    const figures = setInterval(() => void this.#takeFigures(), FIGURES_MS);
    this.#endings = [
      socket.listen((event) => this.#handleSocket(event)),
      followFrames(() => this.#drawLevel()),
      () => clearInterval(figures),
    ];
    const unlock = (): void => receiver.unlock();
    addEventListener("pointerdown", unlock);
    this.#endings.push(() => removeEventListener("pointerdown", unlock));
    this.#renderVoices();
    if (autoListen && !isElsewhere) receiver.follow({ kind: "newest" });
    void fetchSettings(address).then((settings) => (this.#settings = settings));
    socket.start();
  }

  protected leave(): void {
    for (const end of this.#endings.splice(0)) end();
    this.#receiver?.close();
    this.#socket?.close();
    [this.#receiver, this.#socket] = [null, null];
    [this.#wasOpen, this.#voices, this.#playerTrouble] = [false, 0, ""];
  }

  protected render(): void {
    const { config } = this;
    if (config === null || this.#socket === null || this.#receiver === null) return;
    const { state } = this.#receiver;
    const [words, tone] = statusOf(state, this.#socket.streams.length);
    this.setStatus(words, tone);
    say(this.#listenLabel, state.kind === "off" ? "Listen" : state.kind === "blocked" ? "Tap to hear" : "Stop listening");
    this.#listen.setAttribute("aria-pressed", String(state.kind !== "off"));
    this.#listen.dataset["state"] = state.kind;
    if (state.kind !== "playing") say(this.#latency, "");
    if (config.targetMediaPlayer !== null) say(this.#player, `Play on ${nameOf(this.hass, config.targetMediaPlayer)}`);
    const away = awayNote(this.#socket.state, config.address, this.#wasOpen);
    const trouble = state.kind === "interrupted" ? state.trouble.sentence.replace("This page tries", "This card tries") : "";
    this.setNote(away || trouble || this.#playerTrouble);
  }

  #toggle(): void {
    const receiver = this.#receiver;
    if (receiver === null) return;
    if (receiver.state.kind === "blocked") receiver.unlock();
    else receiver.follow(receiver.choice.kind === "nobody" ? this.#chosen() : { kind: "nobody" });
    this.render();
  }

  #chosen(): Choice {
    return this.#choice.value === "" ? { kind: "newest" } : { kind: "stream", streamId: this.#choice.value };
  }

  #handleSocket(event: SocketEvent): void {
    switch (event.kind) {
      case "state":
        if (event.state.kind === "open") this.#wasOpen = true;
        this.render();
        return;
      case "streams":
        this.#renderVoices();
        this.#followOnPlayer(event.streams.length);
        this.render();
        return;
      case "level":
        this.#handleLevel(event.streamId, event.level);
        return;
      case "message":
    }
  }

  /** The meter shows the voice that is heard; while none is, whoever speaks. */
  #handleLevel(streamId: string, level: number): void {
    const state = this.#receiver?.state;
    const heard = state !== undefined && "streamId" in state ? state.streamId : null;
    if (heard === null || heard === streamId) this.#level = { value: level, atMs: performance.now() };
  }

  #renderVoices(): void {
    const before = this.#choice.value;
    const streams = (this.#socket?.streams ?? []).toReversed();
    const gone = before !== "" && !streams.includes(before) ? [before] : [];
    const options = [...streams, ...gone].map((streamId) => h("option", { value: streamId }, voiceName(streamId)));
    this.#choice.replaceChildren(h("option", { value: "" }, "Newest voice"), ...options);
    this.#choice.value = before;
  }

  /** With `auto_listen` the player starts with the first voice after a silence; the stream then goes on by itself. */
  #followOnPlayer(voices: number): void {
    const begins = this.#voices === 0 && voices > 0;
    this.#voices = voices;
    if (begins && this.config?.autoListen === true && this.config.targetMediaPlayer !== null) void this.#playOnPlayer();
  }

  async #playOnPlayer(): Promise<void> {
    const { config, hass } = this;
    if (config === null || config.targetMediaPlayer === null) return;
    this.#playerTrouble = await play(config, config.targetMediaPlayer);
    this.render();

    async function play({ streamUrl }: ReceivingConfig, entityId: string): Promise<string> {
      if (isOnlyHere(streamUrl)) return `${nameOf(hass, entityId)} cannot reach ${streamUrl}: that address means the speaker itself. Set server_url to the server’s address on the network.`;
      if (hass === null) return "Home Assistant has not answered yet; try again in a moment.";
      if (hass.states[entityId] === undefined) return `Home Assistant has no ${entityId}; choose another target_media_player.`;
      try {
        await hass.callService("media_player", "play_media", {
          entity_id: entityId,
          media_content_id: streamUrl,
          media_content_type: "music",
        });
        return "";
      } catch (thrown) {
        const reason = thrown instanceof Error ? thrown.message : "Home Assistant refused";
        return `${nameOf(hass, entityId)} does not play: ${reason}.`;
      }
    }
  }

  async #takeFigures(): Promise<void> {
    if (document.hidden || this.#receiver?.state.kind !== "playing") return;
    const { latencyMs } = await this.#receiver.figures();
    if (this.#receiver?.state.kind === "playing" && latencyMs !== null) say(this.#latency, `${Math.round(latencyMs)} ms from the server to your ear`);
  }

  #drawLevel(): void {
    const isFresh = performance.now() - this.#level.atMs <= LEVEL_MS_MAX;
    this.#meter.style.setProperty("--level", isFresh ? meterPart(this.#level.value).toFixed(3) : "0");
  }
}

function statusOf(state: ReceiverState, voices: number): [string, "calm" | "busy" | "live" | "bad"] {
  switch (state.kind) {
    case "off":
      return [voices === 0 ? "Nobody speaks" : voices === 1 ? "One live voice" : `${voices} live voices`, "calm"];
    case "waiting":
      return ["Waiting for a voice", "calm"];
    case "connecting":
      return ["Connecting", "busy"];
    case "playing":
      return [`Hearing ${voiceName(state.streamId)}`, "live"];
    case "blocked":
      return ["The browser wants a tap first", "busy"];
    case "interrupted":
      return [state.trouble.headline, "bad"];
  }
}
