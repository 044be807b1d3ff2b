/** What this browser remembers: theme, whether figures are shown, who it is, and for this tab the API key. */

import { effect, signal } from "@preact/signals";
import { subjectOf } from "../api/key";

export type Theme = "dark" | "light";

const systemTheme = matchMedia("(prefers-color-scheme: light)");

/** `null` follows the system. */
const chosenTheme = signal<Theme | null>(themeFrom(read(localStorage, "manifold.theme")));
const systemIsLight = signal(systemTheme.matches);

/** Whether new tiles show their figures. */
export const figuresByDefault = signal(read(localStorage, "manifold.figures") !== "off");
/** An API key for servers that ask for one; kept for this tab only. */
export const apiKey = signal(read(sessionStorage, "manifold.key"));

export function theme(): Theme {
  return chosenTheme.value ?? (systemIsLight.value ? "light" : "dark");
}

export function toggleTheme(): void {
  chosenTheme.value = theme() === "dark" ? "light" : "dark";
}

/** Who watches: whom the API key names, since the server lets it speak for nobody else; or this browser. */
export function userId(): string {
  return subjectOf(apiKey.peek()) || browserId();
}

/** One name for this browser, so that the server's account can tell viewers apart. */
function browserId(): string {
  const known = read(localStorage, "manifold.user");
  if (known !== "") return known;
  const made = `browser-${Array.from(crypto.getRandomValues(new Uint8Array(6)), hex).join("")}`;
  write(localStorage, "manifold.user", made);
  return made;
}

/** Applies the settings to the page, and keeps them. */
export function startSettings(): void {
  systemTheme.addEventListener("change", () => {
    systemIsLight.value = systemTheme.matches;
  });
  effect(() => {
    document.documentElement.dataset["theme"] = theme();
    if (chosenTheme.value !== null) write(localStorage, "manifold.theme", chosenTheme.value);
  });
  effect(() => write(localStorage, "manifold.figures", figuresByDefault.value ? "on" : "off"));
  effect(() => write(sessionStorage, "manifold.key", apiKey.value));
}

function themeFrom(stored: string): Theme | null {
  return stored === "dark" || stored === "light" ? stored : null;
}

/** Two digits. */
export function hex(byte: number): string {
  return byte.toString(16).padStart(2, "0");
}

/** Storage may be forbidden altogether; the page works without. */
export function read(storage: Storage, name: string): string {
  try {
    return storage.getItem(name) ?? "";
  } catch {
    return "";
  }
}

export function write(storage: Storage, name: string, value: string): void {
  try {
    storage.setItem(name, value);
  } catch {
    // A full or forbidden storage loses a preference, nothing else.
  }
}
