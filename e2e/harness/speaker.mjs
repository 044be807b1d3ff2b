// A speaker that knows no WebRTC: it plays MP3 over plain HTTP, and FFmpeg is its decoder.

import { request } from 'node:http';
import { join } from 'node:path';

import { Child } from './process.mjs';
import { part, root } from './parts.mjs';
import { until } from './wait.mjs';

const RATE = 8_000;
/** How much of what was played last is listened to. */
const EAR_S = 0.5;

/** One that plays a URL from the moment on that it is made. */
export class Speaker {
  static #number = 0;

  /**
   * @param {import('./world.mjs').World} world
   * @param {string} url
   * @param {Record<string, string>} [headers]
   */
  static async play(world, url, headers = {}) {
    const speaker = new Speaker(world);
    await speaker.#begin(url, headers);
    return speaker;
  }

  /** One whose connection holds a quarter of a second, until it is told to {@link Speaker#goOn}. */
  static playOverSmallBuffer(world, url) {
    const speaker = new Speaker(world);
    const { hostname, port, pathname } = new URL(url);
    const script = join(root, 'players/small_buffer.py');
    speaker.radio = new Child('radio', part('python'), [script, hostname, port, pathname], {
      log: world.file('radio.log'),
      outputs: 1,
    });
    world.own(speaker.radio);
    speaker.radio.process.stdio[3].on('data', (data) => speaker.decoder.process.stdin.write(data));
    return speaker;
  }

  constructor(world) {
    const name = `speaker-${Speaker.#number++}`;
    const args = ['-hide_banner', '-loglevel', 'warning', '-probesize', '4096', '-f', 'mp3', '-i', 'pipe:0'];
    const out = ['-ac', '1', '-ar', String(RATE), '-f', 's16le', '-flush_packets', '1', 'pipe:3'];
    this.decoder = new Child(name, part('ffmpeg'), [...args, ...out], {
      log: world.file(`${name}.log`),
      input: true,
      outputs: 1,
    });
    world.own(this.decoder);
    this.samples = Buffer.alloc(0);
    this.decoder.process.stdio[3].on('data', (data) => (this.samples = Buffer.concat([this.samples, data])));
    this.decoder.process.stdin.on('error', () => {});
    /** Bytes of MP3. */
    this.bytes = 0;
    this.ended = false;
    world.after(() => this.stop());
  }

  async #begin(url, headers) {
    this.asked = Date.now();
    this.request = request(url, { headers: { accept: '*/*', ...headers }, agent: false });
    this.request.on('error', (error) => (this.error = error));
    this.request.end();
    this.response = await new Promise((answered, failed) => {
      this.request.on('response', answered);
      this.request.on('error', failed);
    });
    this.response.on('data', (data) => {
      this.firstAfter ??= Date.now() - this.asked;
      this.bytes += data.length;
      this.decoder.process.stdin.write(data);
    });
    this.response.on('error', () => {});
    this.response.on('close', () => {
      this.ended = true;
      this.endedWell = this.response.complete;
      this.decoder.process.stdin.end();
    });
  }

  /** Takes nothing from here on. */
  pause() {
    this.radio.signal('SIGSTOP');
  }

  goOn() {
    this.radio.signal('SIGCONT');
  }

  stop() {
    this.request?.destroy();
    this.radio?.signal('SIGCONT');
    this.decoder.signal('SIGTERM');
  }

  /** Seconds that were decoded. */
  get seconds() {
    return this.samples.length / 2 / RATE;
  }

  /** What was played last: how loud, and the frequency of it if it is a tone. */
  hearing() {
    const ear = this.samples.subarray(Math.max(0, this.samples.length - EAR_S * RATE * 2) & ~1);
    const samples = new Int16Array(new Uint8Array(ear).buffer);
    let [energy, crossings] = [0, 0];
    samples.forEach((sample, at) => {
      energy += sample * sample;
      if (at > 0 && samples[at - 1] < 0 && sample >= 0) crossings += 1;
    });
    const seconds = samples.length / RATE;
    return { level: Math.round(Math.sqrt(energy / (samples.length || 1))), hertz: Math.round(crossings / seconds), seconds };
  }

  /** Waits until what is played is this tone. */
  async hears(hertz, { within = 15_000 } = {}) {
    await this.#until(`a speaker plays ${hertz} Hz`, (heard) => heard.level > 500 && Math.abs(heard.hertz - hertz) < 12, within);
  }

  /** Waits until what is played is silence; the silence of a codec is not always 0. */
  async hearsNothing({ within = 15_000 } = {}) {
    await this.#until('a speaker plays silence', (heard) => heard.seconds >= EAR_S && heard.level < 5, within);
  }

  async #until(what, matches, within) {
    let heard;
    const isSo = () => matches((heard = this.hearing()));
    await until(what, isSo, { within, every: 100, show: () => ({ ...heard, ended: this.ended, played: this.seconds }) });
  }
}
