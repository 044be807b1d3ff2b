/** How wide tiles are, so that all of them are as large as the wall allows. */

/** The caption under a picture, as in the style sheet. */
const CAPTION_PX = 36;
export const GAP_PX = 10;
/** Narrower tiles are not worth watching: the wall scrolls instead. */
const TILE_PX_MIN = 240;
const ASPECT = 16 / 9;

/** Rows are easier to look along than columns: one column more may cost this share of the width. */
const WIDER_FROM = 0.92;

/** The width of each of `count` tiles in a wall of this size, in whole pixels; 0 where there is no room. */
export function tileWidth(count: number, width: number, height: number): number {
  if (count === 0 || width <= 0 || height <= 0) return 0;
  const widths = Array.from({ length: count }, (_, at) => widthInColumns(at + 1, count, width, height));
  const largest = Math.max(...widths);
  if (largest < TILE_PX_MIN) return Math.floor(scrollingWidth(width));
  return Math.floor(widths.findLast((candidate) => candidate >= WIDER_FROM * largest) ?? largest);
}

/** The list beside the wall, as in the style sheet, and the window's width below which there is none. */
const LIST_PX = 312;
const LIST_FROM_PX = 761;
/** The header, and the wall's own edges. */
const AROUND_PX = { width: 24, height: 72 };

/** How wide tiles will be in a window of this size, before anything is laid out. */
export function expectedTileWidth(count: number, windowWidth: number, windowHeight: number): number {
  const list = windowWidth >= LIST_FROM_PX ? LIST_PX : 0;
  return tileWidth(count, windowWidth - list - AROUND_PX.width, windowHeight - AROUND_PX.height);
}

/** As wide as so many columns, and the rows they make, leave room for. */
function widthInColumns(columns: number, count: number, width: number, height: number): number {
  const rows = Math.ceil(count / columns);
  return Math.min(share(width, columns), (share(height, rows) - CAPTION_PX) * ASPECT);
}

/** As many columns as stay watchable, one at least. */
function scrollingWidth(width: number): number {
  const columns = Math.max(1, Math.floor((width + GAP_PX) / (TILE_PX_MIN + GAP_PX)));
  return share(width, columns);
}

function share(length: number, parts: number): number {
  return (length - GAP_PX * (parts - 1)) / parts;
}
