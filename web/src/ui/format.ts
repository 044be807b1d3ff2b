/** Figures as people read them. `null` is a dash everywhere. */

const UNKNOWN = "–";

export function resolution(width: number | null, height: number | null): string {
  return width === null || height === null ? UNKNOWN : `${width}×${height}`;
}

export function framesPerSecond(fps: number | null): string {
  return fps === null ? UNKNOWN : fps.toFixed(fps < 10 ? 1 : 0);
}

/** Bits a second, in kbit/s below 1 Mbit/s. */
export function bitrate(bitsPerSecond: number | null): string {
  if (bitsPerSecond === null) return UNKNOWN;
  return bitsPerSecond < 1e6 ? `${Math.round(bitsPerSecond / 1e3)} kbit/s` : `${(bitsPerSecond / 1e6).toFixed(1)} Mbit/s`;
}

export function percent(value: number | null): string {
  return value === null ? UNKNOWN : `${value.toFixed(value < 10 ? 1 : 0)} %`;
}

export function milliseconds(value: number | null): string {
  if (value === null) return UNKNOWN;
  return `${Math.abs(value) < 10 ? value.toFixed(1) : Math.round(value)} ms`;
}

export function count(value: number | null): string {
  return value === null ? UNKNOWN : String(value);
}

/** Lost packets that came again, of the requests for them. */
export function repairs(repaired: number | null, asked: number | null): string {
  if (asked === null) return UNKNOWN;
  return repaired === null || asked === 0 ? String(asked) : `${repaired} / ${asked}`;
}

/** Which stream plays, and how often it was changed. */
export function stream(rendition: string, switches: number): string {
  if (rendition === "") return UNKNOWN;
  return switches === 0 ? rendition : `${rendition} · ${switches}×`;
}

/** `DUBAI_POLICE` as `DUBAI POLICE`. */
export function sourceName(source: string): string {
  return source.replaceAll("_", " ");
}

export function counted(count: number, one: string, many: string): string {
  return `${count} ${count === 1 ? one : many}`;
}
