/** The page's clock for countdowns: half-second steps, standing still while the page is hidden. */

import { signal } from "@preact/signals";

const STEP_MS = 500;

/** `performance.now()` of the latest step. */
export const nowMs = signal(performance.now());

export function startClock(): void {
  setInterval(() => {
    if (!document.hidden) nowMs.value = performance.now();
  }, STEP_MS);
}

/** Whole seconds from now until `atMs`, at least 1: a countdown that shows 0 looks stuck. */
export function secondsUntil(atMs: number): number {
  return Math.max(1, Math.ceil((atMs - nowMs.value) / 1000));
}
