/** The wall of open tiles, or what to do where there is none. */

import { useSignal } from "@preact/signals";
import { useLayoutEffect, useRef } from "preact/hooks";
import { cameras } from "../state/park";
import { notice, openAll, wall } from "../state/wall";
import { tileWidth } from "./layout";
import { TileView } from "./Tile";

/** How many cameras the empty wall offers to open at once. */
const OFFERED = 4;

export function Wall() {
  const { ref, size } = useSize();
  const tiles = wall.value;
  const width = tileWidth(tiles.length, size.value.width, size.value.height);
  return (
    <main class="wall" aria-label="Wall">
      {notice.value !== "" && (
        <p class="notice" role="status">
          {notice.value}
          <button type="button" class="button" onClick={() => (notice.value = "")}>
            Close
          </button>
        </p>
      )}
      <div class="tiles" ref={ref} data-count={tiles.length}>
        {tiles.length === 0 ? (
          <EmptyWall />
        ) : (
          tiles.map((tile) => <TileView key={tile.cameraId} tile={tile} width={width} />)
        )}
      </div>
    </main>
  );
}

function EmptyWall() {
  const offered = cameras.value.slice(0, OFFERED);
  return (
    <div class="empty-wall">
      <p class="empty-title">Nothing is open</p>
      <p>
        Choose a camera from the list. Up to sixteen play side by side; press <kbd>?</kbd> for the keyboard.
      </p>
      {offered.length > 1 && (
        <button type="button" class="button" onClick={() => openAll(offered.map((camera) => camera.id))}>
          Open the first {offered.length}
        </button>
      )}
    </div>
  );
}

/** The inner size of an element, kept true. */
function useSize() {
  const ref = useRef<HTMLDivElement>(null);
  const size = useSignal({ width: 0, height: 0 });
  useLayoutEffect(() => {
    const element = ref.current;
    if (element === null) return undefined;
    const observer = new ResizeObserver(([entry]) => {
      if (entry !== undefined) size.value = entry.contentRect;
    });
    observer.observe(element);
    return () => observer.disconnect();
  }, []);
  return { ref, size };
}
