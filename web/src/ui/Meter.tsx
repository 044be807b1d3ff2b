/** A meter that follows a sound, drawn with the screen's own rhythm. */

import { useEffect, useRef } from "preact/hooks";
import { meterPart } from "../rtc/meter";

/** Of its length a second: rises at once, falls so that an eye can follow. */
const FALL_PER_SECOND = 1.6;

/**
 * Sets `--level`, 0 to 1, on the element of the result; styles make of it what they like.
 *
 * `level` is an amplitude, 0 to 1.
 */
export function useLevel<Element extends HTMLElement>(level: () => number) {
  const ref = useRef<Element>(null);
  const ask = useRef(level);
  ask.current = level;
  useEffect(() => {
    let shown = 0;
    let lastMs = performance.now();
    let frame = requestAnimationFrame(function draw(nowMs) {
      const fallen = shown - (FALL_PER_SECOND * Math.max(0, nowMs - lastMs)) / 1000;
      lastMs = nowMs;
      const next = Math.max(meterPart(ask.current()), fallen, 0);
      if (next !== shown) ref.current?.style.setProperty("--level", next.toFixed(3));
      shown = next;
      frame = requestAnimationFrame(draw);
    });
    return () => cancelAnimationFrame(frame);
  }, []);
  return ref;
}

/** A bar. It says nothing to a screen reader: ten numbers a second are no help. */
export function Meter({ level }: { level: () => number }) {
  const ref = useLevel<HTMLSpanElement>(level);
  return (
    <span class="meter" aria-hidden="true" ref={ref}>
      <span class="meter-fill" />
    </span>
  );
}
