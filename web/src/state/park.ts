/**
 * The camera park and the totals, as the server last told them.
 *
 * Is told by a WebSocket while the page is seen, and asks from time to time where there is none.
 */

import { computed, effect, signal } from "@preact/signals";
import type { Api } from "../api/client";
import type { LiveOptions, LiveStats } from "../api/live";
import type { Camera, CameraNews, Totals } from "../api/wire";
import { asRefusal } from "../rtc/errors";
import { apiKey } from "./settings";

const TOTALS_MS = 2_000;
const CAMERAS_MS = 4_000;
/** A large park is asked for more rarely: 500 cameras are 150 kB of JSON. */
const LARGE_PARK = 64;
const LARGE_PARK_MS = 15_000;

export const cameras = signal<readonly Camera[]>([]);
export const camerasLoaded = signal(false);
export const totals = signal<Totals | null>(null);
/** Why the last request failed; empty while all is well. */
export const serverTrouble = signal("");
/** The server asks for an API key, or refuses the one it was given. */
export const keyNeeded = signal(false);

export const camerasById = computed(() => new Map(cameras.value.map((camera) => [camera.id, camera])));
export const sourceIds = computed(() => [...new Set(cameras.value.map((camera) => camera.source))].sort());

/** Viewers of a camera: the totals are fresher than the list. */
export function viewersOf(camera: Camera): number {
  return totals.value === null ? camera.viewerCount : (totals.value.viewersByCamera.get(camera.id) ?? 0);
}

let refreshCameras: () => Promise<void> = async () => undefined;
let refreshTotals: () => Promise<void> = async () => undefined;

/** Asks for everything at once, e.g. after the key was changed or a tile was opened. */
export async function refresh(): Promise<void> {
  await Promise.all([refreshCameras(), refreshTotals()]);
}

/** Makes what tells of news, given where to tell it. */
export type NewLive = (told: Pick<LiveOptions, "onTotals" | "onCamera">) => LiveStats;

export function startPark(api: Api, newLive: NewLive): void {
  const live = newLive({
    onTotals: (told) => {
      totals.value = told;
    },
    onCamera: handleCamera,
  });

  refreshCameras = guarded(async () => {
    cameras.value = await api.cameras();
    camerasLoaded.value = true;
  });
  refreshTotals = guarded(async () => {
    totals.value = await api.totals();
  });
  const isLarge = () => live.fresh || cameras.value.length > LARGE_PARK;
  repeat(refreshCameras, () => (isLarge() ? LARGE_PARK_MS : CAMERAS_MS));
  repeat(async () => {
    if (!live.fresh) await refreshTotals();
  }, () => TOTALS_MS);
  // A new key is another socket.
  effect(() => {
    void apiKey.value;
    if (!document.hidden) live.restart();
  });
  document.addEventListener("visibilitychange", () => {
    if (document.hidden) return live.stop();
    live.start();
    void refresh();
  });
}

/** A camera that is not in the list comes, and one that is removed goes, with the next list. */
function handleCamera(news: CameraNews): void {
  const isKnown = camerasById.value.has(news.id);
  if (!isKnown || news.status === "REMOVED") return void refreshCameras();
  const { id, ...now } = news;
  cameras.value = cameras.value.map((camera) => (camera.id === id ? { ...camera, ...now } : camera));
}

/** Keeps what is known on failure, and says why. */
function guarded(ask: () => Promise<void>): () => Promise<void> {
  return async () => {
    try {
      await ask();
      serverTrouble.value = "";
      keyNeeded.value = false;
    } catch (thrown) {
      const refusal = asRefusal(thrown);
      if (refusal.status === 401 || refusal.status === 403) keyNeeded.value = true;
      serverTrouble.value = refusal.sentence;
    }
  };
}

/** One request at a time, however slow the server is. */
function repeat(ask: () => Promise<void>, intervalMs: () => number): void {
  const round = async (): Promise<void> => {
    if (!document.hidden) await ask();
    setTimeout(() => void round(), intervalMs());
  };
  void round();
}
