// A WHIP and WHEP server that is not ours.

import { join } from 'node:path';

import { part, root } from './parts.mjs';
import { Child } from './process.mjs';

/** A running `servers/aiortc_server.py`. */
export class ForeignServer {
  /**
   * @param {import('./world.mjs').World} world
   * @param {{ refusals?: number }} options `refusals`: publishers that are told 503 first
   */
  static async start(world, { refusals = 0 } = {}) {
    const server = new ForeignServer();
    server.token = 'a-token-of-the-foreign-server';
    const script = join(root, 'servers/aiortc_server.py');
    const args = [script, '--token', server.token, '--refusals', `${refusals}`];
    server.child = new Child('aiortc server', part('aiortc'), args, { log: world.file('aiortc-server.log') });
    world.own(server.child);
    const [, port] = await server.child.says(/"port": (\d+)/);
    server.url = `http://127.0.0.1:${port}`;
    return server;
  }

  /** What publishers sent, and how many sessions there are. */
  async seen() {
    const response = await fetch(`${this.url}/seen`);
    return response.json();
  }
}
