// `manifold load` as a part of tests and benchmarks.

import { readFile } from 'node:fs/promises';

import { part } from './parts.mjs';
import { Child } from './process.mjs';

let runs = 0;

/** A running `manifold load`. */
export class Load {
  /**
   * @param {import('./world.mjs').World} world
   * @param {string[]} args
   */
  constructor(world, args) {
    runs += 1;
    this.json = world.file(`load-${runs}.json`);
    this.child = new Child('manifold load', part('manifold'), ['load', ...args, '--json', this.json], {
      log: world.file(`load-${runs}.log`),
    });
    this.started = Date.now();
    world.own(this.child);
  }

  /** Ends it now; what it found until then. */
  finish() {
    this.child.signal('SIGINT');
    return this.report();
  }

  /** Waits for its end; what it found. An exit code of 1 only says that viewers failed. */
  async report() {
    await this.child.ended;
    if (![0, 1].includes(this.child.code)) throw new Error(`load ended with ${this.child.code}: ${this.child.tail(5)}`);
    const text = await readFile(this.json, 'utf8').catch(() => {
      throw new Error(`load wrote no report: ${this.child.tail(5)}`);
    });
    return JSON.parse(text);
  }
}
