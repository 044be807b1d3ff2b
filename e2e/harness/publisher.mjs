// WHIP publishers: GStreamer's webrtcbin, and aiortc.

import { networkInterfaces } from 'node:os';
import { join } from 'node:path';

import { Child } from './process.mjs';
import { part, root } from './parts.mjs';

const programs = {
  gstreamer: () => {
    part('webrtcbin');
    return [part('python'), join(root, 'publishers/gst_publisher.py')];
  },
  aiortc: () => [part('aiortc'), join(root, 'publishers/aiortc_publisher.py')],
};

/**
 * The media port for publishers and viewers that do not use loopback, as GStreamer's do not. One address
 * alone: other tests make interfaces and take them away, and a session on one of those ends with it.
 */
export const beyondLoopback = { udp: `${firstAddress()}:0` };

function firstAddress() {
  const addresses = Object.values(networkInterfaces()).flat();
  return addresses.find(({ family, internal }) => family === 'IPv4' && !internal)?.address ?? '0.0.0.0';
}

/** An encoder that can be ended, killed and started again. */
export class Publisher {
  /**
   * @param {import('./world.mjs').World} world
   * @param {keyof typeof programs} kind
   * @param {string} url where to publish
   */
  constructor(world, kind, url) {
    this.world = world;
    this.kind = kind;
    this.url = url;
    this.starts = 0;
  }

  /** Starts it with `options` as flags; does not wait for anything. */
  launch(options = {}) {
    const [program, script] = programs[this.kind]();
    const flags = Object.entries(options).flatMap(([name, value]) => [`--${name}`, String(value)]);
    this.starts += 1;
    this.child = new Child(`${this.kind} publisher`, program, [script, '--url', this.url, ...flags], {
      log: this.world.file(`${this.kind}-publisher-${this.starts}.log`),
    });
    this.world.own(this.child);
    return this;
  }

  /** Starts it and waits until its media may flow. */
  async start(options) {
    this.launch(options);
    await this.child.says(/"state": "connected"/);
    return this;
  }

  /** What it said of a state. */
  said(state) {
    const lines = this.child.output.split('\n').filter((line) => line.startsWith('{'));
    return lines.map((line) => JSON.parse(line)).find((line) => line.state === state);
  }

  /** Ends it as a person does: it says DELETE. */
  stop() {
    return this.child.stop();
  }

  /** Ends it without a word. */
  kill() {
    return this.child.kill();
  }
}
