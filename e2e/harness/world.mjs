// One scenario's world: its folder, servers, cameras and browsers, and their end.

import { mkdirSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';

import { Browser } from './browser.mjs';
import { RtspCamera } from './camera.mjs';
import { Link } from './link.mjs';
import { Manifold } from './manifold.mjs';
import { root } from './parts.mjs';

/**
 * A test with a world. When it fails, the ends of all logs are shown and the pages photographed.
 *
 * @param {string} name
 * @param {(world: World) => Promise<void>} body
 */
export function scenario(name, body) {
  test(name, { timeout: 180_000 }, async (t) => {
    const world = new World(name);
    try {
      await body(world);
    } catch (error) {
      await world.report(t);
      throw error;
    } finally {
      await world.end();
    }
  });
}

/** What one scenario runs. */
export class World {
  constructor(name) {
    this.folder = join(root, '.out', name.replace(/[^a-z0-9]+/gi, '-').slice(0, 80));
    rmSync(this.folder, { recursive: true, force: true });
    mkdirSync(this.folder, { recursive: true });
    this.children = [];
    this.manifolds = [];
    this.servers = 0;
    this.browsers = [];
    this.viewers = [];
    this.endings = [];
  }

  /** A path in the scenario's folder. */
  file(name) {
    return join(this.folder, name);
  }

  /** Has `ending` called when the scenario is over, however it ends. */
  after(ending) {
    this.endings.push(ending);
  }

  /** Makes the world end this child. */
  own(child) {
    this.children.push(child);
  }

  async manifold(config, env) {
    return this.shown(await Manifold.start(this, config, env));
  }

  async bareManifold() {
    return this.shown(await Manifold.startBare(this));
  }

  /** Has its counters shown when the scenario fails. */
  shown(manifold) {
    this.manifolds.push(manifold);
    return manifold;
  }

  /** A started RTSP camera. */
  camera(options = {}) {
    return new RtspCamera(this, options).start();
  }

  /** A bad network; a browser behind it is `browser({ program: link.wrapper })`. */
  link(conditions) {
    return Link.start(this, conditions);
  }

  async browser(options) {
    const browser = await Browser.start(options);
    this.browsers.push(browser);
    return browser;
  }

  /** A page in `browser`, or in a new one. */
  async open(url, { browser, ...options } = {}) {
    const viewer = await (browser ?? (await this.browser())).open(url, options);
    this.viewers.push(viewer);
    return viewer;
  }

  /** Shows what is needed to understand a failure. */
  async report(t) {
    for (const [index, viewer] of this.viewers.entries()) {
      const { page, errors } = viewer;
      const path = this.file(`page-${index}.png`);
      const taken = await page.screenshot({ path, timeout: 5_000 }).then(() => path, () => 'closed');
      const tiles = await page.evaluate(() => window.manifold?.tiles()).catch(() => undefined);
      t.diagnostic(`page ${index}: ${taken}; tiles ${JSON.stringify(tiles)}; errors ${JSON.stringify(errors)}`);
      const figures = await viewer.figures().catch(() => undefined);
      t.diagnostic(`page ${index}: what its connections received: ${JSON.stringify(figures)}`);
    }
    for (const manifold of this.manifolds) {
      const counted = await manifold.counted().catch((error) => error.message);
      t.diagnostic(`counters of ${manifold.url}: ${counted}`);
    }
    for (const child of this.children) {
      t.diagnostic(`--- ${child.name} (${child.alive ? 'runs' : `ended: ${child.code}`}), all of it in ${child.log}`);
      child.tail(15).split('\n').forEach((line) => t.diagnostic(line));
    }
  }

  async end() {
    await Promise.all(this.browsers.map((browser) => browser.close()));
    // The server before its cameras: it says goodbye to them.
    for (const child of this.children.reverse()) await child.stop();
    for (const ending of this.endings) await ending();
  }
}
