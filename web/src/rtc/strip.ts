/**
 * Reads the machine-readable band of synthetic pictures: frame number and capture time.
 *
 * Top-left corner, 2 rows of 48 square cells, a cell `floor(width / 48)` pixels wide:
 *
 * ```text
 * row 0 | 10110010 | frame number, 32 bits, MSB first | CRC-8 |
 * row 1 | capture time, ms since the Unix epoch, 48 bits, MSB first |
 * ```
 *
 * The CRC (polynomial 0x07, start 0) covers the 4 bytes of the number and the 6 of the time.
 * A bright cell is 1. A picture without a strip fails sync or CRC and yields nothing.
 */

export interface StripReading {
  readonly frameNumber: number;
  /** Milliseconds since the Unix epoch, on the camera's clock. */
  readonly capturedAtMs: number;
}

const COLUMNS = 48;
const ROWS = 2;
const SYNC = 0b1011_0010;
/** Halfway between the two levels, 16 and 235, after any expansion to full range. */
const THRESHOLD = 128;

/** The side of a cell in a picture `width` pixels wide; under 2 there is nothing to average. */
export function cellSize(width: number): number {
  return Math.floor(width / COLUMNS);
}

/**
 * Decodes a strip from luma samples.
 *
 * `luma` starts at the strip's corner, `stride` samples a line, cells `cell` samples wide.
 */
export function decodeStrip(luma: ArrayLike<number>, stride: number, cell: number): StripReading | null {
  if (cell < 2 || luma.length < stride * cell * ROWS) return null;
  const number = Array.from({ length: COLUMNS / 8 }, (_, at) => byteAt(luma, stride, cell, 0, at));
  const time = Array.from({ length: COLUMNS / 8 }, (_, at) => byteAt(luma, stride, cell, 1, at));
  const [sync, ...rest] = number;
  const crc = rest.pop();
  if (sync !== SYNC || crc !== crc8([...rest, ...time])) return null;
  return { frameNumber: bigEndian(rest), capturedAtMs: bigEndian(time) };
}

/** CRC-8, polynomial 0x07, start value 0, no reflection. */
export function crc8(bytes: readonly number[]): number {
  let crc = 0;
  for (const byte of bytes) {
    crc ^= byte;
    for (let bit = 0; bit < 8; bit += 1) crc = (crc & 0x80 ? (crc << 1) ^ 0x07 : crc << 1) & 0xff;
  }
  return crc;
}

/** Not by shifts: the 48 bits of the time do not fit into a 32-bit operand. */
function bigEndian(bytes: readonly number[]): number {
  return bytes.reduce((value, byte) => value * 256 + byte, 0);
}

function byteAt(luma: ArrayLike<number>, stride: number, cell: number, row: number, byte: number): number {
  let value = 0;
  for (let bit = 0; bit < 8; bit += 1) {
    const mean = cellMean(luma, stride, cell, row, byte * 8 + bit);
    value = (value << 1) | (mean >= THRESHOLD ? 1 : 0);
  }
  return value;
}

/** The mean over the central half of a cell: compression smears the edges. */
function cellMean(luma: ArrayLike<number>, stride: number, cell: number, row: number, column: number): number {
  const margin = Math.floor(cell / 4);
  const side = cell - 2 * margin;
  let sum = 0;
  for (let y = row * cell + margin; y < row * cell + margin + side; y += 1) {
    for (let x = column * cell + margin; x < column * cell + margin + side; x += 1) {
      sum += luma[y * stride + x] ?? 0;
    }
  }
  return sum / (side * side);
}

/** Cells are drawn at most this large before they are read: more pixels say nothing more. */
const DRAWN_CELL_MAX = 8;
/** Readings of pictures without a strip before giving up; a strip once found earns more patience. */
const MISSES_MAX = 12;
const MISSES_MAX_ONCE_FOUND = 60;

/** Reads the strip out of a playing `<video>`. */
export class StripReader {
  readonly #video: HTMLVideoElement;
  readonly #onReading: (reading: StripReading, latencyMs: number) => void;
  readonly #canvas = document.createElement("canvas");
  readonly #context = this.#canvas.getContext("2d", { willReadFrequently: true });
  #intervalMs = 250;
  #lastReadMs = Number.NEGATIVE_INFINITY;
  #width = 0;
  #misses = 0;
  #found = false;
  #request: number | null = null;
  #patient = false;

  constructor(video: HTMLVideoElement, onReading: (reading: StripReading, latencyMs: number) => void) {
    this.#video = video;
    this.#onReading = onReading;
  }

  /** Least time between two readings: with many tiles each is read more rarely. */
  setInterval(intervalMs: number): void {
    this.#intervalMs = intervalMs;
  }

  /** A camera known to be synthetic is read however often a reading fails. */
  setPatient(patient: boolean): void {
    this.#patient = patient;
  }

  /** Starts, or starts anew after giving up. */
  start(): void {
    this.#misses = 0;
    this.#found = false;
    this.#await();
  }

  stop(): void {
    if (this.#request !== null) this.#video.cancelVideoFrameCallback(this.#request);
    this.#request = null;
  }

  #await(): void {
    this.#request ??= this.#video.requestVideoFrameCallback((nowMs) => {
      this.#request = null;
      this.#handleFrame(nowMs);
    });
  }

  #handleFrame(nowMs: number): void {
    if (this.#video.videoWidth !== this.#width) {
      this.#width = this.#video.videoWidth;
      this.#misses = 0;
    }
    if (nowMs - this.#lastReadMs >= this.#intervalMs) {
      this.#lastReadMs = nowMs;
      this.#read();
    }
    const patience = this.#found ? MISSES_MAX_ONCE_FOUND : MISSES_MAX;
    if (this.#patient || this.#misses < patience) this.#await();
  }

  #read(): void {
    const wallClockMs = Date.now();
    const reading = this.#decode();
    if (reading === null) {
      this.#misses += 1;
      return;
    }
    this.#misses = 0;
    this.#found = true;
    this.#onReading(reading, wallClockMs - reading.capturedAtMs);
  }

  #decode(): StripReading | null {
    const cell = cellSize(this.#width);
    if (cell < 2 || this.#context === null) return null;
    const drawn = Math.min(cell, DRAWN_CELL_MAX);
    const [width, height] = [COLUMNS * drawn, ROWS * drawn];
    if (this.#canvas.width !== width || this.#canvas.height !== height) {
      this.#canvas.width = width;
      this.#canvas.height = height;
    }
    this.#context.drawImage(this.#video, 0, 0, COLUMNS * cell, ROWS * cell, 0, 0, width, height);
    return decodeStrip(lumaOf(this.#context.getImageData(0, 0, width, height).data), width, drawn);
  }
}

/** Luma of RGBA pixels, by the weights of BT.601; for black and white any weights do. */
function lumaOf(rgba: Uint8ClampedArray): Uint8ClampedArray {
  const luma = new Uint8ClampedArray(rgba.length / 4);
  for (let at = 0; at < luma.length; at += 1) {
    const [red, green, blue] = [rgba[at * 4] ?? 0, rgba[at * 4 + 1] ?? 0, rgba[at * 4 + 2] ?? 0];
    luma[at] = 0.299 * red + 0.587 * green + 0.114 * blue;
  }
  return luma;
}
