// A tone in a WAV file, for fake microphones.

import { writeFile } from 'node:fs/promises';

const RATE = 48_000;
const SECONDS = 4;

/**
 * Writes some seconds of a sine, 48 kHz mono, 16 bit, that can be looped without a click.
 *
 * @param {string} path
 * @param {number} hertz a whole number
 * @param {number} [amplitude] 0 to 1
 * @returns {Promise<string>} the path
 */
export async function writeTone(path, hertz, amplitude = 0.5) {
  const samples = new Int16Array(RATE * SECONDS);
  for (let at = 0; at < samples.length; at++) {
    samples[at] = Math.round(32_767 * amplitude * Math.sin((2 * Math.PI * hertz * at) / RATE));
  }
  const header = Buffer.alloc(44);
  header.write('RIFF', 0);
  header.writeUInt32LE(36 + samples.byteLength, 4);
  header.write('WAVEfmt ', 8);
  header.writeUInt32LE(16, 16);
  header.writeUInt16LE(1, 20); // PCM
  header.writeUInt16LE(1, 22); // mono
  header.writeUInt32LE(RATE, 24);
  header.writeUInt32LE(2 * RATE, 28);
  header.writeUInt16LE(2, 32);
  header.writeUInt16LE(16, 34);
  header.write('data', 36);
  header.writeUInt32LE(samples.byteLength, 40);
  await writeFile(path, Buffer.concat([header, Buffer.from(samples.buffer)]));
  return path;
}
