/** How wide tiles are, so that all of them are as large as the wall allows. */

/** The caption under a picture, as in the style sheet. */
const CAPTION_PX = 36;
export const GAP_PX = 10;
/** Narrower tiles are not worth watching: the wall scrolls instead. */
const TILE_PX_MIN = 240;
const ASPECT = 16 / 9;

/** The width of each of `count` tiles in a wall of this size, in whole pixels; 0 where there is no room. */
export function tileWidth(count: number, width: number, height: number): number {
  if (count === 0 || width <= 0 || height <= 0) return 0;
  let best = 0;
  for (let columns = 1; columns <= count; columns += 1) {
    const rows = Math.ceil(count / columns);
    const byWidth = share(width, columns);
    const byHeight = (share(height, rows) - CAPTION_PX) * ASPECT;
    best = Math.max(best, Math.min(byWidth, byHeight));
  }
  return Math.floor(best >= TILE_PX_MIN ? best : scrollingWidth(width));
}

/** As many columns as stay watchable, one at least. */
function scrollingWidth(width: number): number {
  const columns = Math.max(1, Math.floor((width + GAP_PX) / (TILE_PX_MIN + GAP_PX)));
  return share(width, columns);
}

function share(length: number, parts: number): number {
  return (length - GAP_PX * (parts - 1)) / parts;
}
