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
import { wall } from "./wall";

const TOTALS_MS = 2_000;
const CAMERAS_MS = 4_000;
/** A large park is asked for more rarely: 500 cameras are 300 kB of JSON, 10,000 are 6 MB. */
const LARGE_PARK = 64;
const LARGE_PARK_MS = 15_000;
const HUGE_PARK = 2_000;
const HUGE_PARK_MS = 60_000;
/** News of cameras are shown together: while 10,000 are asked how they are, hundreds come in a second. */
const NEWS_MS = 100;
/** From news of a camera that is not in the list to the next list: an import tells of each. */
const NEW_CAMERAS_MS = 400;

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
  repeat(refreshCameras, () => camerasMs(live.fresh));
  repeat(async () => {
    if (!live.fresh) await refreshTotals();
  }, () => TOTALS_MS);
  // A new key is another socket.
  effect(() => {
    void apiKey.value;
    if (isLiveWanted()) live.restart();
  });
  document.addEventListener("visibilitychange", () => {
    if (!isLiveWanted()) return live.stop();
    live.start();
    if (!document.hidden) void refresh();
  });
}

/** Nobody sees figures of a hidden page; but while it watches, its socket tells the server that it is there. */
function isLiveWanted(): boolean {
  return !document.hidden || wall.peek().length > 0;
}

function camerasMs(isFresh: boolean): number {
  const count = cameras.value.length;
  if (count > HUGE_PARK) return HUGE_PARK_MS;
  return isFresh || count > LARGE_PARK ? LARGE_PARK_MS : CAMERAS_MS;
}

/** The latest of each camera, at most as many as there are cameras. */
let news = new Map<string, CameraNews>();
let newsTimer: ReturnType<typeof setTimeout> | undefined;
let listTimer: ReturnType<typeof setTimeout> | undefined;

/** A camera that is not in the list comes, and one that is removed goes, with the next list. */
function handleCamera(told: CameraNews): void {
  const isKnown = camerasById.value.has(told.id);
  if (isKnown && told.status !== "REMOVED") {
    news.set(told.id, told);
    newsTimer ??= setTimeout(showNews, NEWS_MS);
  } else {
    listTimer ??= setTimeout(() => {
      listTimer = undefined;
      void refreshCameras();
    }, NEW_CAMERAS_MS);
  }
}

function showNews(): void {
  const told = news;
  newsTimer = undefined;
  news = new Map();
  cameras.value = cameras.value.map((camera) => {
    const found = told.get(camera.id);
    return found === undefined ? camera : { ...camera, status: found.status, state: found.state, reason: found.reason };
  });
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
