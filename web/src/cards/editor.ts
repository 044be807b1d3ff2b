/** The cards' visual editors: a form that tells Home Assistant each change. */

import css from "./editor.css?inline";
import type { RawConfig } from "./config";
import { h } from "./dom";
import { type Hass, nameOf } from "./hass";

const sheet = new CSSStyleSheet();
sheet.replaceSync(css);

interface Field {
  readonly option: string;
  readonly label: string;
  readonly help: string;
  readonly kind: "text" | "flag" | "mode" | "player";
}

const SERVER: Field = {
  option: "server_url",
  label: "Server",
  help: "Where Manifold runs, like http://192.168.1.20:8080; by https:// where Home Assistant is opened by HTTPS.",
  kind: "text",
};
const TOKEN: Field = { option: "token", label: "Token", help: "Only where the server’s settings ask for one (voice.token).", kind: "text" };
const TITLE: Field = { option: "title", label: "Title", help: "", kind: "text" };

abstract class Editor extends HTMLElement {
  protected abstract readonly fields: readonly Field[];
  #config: RawConfig = { type: "" };
  #hass: Hass | null = null;

  constructor() {
    super();
    this.attachShadow({ mode: "open" }).adoptedStyleSheets = [sheet];
  }

  setConfig(config: RawConfig): void {
    this.#config = config;
    this.#render();
  }

  set hass(hass: Hass) {
    const players = playersOf(this.#hass).join();
    this.#hass = hass;
    // Home Assistant sets this with every change of any entity: a form must not lose its place for that.
    if (playersOf(hass).join() !== players) this.#render();
  }

  #render(): void {
    const root = this.shadowRoot;
    if (root === null) return;
    const focused = root.activeElement?.id;
    root.replaceChildren(h("form", {}, ...this.fields.map((field) => this.#row(field))));
    if (focused !== undefined) root.getElementById(focused)?.focus();
  }

  #row(field: Field): HTMLElement {
    const input = this.#input(field);
    input.id = field.option;
    const label = h("label", { for: field.option }, field.label);
    if (field.help === "") return h("div", { class: `row ${field.kind}` }, label, input);
    input.setAttribute("aria-describedby", `${field.option}-help`);
    return h("div", { class: `row ${field.kind}` }, label, input, h("p", { id: `${field.option}-help` }, field.help));
  }

  #input({ option, kind }: Field): HTMLElement {
    const value = this.#config[option];
    switch (kind) {
      case "text": {
        const input = h("input", { type: "text", autocomplete: "off", spellcheck: "false" });
        input.value = typeof value === "string" || typeof value === "number" ? String(value) : "";
        input.addEventListener("input", () => this.#change(option, input.value.trim()));
        return input;
      }
      case "flag": {
        const input = h("input", { type: "checkbox" });
        input.checked = value === true;
        input.addEventListener("change", () => this.#change(option, input.checked));
        return input;
      }
      case "mode":
        return this.#select(option, value, [
          ["", "Talk while it is held"],
          ["latch", "Press on, press off"],
        ]);
      case "player":
        return this.#select(option, value, [["", "This browser"], ...playersOf(this.#hass).map((id) => [id, nameOf(this.#hass, id)] as const)]);
    }
  }

  #select(option: string, value: unknown, options: readonly (readonly [string, string])[]): HTMLElement {
    const chosen = typeof value === "string" ? value : "";
    const known = options.some(([id]) => id === chosen) ? options : [...options, [chosen, chosen] as const];
    const select = h("select", {}, ...known.map(([id, name]) => h("option", { value: id, selected: id === chosen }, name)));
    select.addEventListener("change", () => this.#change(option, select.value));
    return select;
  }

  /** An empty option is left out, so that the YAML stays short. */
  #change(option: string, value: string | boolean): void {
    const { [option]: _, ...rest } = this.#config;
    const isEmpty = value === "" || value === false;
    this.#config = (isEmpty ? rest : { ...rest, [option]: value }) as RawConfig;
    this.dispatchEvent(new CustomEvent("config-changed", { detail: { config: this.#config }, bubbles: true, composed: true }));
  }
}

export class SendingEditor extends Editor {
  static readonly tag = "voice-sending-card-editor";
  protected readonly fields: readonly Field[] = [SERVER, TITLE, { option: "mode", label: "Button", help: "", kind: "mode" }, TOKEN];
}

export class ReceivingEditor extends Editor {
  static readonly tag = "voice-receiving-card-editor";
  protected readonly fields: readonly Field[] = [
    SERVER,
    TITLE,
    { option: "auto_listen", label: "Listen automatically", help: "", kind: "flag" },
    { option: "target_media_player", label: "Play on", help: "A media player takes the MP3 stream; it starts a second or two later than a browser.", kind: "player" },
    TOKEN,
  ];
}

function playersOf(hass: Hass | null): string[] {
  return Object.keys(hass?.states ?? {}).filter((id) => id.startsWith("media_player.")).sort();
}
