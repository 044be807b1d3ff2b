// A bad network between a browser and the server: a namespace behind e2e/net/link.py.

import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

import { Child } from './process.mjs';
import { part, root } from './parts.mjs';
import { until } from './wait.mjs';

let links = 0;

/** A link that loses, delays and narrows. The browser behind it is started by {@link Link#wrapper}. */
export class Link {
  /**
   * @param {import('./world.mjs').World} world
   * @param {Conditions} conditions as link.py has them; none: a good network
   */
  static async start(world, conditions = {}) {
    part('tun');
    const link = new Link(world);
    await link.child.says(/^up$/m);
    await link.set(conditions);
    return link;
  }

  constructor(world) {
    links += 1;
    // Unique on this machine as long as this process runs: a network of four addresses each.
    const number = (process.pid * 4 + links) % (64 * 256);
    const [third, fourth] = [Math.floor(number / 64), (number % 64) * 4];
    this.here = `10.91.${third}.${fourth + 1}`;
    this.there = `10.91.${third}.${fourth + 2}`;
    this.world = world;
    const args = [join(root, 'net/link.py'), `mf${number}`, this.here, this.there];
    this.child = new Child('link', part('python'), args, { log: world.file('link.log'), input: true });
    this.sets = 0;
    world.own(this.child);
  }

  /** Changes what packets meet from here on. */
  async set(conditions) {
    this.sets += 1;
    this.child.process.stdin.write(`${JSON.stringify(conditions)}\n`);
    await until(`the link heard ${this.sets} times`, () => {
      if (!this.child.alive) throw new Error(`the link ended:\n${this.child.tail(10)}`);
      return this.child.output.match(/^set$/gm)?.length >= this.sets;
    });
  }

  /** Settings of a server that is reached over the link, and from here by loopback. */
  get settings() {
    return {
      listen: ['127.0.0.1:0', `${this.here}:0`],
      media: { udp: `${this.here}:0` },
      auth: { allow_open_on_network: true },
    };
  }

  /** A program that starts Chromium behind the link. */
  get wrapper() {
    const folder = this.world.file('bin');
    const path = join(folder, `chromium-behind-${this.child.pid}`);
    mkdirSync(folder, { recursive: true });
    const line = `exec nsenter --net=/proc/${this.child.pid}/ns/net ${part('chromium')} "$@"`;
    writeFileSync(path, `#!/bin/sh\n${line}\n`, { mode: 0o755 });
    return path;
  }

  /** Ends it; what it did, by direction. */
  async end() {
    this.child.process.stdin.end();
    await this.child.ended;
    return JSON.parse(this.child.output.trimEnd().split('\n').pop());
  }
}

/**
 * @typedef {{ delay_ms?: number, jitter_ms?: number, loss?: number, rate_kbit?: number, queue_ms?: number,
 *   nat?: number, no_udp?: boolean, seed?: number }} Conditions
 */
