// A real RTSP camera: GStreamer's server with a test picture that carries the machine-readable strip.

import { createServer } from 'node:net';
import { join } from 'node:path';

import { Child } from './process.mjs';
import { part, root } from './parts.mjs';

/**
 * Ports that the system gives to nobody who does not ask for them: another one might be that of somebody's
 * connection by the time that a program is started on it, or returns to it. A cluster of Redis adds 10,000 for
 * its bus, which is then below those that are given out, too.
 */
const PORTS = { from: 10_000, to: 22_000 };

const given = new Set();

/** A TCP port that nobody listens at, and that this process was not given before. */
export async function freePort() {
  for (;;) {
    const port = PORTS.from + Math.floor(Math.random() * (PORTS.to - PORTS.from));
    if (given.has(port) || !(await isFree(port))) continue;
    given.add(port);
    return port;
  }
}

async function isFree(port) {
  const server = createServer();
  const isOurs = await new Promise((resolve) => {
    server.once('error', () => resolve(false));
    server.listen(port, '127.0.0.1', () => resolve(true));
  });
  if (isOurs) await new Promise((resolve) => server.close(resolve));
  return isOurs;
}

let cameras = 0;

/** An RTSP camera that can be stopped, killed and started again on its port. */
export class RtspCamera {
  /**
   * @param {import('./world.mjs').World} world
   * @param {{ port?: number, auth?: 'none'|'basic'|'digest', password?: string, size?: string, fps?: number,
   *   gop?: number, kbit?: number }} options `kbit`: above 1,200 the picture has noise and reaches it
   */
  constructor(world, options) {
    this.world = world;
    this.options = options;
    this.port = options.port;
    this.number = ++cameras;
    this.starts = 0;
    this.user = 'admin';
    this.password = options.password ?? 'secret';
  }

  /** Starts it, on the port it had before if it ran before; `options` replace those given at first. */
  async start(options = {}) {
    Object.assign(this.options, options);
    const { auth = 'none', size = '640x360', fps = 15, gop = 15, kbit = 1_200 } = this.options;
    part('rtspServer');
    this.port ??= await freePort();
    const args = [join(root, 'cameras/rtsp_camera.py'), String(this.port)];
    args.push('--auth', auth, '--user', this.user, '--password', this.password);
    args.push('--size', size, '--fps', String(fps), '--gop', String(gop), '--kbit', String(kbit));
    this.starts += 1;
    this.child = new Child('camera', part('python'), args, {
      log: this.world.file(`camera-${this.number}-${this.starts}.log`),
    });
    this.world.own(this.child);
    await this.child.says(/ready rtsp:\/\/127\.0\.0\.1:\d+/);
    return this;
  }

  /** Its URL, with its user and password where it asks for them. */
  url(path, password = this.password) {
    const { auth = 'none' } = this.options;
    const credentials = auth === 'none' ? '' : `${this.user}:${password}@`;
    return `rtsp://${credentials}127.0.0.1:${this.port}${path}`;
  }

  async kill() {
    await this.child.kill();
  }

  /** How many TCP connections clients hold to it: what the camera itself sees of its pullers. */
  connections() {
    return this.#told('connected') - this.#told('closed');
  }

  /** How many it was ever asked for since its start, those that ended too. */
  connectionsEver() {
    return this.#told('connected');
  }

  /** How many of them have ended. */
  connectionsEnded() {
    return this.#told('closed');
  }

  #told(word) {
    return this.child.output.split('\n').filter((line) => line === word).length;
  }
}
