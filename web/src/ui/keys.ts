/** The keyboard of the whole page; `Help.tsx` lists it. */

import type { Tile } from "../state/tile";
import { tileOf } from "../state/wall";
import { focusedTile, focusNeighbour, focusTileNumber, SEARCH_ID } from "./focus";
import { openHelp } from "./Help";
import { toggleTalk } from "./TalkPanel";
import { closeTile, toggleFigures, toggleFullscreen, toggleSound } from "./Tile";
import { openWalls } from "./Walls";

export function startKeys(): void {
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.defaultPrevented || isTyping(event.target)) return;
    if (handlePageKey(event.key) || handleTileKey(event.key)) event.preventDefault();
  });
}

/** Says whether the key was one of the page's. */
function handlePageKey(key: string): boolean {
  if (document.querySelector("dialog[open]") !== null) return false;
  if (key === "/") document.getElementById(SEARCH_ID)?.focus();
  else if (key === "?") openHelp();
  else if (key.toLowerCase() === "t") toggleTalk();
  else if (key.toLowerCase() === "w") openWalls();
  else if (/^[1-9]$/.test(key)) focusTileNumber(Number(key) - 1);
  else return false;
  return true;
}

function handleTileKey(key: string): boolean {
  const element = focusedTile();
  const tile = tileOf(element?.dataset["camera"] ?? "");
  if (element === null || tile === undefined) return false;
  if (key.startsWith("Arrow")) focusNeighbour(element, key);
  else return handleTileAction(tile, key);
  return true;
}

function handleTileAction(tile: Tile, key: string): boolean {
  switch (key.toLowerCase()) {
    case "m":
      toggleSound(tile);
      return true;
    case "f":
      toggleFullscreen(tile.cameraId);
      return true;
    case "i":
      toggleFigures(tile);
      return true;
    case "delete":
    case "backspace":
      closeTile(tile.cameraId);
      return true;
    default:
      return false;
  }
}

function isTyping(target: EventTarget | null): boolean {
  return target instanceof HTMLInputElement || target instanceof HTMLSelectElement || target instanceof HTMLTextAreaElement;
}
