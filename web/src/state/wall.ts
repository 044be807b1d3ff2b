/** The wall: which cameras are open, in which order, and the same in the address bar. */

import { effect, signal } from "@preact/signals";
import { announce } from "./announce";
import type { Tile } from "./tile";

/** What one browser decodes on ordinary hardware, and what a person can still take in. */
export const WALL_MAX = 16;
/** Readings of strips a second, over the whole wall. */
const STRIP_READINGS_MAX = 16;
const STRIP_INTERVAL_MS_MIN = 250;

export const wall = signal<readonly Tile[]>([]);
/** What a narrow screen shows; a wide one shows both. */
export const view = signal<"list" | "wall">("list");
/** The saved wall that was opened last, and what it showed then; `null` while that is not known yet. */
export const savedWall = signal<SavedPlace | null>(null);
/** Said when something could not be done; empty otherwise. */
export const notice = signal("");

export interface SavedPlace {
  readonly id: string;
  readonly cameraIds: readonly string[] | null;
}

let newTile: (cameraId: string, among: number) => Tile = () => {
  throw new Error("the wall was not started");
};

/** Opens what the address names, and keeps the address true from then on. `among`: how many tiles there will be. */
export function startWall(makeTile: (cameraId: string, among: number) => Tile): void {
  newTile = makeTile;
  const linked = wallInAddress(location.search);
  if (linked === "") openAll(openInAddress(location.search));
  else savedWall.value = { id: linked, cameraIds: null };
  effect(() => {
    const cameraIds = wall.value.map((tile) => tile.cameraId);
    history.replaceState(history.state, "", addressFor(location.href, cameraIds, savedWall.value));
  });
  // Who opens or closes a camera leaves the saved wall.
  effect(() => {
    const known = savedWall.peek()?.cameraIds ?? null;
    const opened = wall.value.map((tile) => tile.cameraId);
    if (known !== null && !isSame(known, opened)) savedWall.value = null;
  });
  addEventListener("pagehide", () => {
    for (const tile of wall.peek()) tile.abandon();
  });
  addEventListener("online", () => {
    for (const tile of wall.peek()) tile.retryNow();
  });
  // A page brought back from the browser's cache has nothing left to show.
  addEventListener("pageshow", (event) => {
    if (event.persisted) location.reload();
  });
}

export function tileOf(cameraId: string): Tile | undefined {
  return wall.value.find((tile) => tile.cameraId === cameraId);
}

/** Opens these and closes all others; those that stand in their place already play on. */
export function show(cameraIds: readonly string[]): void {
  savedWall.value = null;
  const wanted = wall.peek().filter((tile) => cameraIds.includes(tile.cameraId));
  const outOfPlace = wanted.findIndex((tile, at) => tile.cameraId !== cameraIds[at]);
  const stay = new Set(outOfPlace === -1 ? wanted : wanted.slice(0, outOfPlace));
  for (const tile of wall.peek()) if (!stay.has(tile)) close(tile.cameraId);
  openAll(cameraIds);
}

/** Opens several cameras at once. */
export function openAll(cameraIds: readonly string[]): void {
  const among = Math.min(WALL_MAX, wall.peek().length + cameraIds.length);
  for (const cameraId of cameraIds) open(cameraId, among);
}

/** Opens a camera; one that is open stays as it is. Says whether it is open afterwards. */
export function open(cameraId: string, among = wall.peek().length + 1): boolean {
  if (wall.peek().some((tile) => tile.cameraId === cameraId)) return true;
  if (wall.peek().length >= WALL_MAX) {
    notice.value = `The wall holds ${WALL_MAX} cameras. Close one to open another.`;
    announce(notice.value);
    return false;
  }
  wall.value = [...wall.peek(), newTile(cameraId, among)];
  view.value = "wall";
  shareStripReadings();
  return true;
}

export function close(cameraId: string): void {
  const tile = wall.peek().find((candidate) => candidate.cameraId === cameraId);
  if (tile === undefined) return;
  wall.value = wall.peek().filter((candidate) => candidate !== tile);
  notice.value = "";
  if (wall.peek().length === 0) view.value = "list";
  announce(`${tile.name}: closed`);
  shareStripReadings();
  void tile.close();
}

/** The ids of `?open=a,b`, without repetition, as many as the wall holds. */
export function openInAddress(search: string): string[] {
  const ids = (new URLSearchParams(search).get("open") ?? "").split(",").map((id) => id.trim());
  return [...new Set(ids)].filter((id) => id !== "").slice(0, WALL_MAX);
}

/** The id of `?wall=…`; empty where there is none. */
export function wallInAddress(search: string): string {
  return (new URLSearchParams(search).get("wall") ?? "").trim();
}

/** `href` with exactly these cameras open, the commas left readable; or with the saved wall that shows them. */
export function addressFor(href: string, cameraIds: readonly string[], saved: SavedPlace | null = null): string {
  const url = new URL(href);
  url.searchParams.delete("open");
  url.searchParams.delete("wall");
  const rest = url.searchParams.toString();
  const isWall = saved !== null && (saved.cameraIds === null || isSame(saved.cameraIds, cameraIds));
  const opened = isWall ? `wall=${encodeURIComponent(saved.id)}` : openQuery(cameraIds);
  const query = [rest, opened].filter((part) => part !== "").join("&");
  return url.pathname + (query === "" ? "" : `?${query}`) + url.hash;
}

function openQuery(cameraIds: readonly string[]): string {
  return cameraIds.length === 0 ? "" : `open=${cameraIds.map(encodeURIComponent).join(",")}`;
}

function isSame(one: readonly string[], other: readonly string[]): boolean {
  return one.length === other.length && one.every((id, at) => id === other[at]);
}

function shareStripReadings(): void {
  const tiles = wall.peek();
  const intervalMs = Math.max(STRIP_INTERVAL_MS_MIN, (1000 * tiles.length) / STRIP_READINGS_MAX);
  for (const tile of tiles) tile.setStripInterval(intervalMs);
}
