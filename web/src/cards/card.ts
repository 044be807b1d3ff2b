/**
 * What both cards are: a configuration, a server, a title, a line of state and a note of what is wrong.
 *
 * A card lives from `connectedCallback` to `disconnectedCallback`; Home Assistant takes cards out and
 * puts them back as a person moves between views.
 */

import { addressOfScript, type VoiceAddress } from "../rtc/voice-address";
import { fetchSecureDoor } from "../rtc/voice-setup";
import type { SocketState } from "../rtc/voice-socket";
import css from "./cards.css?inline";
import type { RawConfig, Surroundings } from "./config";
import { h, say } from "./dom";
import type { Hass } from "./hass";

const sheet = new CSSStyleSheet();
sheet.replaceSync(css);

export function surroundings(): Surroundings {
  return { page: location, home: addressOfScript(import.meta.url) };
}

export abstract class VoiceCard<Config extends { readonly address: VoiceAddress; readonly title: string }> extends HTMLElement {
  protected config: Config | null = null;
  #hass: Hass | null = null;
  readonly #title = h("h2", { class: "title" });
  readonly #status = h("p", { class: "status", role: "status" });
  readonly #note = h("div", { class: "note", role: "alert", hidden: true });
  readonly #body = h("div", { class: "body" });
  #live = false;

  constructor() {
    super();
    const root = this.attachShadow({ mode: "open" });
    root.adoptedStyleSheets = [sheet];
    const card = document.createElement("ha-card");
    card.append(h("header", { class: "header" }, this.#title, this.#status), this.#body, this.#note);
    root.append(card);
  }

  /** Throws an `Error` with a sentence, which Home Assistant shows in the card's place. */
  setConfig(raw: RawConfig): void {
    const config = this.read(raw, surroundings());
    const wasLive = this.#live;
    if (wasLive) this.#leave();
    this.config = config;
    say(this.#title, config.title);
    if (wasLive) this.#join();
  }

  set hass(hass: Hass) {
    this.#hass = hass;
    this.render();
  }

  get hass(): Hass | null {
    return this.#hass;
  }

  connectedCallback(): void {
    this.#join();
  }

  disconnectedCallback(): void {
    this.#leave();
  }

  /** In rows of 50 px. */
  getCardSize(): number {
    return 4;
  }

  /** For the sections view: columns of 12, rows of 56 px. */
  getGridOptions(): Record<string, number> {
    return { columns: 6, min_columns: 4 };
  }

  protected abstract read(raw: RawConfig, around: Surroundings): Config;
  /** Builds what is inside, and starts it. */
  protected abstract join(config: Config, body: HTMLElement): void;
  /** Ends what `join` started. */
  protected abstract leave(): void;
  /** Shows what changed. */
  protected abstract render(): void;

  protected setStatus(words: string, tone: "calm" | "busy" | "live" | "bad"): void {
    say(this.#status, words);
    this.dataset["tone"] = tone;
  }

  /** What is wrong and what to do; an empty sentence for nothing. */
  protected setNote(sentence: string, link: { readonly words: string; readonly href: string } | null = null): void {
    const key = `${sentence} ${link?.href ?? ""}`;
    if (this.#note.dataset["key"] === key) return;
    this.#note.dataset["key"] = key;
    this.#note.hidden = sentence === "";
    this.#note.replaceChildren(sentence);
    if (link !== null) this.#note.append(" ", h("a", { href: link.href, target: "_blank", rel: "noopener" }, link.words));
  }

  #join(): void {
    if (this.#live || this.config === null || !this.isConnected) return;
    this.#live = true;
    const { address } = this.config;
    if (address.isMixedIn(location)) {
      this.setStatus("Blocked by the browser", "bad");
      this.setNote(
        `This page came by HTTPS, so the browser refuses the plain connection to ${address.base.host}. Set server_url to ${address.secure().base.origin}.`,
      );
      return;
    }
    this.join(this.config, this.#body);
    this.render();
  }

  #leave(): void {
    if (!this.#live) return;
    this.#live = false;
    this.leave();
    this.#body.replaceChildren();
    this.setNote("");
  }
}

/** What to say of a server that cannot be reached; empty while it can. */
export function awayNote(state: SocketState, address: VoiceAddress, wasOpen: boolean): string {
  if (state.kind !== "away") return "";
  if (state.full) return "All places on the voice server are taken. This card tries again by itself.";
  const where = address.base.origin;
  if (wasOpen || !address.isSecure) return `${where} cannot be reached; it is stopped, restarting, or the address is wrong. This card tries again by itself.`;
  return `${where} cannot be reached. Where its certificate is self-made, install ${address.at("ca.crt").href} on this device, or open ${address.at("talk").href} once and accept the warning.`;
}

/** The talk page by HTTPS, for devices that get no microphone here. */
export async function securePage(address: VoiceAddress): Promise<string | null> {
  if (address.isSecure) return address.at("talk").href;
  return (await fetchSecureDoor(address))?.address.at("talk").href ?? null;
}

/** Calls `draw` with each frame of the screen; the result ends that. */
export function followFrames(draw: () => void): () => void {
  let frame = requestAnimationFrame(function next() {
    draw();
    frame = requestAnimationFrame(next);
  });
  return () => cancelAnimationFrame(frame);
}
