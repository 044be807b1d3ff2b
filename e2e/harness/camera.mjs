// A real RTSP camera: GStreamer's server with a test picture that carries the machine-readable strip.

import { createServer } from 'node:net';
import { join } from 'node:path';

import { Child } from './process.mjs';
import { part, root } from './parts.mjs';

/** A TCP port that is free at the moment of asking. */
export async function freePort() {
  const server = createServer();
  await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
  const { port } = server.address();
  await new Promise((resolve) => server.close(resolve));
  return port;
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
    const args = [join(root, 'cameras/rtsp_camera.py'), String(this.port ?? 0)];
    args.push('--auth', auth, '--user', this.user, '--password', this.password);
    args.push('--size', size, '--fps', String(fps), '--gop', String(gop), '--kbit', String(kbit));
    this.starts += 1;
    this.child = new Child('camera', part('python'), args, {
      log: this.world.file(`camera-${this.number}-${this.starts}.log`),
    });
    this.world.own(this.child);
    const [, port] = await this.child.says(/ready rtsp:\/\/127\.0\.0\.1:(\d+)/);
    this.port = Number(port);
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

  #told(word) {
    return this.child.output.split('\n').filter((line) => line === word).length;
  }
}
