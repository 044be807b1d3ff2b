/**
 * Which quality a tile asks for: a small one the camera's small stream, every other one what its line carries.
 *
 * Pure. Sizes are in device pixels, which is what a picture is drawn with.
 */

/** What a tile asks the server for. `medium` and `high` are for people who know better. */
export type Quality = "low" | "auto";

/** Narrower tiles ask for the small stream: those are 320 to 704 pixels wide. */
const LOW_BELOW_PX = 480;
/** A tile that asked for the small stream must grow to this before it asks for more: a drag along the edge switches once. */
const AUTO_FROM_PX = 560;

/** A size has to last so long before it is told: windows are dragged and turned. */
export const SETTLE_MS = 700;

/** `before`: what the tile asked for so far; `null` for a new one. Without a size nothing changes. */
export function qualityFor(widthPx: number, before: Quality | null): Quality {
  if (widthPx <= 0) return before ?? "auto";
  if (widthPx < LOW_BELOW_PX) return "low";
  return before === "low" && widthPx < AUTO_FROM_PX ? "low" : "auto";
}
