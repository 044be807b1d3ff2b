import { describe, expect, it } from "vitest";
import { cellSize, crc8, decodeStrip } from "./strip";

const COLUMNS = 48;

/** Luma of a strip, as the synthetic camera draws it; `flip` turns one bit over. */
function drawn(frameNumber: number, timeMs: number, cell: number, flip?: number): { luma: Uint8Array; stride: number } {
  const number = bytes(frameNumber, 4);
  const time = bytes(timeMs, 6);
  const bits = [0b1011_0010, ...number, crc8([...number, ...time]), ...time].flatMap((byte) =>
    Array.from({ length: 8 }, (_, at) => (byte >> (7 - at)) & 1),
  );
  if (flip !== undefined) bits[flip] = 1 - (bits[flip] ?? 0);
  const stride = COLUMNS * cell + 7;
  const luma = new Uint8Array(stride * cell * 2).fill(90);
  for (let y = 0; y < 2 * cell; y += 1) {
    for (let x = 0; x < COLUMNS * cell; x += 1) {
      const bit = bits[Math.floor(y / cell) * COLUMNS + Math.floor(x / cell)];
      luma[y * stride + x] = bit === 1 ? 235 : 16;
    }
  }
  return { luma, stride };
}

function bytes(value: number, length: number): number[] {
  return Array.from({ length }, (_, at) => Math.floor(value / 256 ** (length - 1 - at)) % 256);
}

/** A small generator, so that a failing run can be repeated. */
function pseudoRandom(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state * 1_664_525 + 1_013_904_223) % 2 ** 32;
    return state / 2 ** 32;
  };
}

describe("decodeStrip", () => {
  it.each([
    [0, 0],
    [1, 1_732_262_400_123],
    [0xffff_ffff, 0xffff_ffff_ffff],
    [0x8000_0001, 0x8000_0000_0001],
  ])("reads frame %d at %d ms", (frameNumber, capturedAtMs) => {
    for (const cell of [2, 3, 8, 13, 40]) {
      const { luma, stride } = drawn(frameNumber, capturedAtMs, cell);
      expect(decodeStrip(luma, stride, cell)).toEqual({ frameNumber, capturedAtMs });
    }
  });

  it("survives noise and smeared edges", () => {
    const random = pseudoRandom(7);
    const cell = 8;
    const { luma, stride } = drawn(123_456, 1_732_262_400_123, cell);
    for (let at = 0; at < luma.length; at += 1) {
      const onEdge = at % stride % cell === 0 || Math.floor(at / stride) % cell === 0;
      const noise = (random() - 0.5) * 120;
      luma[at] = Math.min(255, Math.max(0, (onEdge ? 128 : (luma[at] ?? 0)) + noise));
    }
    expect(decodeStrip(luma, stride, cell)?.frameNumber).toBe(123_456);
  });

  it("refuses a strip with any single bit wrong", () => {
    for (let flip = 0; flip < 96; flip += 1) {
      const { luma, stride } = drawn(77, 1_732_262_400_123, 2, flip);
      expect(decodeStrip(luma, stride, 2)).toBeNull();
    }
  });

  it("finds nothing in a plain, a dark or a too small picture", () => {
    expect(decodeStrip(new Uint8Array(48 * 8 * 16).fill(235), 48 * 8, 8)).toBeNull();
    expect(decodeStrip(new Uint8Array(48 * 8 * 16), 48 * 8, 8)).toBeNull();
    expect(decodeStrip(new Uint8Array(10), 48 * 8, 8)).toBeNull();
    expect(decodeStrip(new Uint8Array(96), 48, 1)).toBeNull();
  });
});

it("knows the check value of CRC-8", () => {
  expect(crc8([..."123456789"].map((digit) => digit.charCodeAt(0)))).toBe(0xf4);
});

it.each([
  [640, 13],
  [1920, 40],
  [47, 0],
])("a picture %d wide has cells of %d", (width, cell) => {
  expect(cellSize(width)).toBe(cell);
});
