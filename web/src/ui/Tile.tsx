/** One tile: the picture, or why there is none, and what can be done with it. */

import { secondsUntil } from "../state/clock";
import type { Health } from "../state/health";
import { keyNeeded } from "../state/park";
import { figuresByDefault } from "../state/settings";
import type { Tile } from "../state/tile";
import { close } from "../state/wall";
import { focusBeside } from "./focus";
import * as format from "./format";
import { CloseIcon, FiguresIcon, FullscreenIcon, SoundIcon } from "./icons";

export function TileView({ tile, width }: { tile: Tile; width: number }) {
  const { condition, headline } = tile.health.value;
  return (
    <article
      class="tile"
      data-camera={tile.cameraId}
      data-state={condition}
      tabIndex={0}
      aria-label={`${tile.name}: ${headline}`}
      style={width > 0 ? { width: `${width}px` } : {}}
    >
      <div class="picture" onDblClick={() => toggleFullscreen(tile.cameraId)}>
        <video ref={tile.attach} autoplay playsInline muted={tile.muted.value} disablePictureInPicture />
        {condition !== "playing" && <Veil health={tile.health.value} />}
        <FigureStrip tile={tile} />
      </div>
      <footer class="caption">
        <span class="dot" aria-hidden="true" />
        <h2 class="tile-name" dir="auto" title={tile.name}>
          {tile.name}
        </h2>
        <span class="tile-name-ar" dir="auto" lang="ar">
          {tile.camera?.nameAr}
        </span>
        <Controls tile={tile} />
      </footer>
    </article>
  );
}

function Controls({ tile }: { tile: Tile }) {
  const muted = tile.muted.value;
  const silent = !tile.figures.value.hasAudio;
  return (
    <div class="controls">
      <ToolButton
        label={tile.figuresShown.value ? "Hide figures" : "Show figures"}
        pressed={tile.figuresShown.value}
        onClick={() => toggleFigures(tile)}
      >
        <FiguresIcon />
      </ToolButton>
      <ToolButton
        label={silent ? "No sound" : muted ? "Sound on" : "Sound off"}
        pressed={!muted}
        faint={silent}
        hook={tile.cameraId}
        onClick={() => toggleSound(tile)}
      >
        <SoundIcon muted={muted} />
      </ToolButton>
      <ToolButton label="Full screen" onClick={() => toggleFullscreen(tile.cameraId)}>
        <FullscreenIcon />
      </ToolButton>
      <button
        type="button"
        class="icon-button"
        data-close={tile.cameraId}
        aria-label={`Close ${tile.name}`}
        title="Close"
        onClick={() => closeTile(tile.cameraId)}
      >
        <CloseIcon />
      </button>
    </div>
  );
}

interface ToolButtonProps {
  label: string;
  pressed?: boolean;
  faint?: boolean;
  /** The camera, on the button that switches its sound. */
  hook?: string;
  onClick: () => void;
  children: preact.ComponentChildren;
}

function ToolButton({ label, pressed, faint, hook, onClick, children }: ToolButtonProps) {
  return (
    <button
      type="button"
      class={faint ? "icon-button faint" : "icon-button"}
      aria-label={label}
      aria-pressed={pressed}
      data-mute={hook}
      title={label}
      onClick={onClick}
    >
      {children}
    </button>
  );
}

/** Covers the picture, or its last frame, with the reason why nothing moves. */
function Veil({ health }: { health: Health }) {
  const busy = health.condition === "connecting" || health.condition === "idle";
  return (
    <div class={busy ? "veil busy" : "veil"}>
      <span class={busy ? "spinner" : "mark"} aria-hidden="true" />
      <p class="veil-headline">{health.headline}</p>
      <p class="veil-reason" dir="auto">
        {health.reason}
      </p>
      {health.reasonAr !== "" && (
        <p class="veil-reason" dir="auto" lang="ar">
          {health.reasonAr}
        </p>
      )}
      <p class="veil-next number">{nextSentence(health)}</p>
    </div>
  );
}

function nextSentence({ next, condition }: Health): string {
  if (next !== null) {
    const wait = secondsUntil(next.atMs);
    return next.what === "camera" ? `The server calls the camera again in ${wait} s` : `Next try in ${wait} s`;
  }
  if (condition === "error") return keyNeeded.value ? "Enter a key above" : "";
  return condition === "waiting" ? "The picture returns by itself" : "";
}

/** Present even while hidden, so that scripts can always read it. */
function FigureStrip({ tile }: { tile: Tile }) {
  const figures = tile.figures.value;
  const watching = tile.watching.value;
  return (
    <dl class="figures number" hidden={!tile.figuresShown.value || tile.health.value.condition !== "playing"}>
      <Figure name="resolution" label="Size" value={format.resolution(figures.width, figures.height)} />
      <Figure name="fps" label="FPS" value={format.framesPerSecond(figures.fps)} />
      <Figure name="bitrate" label="Rate" value={format.bitrate(figures.bitrate)} />
      <Figure name="loss" label="Loss" value={format.percent(figures.lossPercent)} />
      <Figure name="rtt" label="RTT" value={format.milliseconds(figures.rttMs)} />
      <Figure name="latency" label="Latency" value={format.milliseconds(tile.clock.value?.latencyMs ?? null)} />
      <Figure name="stream" label="Stream" value={format.stream(watching?.rendition ?? "", watching?.switches ?? 0)} />
      <Figure name="repairs" label="Repaired" value={format.repairs(figures.repaired, figures.nacks)} />
      <Figure name="freezes" label="Freezes" value={format.count(figures.freezes)} />
    </dl>
  );
}

function Figure({ name, label, value }: { name: string; label: string; value: string }) {
  return (
    <div class="figure" data-name={name}>
      <dt>{label}</dt>
      <dd data-figure={name}>{value}</dd>
    </div>
  );
}

/** The focus must not fall off the wall with the tile. */
export function closeTile(cameraId: string): void {
  focusBeside(cameraId);
  close(cameraId);
}

export function toggleFigures(tile: Tile): void {
  tile.figuresShown.value = !tile.figuresShown.value;
  figuresByDefault.value = tile.figuresShown.value;
}

export function toggleSound(tile: Tile): void {
  tile.muted.value = !tile.muted.value;
}

export function toggleFullscreen(cameraId: string): void {
  const element = document.querySelector<HTMLElement>(`[data-camera="${CSS.escape(cameraId)}"]`);
  if (document.fullscreenElement !== null) void document.exitFullscreen();
  else void element?.requestFullscreen().catch(() => undefined);
}
