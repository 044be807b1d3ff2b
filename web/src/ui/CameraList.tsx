/** The camera park: search, source filter, and one row a camera. */

import { computed, signal, useSignal } from "@preact/signals";
import { useLayoutEffect, useRef } from "preact/hooks";
import type { Camera } from "../api/wire";
import { cameraHeadline } from "../state/health";
import { cameras, camerasLoaded, serverTrouble, sourceIds, viewersOf } from "../state/park";
import { open, tileOf } from "../state/wall";
import { focusTile, SEARCH_ID } from "./focus";
import { counted, sourceName } from "./format";
import { SearchIcon, ViewersIcon } from "./icons";

/** Rows that are drawn together, or not at all while they are far from view: a park has 10,000 cameras. */
const CHUNK = 50;
/** Of a row that was never drawn, as in the style sheet. */
const ROW_PX = 54;
/** How far beyond the view rows are drawn, so that scrolling finds them there. */
const NEAR = "800px 0px";

const search = signal("");
const source = signal("");
/** The row that Tab reaches; arrow keys move it. */
const current = signal("");

const shown = computed(() => {
  const words = search.value.toLowerCase().split(/\s+/).filter((word) => word !== "");
  return cameras.value.filter(
    (camera) => (source.value === "" || camera.source === source.value) && words.every((word) => says(camera, word)),
  );
});

export function CameraList() {
  const rows = shown.value;
  const tabStop = rows.some((camera) => camera.id === current.value) ? current.value : rows[0]?.id;
  return (
    <nav class="cameras" aria-label="Cameras">
      <Filters count={rows.length} />
      <div class="camera-rows" role="list" onKeyDown={handleListKey}>
        {chunksOf(rows).map((chunk, at) => (
          <Chunk key={at} cameras={chunk} from={at * CHUNK} total={rows.length} tabStop={tabStop} />
        ))}
      </div>
      {rows.length === 0 && <p class="cameras-empty">{emptySentence()}</p>}
    </nav>
  );
}

function Filters({ count }: { count: number }) {
  return (
    <div class="filters">
      <label class="search">
        <SearchIcon />
        <input
          id={SEARCH_ID}
          type="search"
          placeholder="Search cameras"
          aria-label="Search cameras"
          autocomplete="off"
          spellcheck={false}
          value={search.value}
          onInput={(event) => (search.value = event.currentTarget.value)}
          onKeyDown={handleSearchKey}
        />
        <kbd aria-hidden="true">/</kbd>
      </label>
      <div class="filter-line">
        <select
          aria-label="Source"
          value={source.value}
          onChange={(event) => (source.value = event.currentTarget.value)}
        >
          <option value="">All sources</option>
          {sourceIds.value.map((id) => (
            <option key={id} value={id}>
              {sourceName(id)}
            </option>
          ))}
        </select>
        <span class="filter-count number" role="status">
          {counted(count, "camera", "cameras")}
        </span>
      </div>
    </div>
  );
}

interface ChunkProps {
  readonly cameras: readonly Camera[];
  /** The place of its first row, from 0, among `total`. */
  readonly from: number;
  readonly total: number;
  readonly tabStop: string | undefined;
}

/** Some rows of the list, or as much room as they take. The row that Tab reaches is always there. */
function Chunk({ cameras, from, total, tabStop }: ChunkProps) {
  const ref = useRef<HTMLDivElement>(null);
  const isNear = useSignal(from === 0);
  const rowPx = useSignal(ROW_PX);
  const isDrawn = isNear.value || cameras.some((camera) => camera.id === tabStop);
  const drawn = useRef(0);
  drawn.current = isDrawn ? cameras.length : 0;
  useLayoutEffect(() => {
    const element = ref.current;
    if (element === null) return undefined;
    const observer = new IntersectionObserver(
      (entries) => {
        // While they are drawn their height is known, and holds when they go.
        if (drawn.current > 0) rowPx.value = element.offsetHeight / drawn.current;
        isNear.value = entries.at(-1)?.isIntersecting ?? false;
      },
      { root: element.parentElement, rootMargin: NEAR },
    );
    observer.observe(element);
    return () => observer.disconnect();
  }, []);
  return (
    <div class="camera-chunk" role="presentation" ref={ref} style={isDrawn ? {} : { height: `${rowPx.value * cameras.length}px` }}>
      {isDrawn &&
        cameras.map((camera, at) => (
          <Row key={camera.id} camera={camera} place={from + at + 1} total={total} tabStop={camera.id === tabStop} />
        ))}
    </div>
  );
}

function chunksOf(rows: readonly Camera[]): (readonly Camera[])[] {
  return Array.from({ length: Math.ceil(rows.length / CHUNK) }, (_, at) => rows.slice(at * CHUNK, (at + 1) * CHUNK));
}

interface RowProps {
  readonly camera: Camera;
  /** From 1. */
  readonly place: number;
  readonly total: number;
  readonly tabStop: boolean;
}

function Row({ camera, place, total, tabStop }: RowProps) {
  const viewers = viewersOf(camera);
  const isOpen = tileOf(camera.id) !== undefined;
  const trouble = tone(camera) === "bad";
  return (
    <div class="camera-item" role="listitem" aria-posinset={place} aria-setsize={total}>
      <button
        type="button"
        class="camera-row"
        data-open={camera.id}
        data-tone={tone(camera)}
        aria-pressed={isOpen}
        tabIndex={tabStop ? 0 : -1}
        onFocus={() => (current.value = camera.id)}
        onClick={() => activate(camera.id)}
      >
        <span class="dot" aria-hidden="true" />
        <span class="camera-name" dir="auto">
          {camera.name}
        </span>
        <span class={viewers > 0 ? "camera-viewers number" : "camera-viewers none number"} title={counted(viewers, "viewer", "viewers")}>
          <ViewersIcon />
          <span class="camera-viewer-count">{viewers}</span>
        </span>
        <span class="camera-detail">
          <span class="camera-place" dir="auto">
            {detail(camera)}
          </span>
          <span class="camera-name-ar" dir="auto" lang="ar">
            {camera.nameAr}
          </span>
        </span>
        {trouble && (
          <span class="camera-trouble" dir="auto">
            <strong>{cameraHeadline(camera.state)}.</strong> {camera.reason}
          </span>
        )}
      </button>
    </div>
  );
}

/** An open camera is gone to; a closed one is opened. */
function activate(cameraId: string): void {
  const wasOpen = tileOf(cameraId) !== undefined;
  if (open(cameraId) && wasOpen) focusTile(cameraId);
}

function says(camera: Camera, word: string): boolean {
  return [camera.name, camera.nameAr, camera.id, camera.location, sourceName(camera.source)].some((field) =>
    field.toLowerCase().includes(word),
  );
}

/** Whose camera it is, and where. */
function detail(camera: Camera): string {
  return [sourceName(camera.source), camera.location].filter((part) => part !== "").join(" · ");
}

function tone(camera: Camera): "live" | "busy" | "idle" | "bad" {
  switch (camera.state) {
    case "live":
      return "live";
    case "connecting":
    case "closing":
      return "busy";
    case "idle":
    case "":
      return "idle";
    default:
      return "bad";
  }
}

function emptySentence(): string {
  if (!camerasLoaded.value) return serverTrouble.value === "" ? "Asking the server for its cameras." : serverTrouble.value;
  return cameras.value.length === 0 ? "The server has no cameras yet." : "No camera matches.";
}

function handleSearchKey(event: KeyboardEvent): void {
  if (event.key === "Escape") {
    search.value = "";
    (event.currentTarget as HTMLElement).blur();
  } else if (event.key === "ArrowDown") {
    event.preventDefault();
    focusRow(shown.value[0]);
  } else if (event.key === "Enter") {
    const first = shown.value[0];
    if (first !== undefined) activate(first.id);
  }
}

function handleListKey(event: KeyboardEvent): void {
  const rows = shown.value;
  const at = rows.findIndex((camera) => camera.id === current.value);
  const target = { ArrowDown: at + 1, ArrowUp: at - 1, Home: 0, End: rows.length - 1 }[event.key];
  if (target === undefined) return;
  event.preventDefault();
  if (target < 0) document.getElementById(SEARCH_ID)?.focus();
  else focusRow(rows[Math.min(target, rows.length - 1)]);
}

function focusRow(camera: Camera | undefined): void {
  if (camera === undefined) return;
  current.value = camera.id;
  const row = () => document.querySelector<HTMLElement>(`[data-open="${CSS.escape(camera.id)}"]`);
  const there = row();
  if (there !== null) there.focus();
  // A row far from view is drawn now that Tab reaches it.
  else requestAnimationFrame(() => row()?.focus());
}
