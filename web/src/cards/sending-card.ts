/** `voice-sending-card`: a talk button. */

import { meterPart } from "../rtc/meter";
import type { VoiceAddress } from "../rtc/voice-address";
import { browserSender, type SenderState, type VoiceSender } from "../rtc/voice-sender";
import { DEFAULT_SETTINGS, fetchSettings } from "../rtc/voice-setup";
import { attachSwitch, TalkSwitch } from "../rtc/voice-switch";
import { VoiceTrouble } from "../rtc/voice-trouble";
import { followFrames, securePage, surroundings, VoiceCard } from "./card";
import { type RawConfig, type SendingConfig, sendingConfigFrom, type Surroundings } from "./config";
import { h, icon, MICROPHONE, say } from "./dom";
import { SendingEditor } from "./editor";

export class SendingCard extends VoiceCard<SendingConfig> {
  readonly #label = h("span", { class: "talk-label" });
  readonly #button = h("button", { class: "talk", type: "button" }, h("span", { class: "halo" }), h("span", { class: "face" }, icon(MICROPHONE), this.#label));
  #sender: VoiceSender | null = null;
  #talk: TalkSwitch | null = null;
  #settings = DEFAULT_SETTINGS;
  #securePage: string | null = null;
  #endings: (() => void)[] = [];

  static getStubConfig(): Record<string, unknown> {
    return { server_url: surroundings().home?.base.origin ?? "http://192.168.1.20:8080" };
  }

  static getConfigElement(): HTMLElement {
    return document.createElement(SendingEditor.tag);
  }

  protected read(raw: RawConfig, around: Surroundings): SendingConfig {
    return sendingConfigFrom(raw, around);
  }

  protected join({ address, token, mode }: SendingConfig, body: HTMLElement): void {
    body.append(this.#button);
    const sender = browserSender(() => address.socket(token), () => this.#settings, (state) => this.#handleState(state));
    const talk = new TalkSwitch({ start: () => sender.start(), stop: () => sender.stop() });
    talk.mode = mode;
    [this.#sender, this.#talk] = [sender, talk];
    this.#endings = [attachSwitch(this.#button, talk), followFrames(() => this.#drawLevel())];
    void fetchSettings(address).then((settings) => (this.#settings = settings));
    if (!isSecureContext) void this.#findSecurePage(address);
  }

  protected leave(): void {
    for (const end of this.#endings.splice(0)) end();
    this.#sender?.close();
    [this.#sender, this.#talk] = [null, null];
  }

  protected render(): void {
    const { config } = this;
    if (config === null || this.#sender === null) return;
    const state = isSecureContext ? this.#sender.state : ({ kind: "failed", trouble: new VoiceTrouble("insecure") } as const);
    const words = wordsOf(state, config.mode === "hold");
    say(this.#label, words.label);
    this.setStatus(words.status, words.tone);
    this.#button.setAttribute("aria-pressed", String(state.kind !== "idle" && state.kind !== "failed"));
    this.#button.dataset["state"] = state.kind;
    this.#renderNote(state);
  }

  #renderNote(state: SenderState): void {
    if (!("trouble" in state)) {
      this.setNote("");
      return;
    }
    if (state.trouble.kind !== "insecure") {
      this.setNote(state.trouble.sentence.replace("This page tries", "This card tries"));
      return;
    }
    const page = this.#securePage;
    this.setNote(
      "This page came by plain HTTP, and browsers hand a microphone to HTTPS pages only. Open Home Assistant by HTTPS.",
      page === null ? null : { words: "Or talk on the server’s own secure page.", href: page },
    );
  }

  async #findSecurePage(address: VoiceAddress): Promise<void> {
    this.#securePage = await securePage(address);
    this.render();
  }

  #handleState(state: SenderState): void {
    if (state.kind === "failed") this.#talk?.handleEnded();
    if (state.kind === "on-air") navigator.vibrate?.(20);
    this.render();
  }

  #drawLevel(): void {
    this.#button.style.setProperty("--level", meterPart(this.#sender?.level() ?? 0).toFixed(3));
  }
}

interface Words {
  readonly label: string;
  readonly status: string;
  readonly tone: "calm" | "busy" | "live" | "bad";
}

function wordsOf(state: SenderState, isHeld: boolean): Words {
  const label = isHeld ? "Hold to talk" : "Press to talk";
  switch (state.kind) {
    case "idle":
      return { label, status: "Ready", tone: "calm" };
    case "opening":
      return { label: "One moment", status: "Connecting", tone: "busy" };
    case "on-air":
      return { label: "On air", status: isHeld ? "Let go to end" : "Press again to end", tone: "live" };
    case "interrupted":
      return { label: "Interrupted", status: state.trouble.headline, tone: "bad" };
    case "failed":
      return { label: state.trouble.kind === "insecure" ? "Microphone off" : label, status: state.trouble.headline, tone: "bad" };
  }
}
