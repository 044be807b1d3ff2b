import { describe, expect, it } from "vitest";
import { expectedTileWidth, GAP_PX, tileWidth } from "./layout";

/** How many tiles of this width stand beside each other. */
function columns(tile: number, width: number): number {
  return Math.floor((width + GAP_PX) / (tile + GAP_PX));
}

describe("tileWidth", () => {
  it.each([
    [1, 1],
    [2, 2],
    [4, 2],
    [9, 3],
    [16, 4],
  ])("%d tiles on a wide wall stand in %d columns", (count, expected) => {
    expect(columns(tileWidth(count, 1580, 980), 1580)).toBe(expected);
  });

  it("fits all rows into the wall while tiles stay watchable", () => {
    for (let count = 1; count <= 16; count += 1) {
      const tile = tileWidth(count, 1580, 980);
      const rows = Math.ceil(count / columns(tile, 1580));
      expect(rows * (tile * (9 / 16) + 36) + (rows - 1) * GAP_PX).toBeLessThanOrEqual(980);
    }
  });

  it("gives a phone one column, full width, and scrolls", () => {
    expect(tileWidth(1, 370, 700)).toBe(370);
    expect(tileWidth(9, 370, 700)).toBe(370);
  });

  it("foresees a tile's width from the window's, with the list beside it where there is one", () => {
    expect(expectedTileWidth(1, 1280, 800)).toBe(944);
    expect(expectedTileWidth(16, 1280, 800)).toBeLessThan(320);
    expect(expectedTileWidth(1, 390, 844)).toBe(366);
  });

  it("has no width where there is no room or nothing to show", () => {
    expect(tileWidth(0, 100, 100)).toBe(0);
    expect(tileWidth(1, 0, 100)).toBe(0);
  });
});
