// The strip: frame number and capture time, drawn as black and white cells into synthetic pictures.
//
//   top-left corner, 48 columns x 2 rows of square cells, cell = floor(width / 48) pixels
//   row 0: 8 bits sync 0b10110010 | 32 bits frame number | 8 bits CRC-8 of the 10 bytes that follow
//   row 1: 48 bits capture time, ms since the Unix epoch
//   (frame number and time big-endian, most significant bit first; CRC-8 polynomial 0x07, start 0,
//   over 4 bytes of frame number and 6 of time)

/**
 * Decodes a strip. Stands in every page as `window.decodeStrip`, and needs nothing from outside itself.
 *
 * @param {number} width of the whole picture
 * @param {(x: number, y: number) => number} luma of a pixel, 0 to 255
 * @returns {{ frame: number, capturedMs: number } | null} `null`: there is none, or it reads badly
 */
export function decodeStrip(width, luma) {
  const COLUMNS = 48;
  const SYNC = 0b10110010;
  const cell = Math.floor(width / COLUMNS);
  if (cell < 2) return null;
  // The central half of each cell: its edges are blurred by the codec.
  const from = Math.floor(cell / 4);
  const to = Math.max(from + 1, Math.ceil((cell * 3) / 4));
  const bit = (row, column) => {
    let sum = 0;
    for (let y = from; y < to; y++) {
      for (let x = from; x < to; x++) sum += luma(column * cell + x, row * cell + y);
    }
    return sum / (to - from) ** 2 >= 128 ? 1 : 0;
  };
  // Not with shifts: 48 bits do not fit them.
  const number = (row, first, count) => {
    let value = 0;
    for (let i = 0; i < count; i++) value = value * 2 + bit(row, first + i);
    return value;
  };
  const frame = number(0, 8, 32);
  const capturedMs = number(1, 0, 48);
  const bytes = [];
  for (let i = 3; i >= 0; i--) bytes.push(Math.floor(frame / 256 ** i) % 256);
  for (let i = 5; i >= 0; i--) bytes.push(Math.floor(capturedMs / 256 ** i) % 256);
  let crc = 0;
  for (const byte of bytes) {
    crc ^= byte;
    for (let i = 0; i < 8; i++) crc = crc & 0x80 ? ((crc << 1) ^ 0x07) & 0xff : crc << 1;
  }
  if (number(0, 0, 8) !== SYNC || number(0, 40, 8) !== crc) return null;
  return { frame, capturedMs };
}

/**
 * In the page: reads the strip of a video element.
 *
 * @param {string} selector
 * @returns {{ frame: number, capturedMs: number, latencyMs: number, width: number, height: number } | null}
 */
export function readStrip(selector) {
  const video = document.querySelector(selector);
  const width = video?.videoWidth ?? 0;
  if (width === 0) return null;
  const canvas = new OffscreenCanvas(width, Math.ceil(width / 24));
  const context = canvas.getContext('2d', { willReadFrequently: true });
  context.drawImage(video, 0, 0);
  const now = performance.timeOrigin + performance.now();
  const { data } = context.getImageData(0, 0, canvas.width, canvas.height);
  // Grey: each of red, green and blue is the luma.
  const strip = window.decodeStrip(width, (x, y) => data[(y * canvas.width + x) * 4 + 1]);
  return strip && { ...strip, latencyMs: now - strip.capturedMs, width, height: video.videoHeight };
}
