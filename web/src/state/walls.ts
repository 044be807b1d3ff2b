/** Saved walls: those that the server keeps for whoever uses the page, and the one that a link names. */

import { computed, effect, signal } from "@preact/signals";
import type { Api } from "../api/client";
import type { SavedWall } from "../api/wire";
import { asRefusal } from "../rtc/errors";
import { announce } from "./announce";
import { apiKey } from "./settings";
import { notice, savedWall, show, wall, WALL_MAX, wallInAddress } from "./wall";

/** By name, as the server last told them. */
export const walls = signal<readonly SavedWall[]>([]);
/** Why the last request failed; empty while all is well. */
export const wallsTrouble = signal("");
/** The saved wall that is shown, where nothing was opened or closed since. */
export const shownWall = computed(() => walls.value.find((saved) => saved.id === savedWall.value?.id));

let api: Api | null = null;

/** Opens the wall that the address names, once the server lets it be read. */
export function startWalls(server: Api): void {
  api = server;
  const id = wallInAddress(location.search);
  if (id === "") return;
  let isOpen = false;
  // A server that asks for a key is asked again with each new one.
  effect(() => {
    void apiKey.value;
    if (!isOpen) void openLinked(id).then((opened) => (isOpen ||= opened));
  });
}

/** Says whether it is open. */
async function openLinked(id: string): Promise<boolean> {
  try {
    const found = await server().savedWall(id);
    walls.value = [...walls.peek().filter((other) => other.id !== id), found];
    openWall(found);
    return true;
  } catch (thrown) {
    const refusal = asRefusal(thrown);
    const isUnknown = refusal.status === 404;
    notice.value = isUnknown ? "There is no such wall, or it is somebody else's." : `The wall was not opened. ${refusal.sentence}`;
    announce(notice.value);
    if (isUnknown) savedWall.value = null;
    return false;
  }
}

export function refreshWalls(): Promise<boolean> {
  return asked(async () => {
    walls.value = await server().savedWalls();
  });
}

/** Saves what is open; a wall of that name becomes what is open. Says whether it is saved. */
export function saveWall(name: string): Promise<boolean> {
  return asked(async () => {
    const cameraIds = wall.peek().map((tile) => tile.cameraId);
    const before = named(name);
    const saved = await (before === undefined
      ? server().saveWall(name, cameraIds)
      : server().changeWall(before.id, cameraIds));
    walls.value = await server().savedWalls();
    savedWall.value = { id: saved.id, cameraIds };
    announce(`Wall ${name}: saved`);
  });
}

export function deleteWall({ id, name }: SavedWall): Promise<boolean> {
  return asked(async () => {
    await server().deleteWall(id);
    walls.value = walls.peek().filter((saved) => saved.id !== id);
    if (savedWall.peek()?.id === id) savedWall.value = null;
    announce(`Wall ${name}: deleted`);
  });
}

/** Shows this wall, and nothing else. */
export function openWall({ id, name, cameraIds }: SavedWall): void {
  const shown = cameraIds.slice(0, WALL_MAX);
  notice.value = "";
  show(shown);
  savedWall.value = { id, cameraIds: shown };
  announce(`Wall ${name}: open`);
  if (shown.length < cameraIds.length) {
    notice.value = `The wall ${name} has ${cameraIds.length} cameras; these are the first ${WALL_MAX}.`;
  }
}

/** The wall that saving under this name replaces. */
export function named(name: string): SavedWall | undefined {
  return walls.value.find((saved) => saved.name === name);
}

async function asked(ask: () => Promise<void>): Promise<boolean> {
  try {
    await ask();
    wallsTrouble.value = "";
    return true;
  } catch (thrown) {
    wallsTrouble.value = asRefusal(thrown).sentence;
    announce(wallsTrouble.value);
    return false;
  }
}

function server(): Api {
  if (api === null) throw new Error("saved walls were not started");
  return api;
}
