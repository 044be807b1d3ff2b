/** `window.manifold`: what the page knows, for scripts and tests. */

import type { Condition } from "./state/health";
import type { Tile } from "./state/tile";
import { wall } from "./state/wall";

export interface TileReport {
  readonly camera: string;
  readonly state: Condition;
  /** The rung of the ladder from token to decoded picture that the viewer stands on. */
  readonly rung: string;
  readonly reason: string;
  readonly width: number | null;
  readonly height: number | null;
  /** What the tile asks for: `low` or `auto`. */
  readonly quality: string;
  /** What the server last said that it sends: `main` or `sub`; empty before its first word. */
  readonly rendition: string;
  /** How often it went from one to the other. */
  readonly switches: number;
  readonly framesDropped: number | null;
  readonly freezes: number | null;
  readonly nacks: number | null;
  readonly repaired: number | null;
  readonly fps: number | null;
  readonly framesDecoded: number;
  readonly bitrate: number | null;
  readonly packetsLost: number | null;
  readonly rttMs: number | null;
  readonly jitterBufferMs: number | null;
  /** Of synthetic pictures: from capture to the screen. */
  readonly latencyMs: number | null;
  readonly frameNumber: number | null;
  /** Whether sound arrives, heard or not. */
  readonly hasAudio: boolean;
  /** 0 to 1; `null` while the tile is muted, because browsers measure what they play. */
  readonly audioLevel: number | null;
  /** From the WHEP POST to the first frame. */
  readonly firstFrameMs: number | null;
  /** From the opening of the tile to the first frame. */
  readonly firstFrameFromClickMs: number | null;
}

declare global {
  interface Window {
    manifold: { tiles: () => TileReport[] };
  }
}

export function startHooks(): void {
  window.manifold = { tiles: () => wall.peek().map(report) };
}

function report(tile: Tile): TileReport {
  const { condition, rung, reason } = tile.health.peek();
  const figures = tile.figures.peek();
  const clock = tile.clock.peek();
  return {
    camera: tile.cameraId,
    state: condition,
    rung,
    reason,
    width: figures.width,
    height: figures.height,
    quality: tile.quality.peek(),
    rendition: tile.watching.peek()?.rendition ?? "",
    switches: tile.watching.peek()?.switches ?? 0,
    framesDropped: figures.framesDropped,
    freezes: figures.freezes,
    nacks: figures.nacks,
    repaired: figures.repaired,
    fps: figures.fps,
    framesDecoded: figures.framesDecoded,
    bitrate: figures.bitrate,
    packetsLost: figures.packetsLost,
    rttMs: figures.rttMs,
    jitterBufferMs: figures.bufferMs,
    latencyMs: clock?.latencyMs ?? null,
    frameNumber: clock?.frameNumber ?? null,
    hasAudio: figures.hasAudio,
    audioLevel: tile.muted.peek() ? null : figures.audioLevel,
    firstFrameMs: tile.firstFrameMs.peek(),
    firstFrameFromClickMs: tile.firstFrameFromClickMs.peek(),
  };
}
