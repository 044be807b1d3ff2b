// The server under test: the real binary with a config of its own on free ports.

import { mkdir, readFile, rm, writeFile } from 'node:fs/promises';

import { Child } from './process.mjs';
import { part } from './parts.mjs';
import { cpuSeconds } from './proc.mjs';
import { until } from './wait.mjs';

/** The longest that a request may take, in ms. */
const PATIENCE = 30_000;

/** A running `manifold serve`. */
export class Manifold {
  /**
   * @param {import('./world.mjs').World} world
   * @param {object} config the tree of manifold.toml; cameras may leave out name and source
   * @param {Record<string, string>} env variables of its own
   */
  static async start(world, config = {}, env = {}) {
    const manifold = new Manifold(world);
    const data = manifold.file('data');
    await mkdir(data, { recursive: true });
    const path = manifold.file('manifold.toml');
    await writeFile(path, toml(withDefaults(config, data)));
    await manifold.launch(['serve', '--config', path], env);
    return manifold;
  }

  /** Without a config file, as a newcomer starts it; only the ports are free ones. */
  static async startBare(world) {
    const manifold = new Manifold(world);
    await manifold.launch(['serve', '--listen', '127.0.0.1:0', '--udp', '127.0.0.1:0', '--rtsp', '127.0.0.1:0']);
    return manifold;
  }

  constructor(world) {
    this.world = world;
    world.servers += 1;
    this.number = world.servers;
  }

  /** A path of its own; the first server of a scenario has no number. */
  file(name) {
    return this.world.file(this.number === 1 ? name : `${this.number}-${name}`);
  }

  /** Ends it and starts it again as it was; give `listen` a fixed port for its pages to find it. */
  async restart() {
    await this.child.stop();
    await this.launch(this.args, this.env);
  }

  async launch(args, env) {
    this.args = args;
    this.env = env;
    const ready = this.file('ready.json');
    // One that a server before wrote tells of ports that are closed.
    await rm(ready, { force: true });
    this.child = new Child('manifold', part('manifold'), [...args, '--ready-file', ready], {
      cwd: this.world.folder,
      env,
      log: this.file('manifold.log'),
    });
    this.world.own(this.child);
    const { listen, audio, https, udp, tcp, rtsp } = await until(
      'manifold is ready',
      async () => {
        if (!this.child.alive) return { ended: true };
        return JSON.parse(await readFile(ready, 'utf8'));
      },
      { show: () => this.child.tail(10) },
    ).then((found) => {
      if (found.ended) throw new Error(`manifold ended with ${this.child.code}:\n${this.child.tail()}`);
      return found;
    });
    this.urls = listen.map((address) => `http://${address}`);
    [this.url] = this.urls;
    this.audio = audio && `http://${audio}`;
    this.https = https && `https://${https}`;
    this.udp = hostAndPort(udp);
    this.tcp = tcp === null ? null : hostAndPort(tcp);
    this.rtsp = rtsp && `rtsp://${rtsp}`;
  }

  get pid() {
    return this.child.pid;
  }

  get logs() {
    return this.child.output;
  }

  /** A request to the API; `body` is sent as JSON. */
  async call(method, path, { body, headers = {} } = {}) {
    const response = await fetch(this.url + path, {
      method,
      headers: body === undefined ? headers : { 'content-type': 'application/json', ...headers },
      body: typeof body === 'string' ? body : body && JSON.stringify(body),
      // A server that stands still answers nothing.
      signal: AbortSignal.timeout(PATIENCE),
    });
    return answer(response);
  }

  /** GET that must succeed; its JSON. */
  async get(path) {
    const { status, json, text } = await this.call('GET', path);
    if (status !== 200) throw new Error(`GET ${path}: ${status} ${text}`);
    return json;
  }

  camera(id) {
    return this.get(`/api/v1/cameras/${id}`);
  }

  stats() {
    return this.get('/api/v1/stream/stats');
  }

  /** Reserves; whatever the answer is. */
  reserve(camera, user = 'tester', quality) {
    return this.call('POST', '/api/v1/stream/reserve', {
      body: { camera_id: camera, user_id: user, quality },
    });
  }

  release(reservation) {
    return this.call('DELETE', `/api/v1/stream/release/${reservation}`);
  }

  /** WHEP POST; whatever the answer is. */
  whep(camera, token, sdp, { type = 'application/sdp' } = {}) {
    const headers = { 'content-type': type };
    if (token) headers.authorization = `Bearer ${token}`;
    return this.call('POST', `/whep/${camera}`, { body: sdp, headers });
  }

  async metrics() {
    const { text } = await this.call('GET', '/metrics?format=prometheus');
    return text;
  }

  /** All metrics that are not 0, on one line: for messages of failure. */
  async counted() {
    const lines = (await this.metrics()).split('\n');
    return lines.filter((line) => /^(manifold|cctv)_/.test(line) && !/_bucket\{| 0$/.test(line)).join(', ');
  }

  /** Waits until the camera is in `state`; its JSON. */
  async cameraIs(id, state, within = 15_000) {
    let camera;
    await until(
      `camera ${id} is ${state}`,
      async () => {
        camera = await this.camera(id);
        return camera.state === state;
      },
      { within, show: () => camera },
    );
    return camera;
  }

  /** CPU seconds that the process has used, user and system. */
  cpuSeconds() {
    return cpuSeconds(this.pid);
  }
}

/** Takes "127.0.0.1:8555" and "[::1]:8555" apart. */
function hostAndPort(address) {
  const at = address.lastIndexOf(':');
  return { host: address.slice(0, at).replace(/^\[|\]$/g, ''), port: Number(address.slice(at + 1)) };
}

async function answer(response) {
  const text = await response.text();
  let json;
  try {
    json = JSON.parse(text);
  } catch {
    json = undefined;
  }
  return { status: response.status, headers: response.headers, text, json };
}

function withDefaults(config, data) {
  const { cameras = [], http = {}, media = {}, rtsp = {}, store = {}, log = {}, park = {}, ...rest } = config;
  return {
    listen: ['127.0.0.1:0'],
    audio_listen: 'off',
    http: { https: 'off', ...http },
    media: { udp: '127.0.0.1:0', ...media },
    rtsp: { listen: '127.0.0.1:0', ...rtsp },
    store: { data_dir: data, ...store },
    // Tests count who comes to their cameras.
    park: { probe_interval: '0s', ...park },
    log: { format: 'json', level: 'debug', ...log },
    sources: [{ id: 'TEST', name: 'Test agency', name_ar: 'جهة الاختبار', limit: 500 }],
    ...rest,
    cameras: cameras.map((camera) => ({ name: camera.id, source: 'TEST', ...camera })),
  };
}

/** Renders a tree as TOML: values, then tables, then arrays of tables. JSON strings are TOML strings. */
export function toml(tree) {
  const isTable = (value) => typeof value === 'object' && !Array.isArray(value);
  const isTables = (value) => Array.isArray(value) && typeof value[0] === 'object';
  const line = ([key, value]) => `${key} = ${JSON.stringify(value)}`;
  const block = (heading, table) =>
    [heading, ...Object.entries(table).filter(([, value]) => value !== undefined).map(line), ''].join('\n');
  const entries = Object.entries(tree);
  return [
    ...entries.filter(([, value]) => !isTable(value) && !isTables(value)).map(line),
    '',
    ...entries.filter(([, value]) => isTable(value)).map(([key, value]) => block(`[${key}]`, value)),
    ...entries
      .filter(([, value]) => isTables(value))
      .flatMap(([key, rows]) => rows.map((row) => block(`[[${key}]]`, row))),
  ].join('\n');
}
