/**
 * The talk button's logic: what presses and releases mean.
 *
 * Held, one talks while any finger, mouse button or key is down; latched, each press begins or ends.
 * It knows no elements: `attachSwitch` gives it the events of one.
 */

export type SwitchMode = "hold" | "latch";

export interface SwitchActions {
  readonly start: () => void;
  readonly stop: () => void;
}

export class TalkSwitch {
  readonly #actions: SwitchActions;
  /** Whatever holds the button down: pointers by number, keys by name. */
  readonly #holders = new Set<string>();
  #mode: SwitchMode = "hold";
  #talking = false;

  constructor(actions: SwitchActions) {
    this.#actions = actions;
  }

  get mode(): SwitchMode {
    return this.#mode;
  }

  /** Changing it ends a talk: nobody shall stay on air by surprise. */
  set mode(mode: SwitchMode) {
    if (mode === this.#mode) return;
    this.#mode = mode;
    this.end();
  }

  /** Something presses; the same one again, as with a key's repetition, changes nothing. */
  handleDown(holder: string): void {
    if (this.#holders.has(holder)) return;
    this.#holders.add(holder);
    if (this.#holders.size > 1) return;
    if (this.#mode === "latch" && this.#talking) this.#set(false);
    else this.#set(true);
  }

  handleUp(holder: string): void {
    if (!this.#holders.delete(holder)) return;
    if (this.#mode === "hold" && this.#holders.size === 0) this.#set(false);
  }

  /** The button lost its holders without being told: focus, window or page went away. */
  handleLost(): void {
    this.#holders.clear();
    if (this.#mode === "hold") this.#set(false);
  }

  /** Ends a talk, in either mode. */
  end(): void {
    this.#holders.clear();
    this.#set(false);
  }

  /** The talk ended without this button, e.g. because the microphone failed. */
  handleEnded(): void {
    this.#talking = false;
  }

  #set(talking: boolean): void {
    if (talking === this.#talking) return;
    this.#talking = talking;
    if (talking) this.#actions.start();
    else this.#actions.stop();
  }
}

/** Only the main button of a mouse, a finger and a pen's tip talk. */
const MAIN_BUTTON = 0;

/** Makes an element a talk button; the result ends that. */
export function attachSwitch(element: HTMLElement, talk: TalkSwitch): () => void {
  const end = new AbortController();
  const on = <Name extends keyof HTMLElementEventMap>(name: Name, handle: (event: HTMLElementEventMap[Name]) => void): void =>
    element.addEventListener(name, handle, { signal: end.signal });
  on("pointerdown", (event) => {
    if (event.button !== MAIN_BUTTON) return;
    // The release is heard wherever the finger slides to.
    element.setPointerCapture(event.pointerId);
    talk.handleDown(`pointer ${event.pointerId}`);
  });
  for (const name of ["pointerup", "pointercancel", "lostpointercapture"] as const) {
    on(name, (event) => talk.handleUp(`pointer ${event.pointerId}`));
  }
  on("keydown", (event) => {
    if (!isTalkKey(event.key) || event.ctrlKey || event.metaKey || event.altKey) return;
    // Else Space scrolls, and both click.
    event.preventDefault();
    talk.handleDown(`key ${event.key}`);
  });
  on("keyup", (event) => {
    if (!isTalkKey(event.key)) return;
    event.preventDefault();
    talk.handleUp(`key ${event.key}`);
  });
  // A long press selects or asks for a menu otherwise.
  on("contextmenu", (event) => event.preventDefault());
  on("blur", () => talk.handleLost());
  const lose = (): void => talk.handleLost();
  addEventListener("blur", lose, { signal: end.signal });
  document.addEventListener("visibilitychange", () => document.hidden && lose(), { signal: end.signal });
  return () => {
    end.abort();
    talk.end();
  };
}

export function isTalkKey(key: string): boolean {
  return key === " " || key === "Enter";
}
