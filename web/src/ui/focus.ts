/** Where the keyboard is: tiles by camera, by number and by place. */

export const SEARCH_ID = "camera-search";

/** The tiles in the order of the wall. */
function tileElements(): HTMLElement[] {
  return [...document.querySelectorAll<HTMLElement>("[data-camera]")];
}

export function focusTile(cameraId: string): void {
  const element = tileElements().find((tile) => tile.dataset["camera"] === cameraId);
  element?.focus();
  element?.scrollIntoView({ block: "nearest" });
}

/** Counted from 0. */
export function focusTileNumber(number: number): void {
  const cameraId = tileElements()[number]?.dataset["camera"];
  if (cameraId !== undefined) focusTile(cameraId);
}

/** The tile that has the focus, or contains it. */
export function focusedTile(): HTMLElement | null {
  return document.activeElement?.closest<HTMLElement>("[data-camera]") ?? null;
}

/** Goes to the tile after this one, before it, or to the search field where there is no other. */
export function focusBeside(cameraId: string): void {
  const tiles = tileElements();
  const at = tiles.findIndex((tile) => tile.dataset["camera"] === cameraId);
  (tiles[at + 1] ?? tiles[at - 1] ?? document.getElementById(SEARCH_ID))?.focus();
}

/** Moves from a tile to the nearest one in a direction, as they lie on the screen. */
export function focusNeighbour(from: HTMLElement, key: string): void {
  const direction = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[key];
  if (direction === undefined) return;
  const [dx = 0, dy = 0] = direction;
  const start = centre(from);
  const ahead = tileElements()
    .filter((tile) => tile !== from)
    .map((tile) => ({ tile, x: centre(tile).x - start.x, y: centre(tile).y - start.y }))
    .filter(({ x, y }) => x * dx + y * dy > 1)
    .sort((a, b) => distance(a, dx) - distance(b, dx));
  ahead[0]?.tile.focus();
}

/** Steps aside count double, so that a row or column is kept to. */
function distance({ x, y }: { x: number; y: number }, dx: number): number {
  const [along, aside] = dx === 0 ? [y, x] : [x, y];
  return Math.abs(along) + 2 * Math.abs(aside);
}

function centre(element: HTMLElement): { x: number; y: number } {
  const box = element.getBoundingClientRect();
  return { x: box.x + box.width / 2, y: box.y + box.height / 2 };
}
