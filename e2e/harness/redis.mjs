// Real redis-servers: one alone, a leader with its replica under Sentinel, and a cluster of three. With
// MANIFOLD_STORE=valkey they are Valkey's.

import { execFile } from 'node:child_process';
import { mkdirSync, writeFileSync } from 'node:fs';
import { promisify } from 'node:util';

import { freePort } from './camera.mjs';
import { part } from './parts.mjs';
import { Child } from './process.mjs';
import { until } from './wait.mjs';

const run = promisify(execFile);
let servers = 0;

/** Whose servers are started where nobody says otherwise. */
const USUAL = process.env.MANIFOLD_STORE ?? 'redis';

/** A running redis-server. */
export class Redis {
  /**
   * @param {import('./world.mjs').World} world
   * @param {string[]} args settings of its own, as on its command line
   * @param {'redis' | 'valkey'} kind whose server it is
   */
  static async start(world, args = [], kind = USUAL) {
    servers += 1;
    const redis = new Redis(world, await freePort(), args, servers);
    redis.kind = kind;
    await redis.launch();
    return redis;
  }

  constructor(world, port, args, number) {
    Object.assign(this, { world, port, args, number });
    this.folder = world.file(`redis-${number}`);
    mkdirSync(this.folder, { recursive: true });
  }

  get url() {
    return `redis://127.0.0.1:${this.port}`;
  }

  /** Starts it, or starts it again with what it saved. */
  async launch() {
    this.child = new Child(
      'redis-server',
      part(this.kind),
      // prettier-ignore
      ['--port', `${this.port}`, '--bind', '127.0.0.1', '--dir', this.folder, '--save', '', '--appendonly', 'no',
        '--enable-debug-command', 'local', ...this.args],
      { log: this.world.file(`redis-${this.number}.log`) },
    );
    this.world.own(this.child);
    await until('redis-server answers', async () => /^PONG|NOAUTH/.test(await this.cli('PING')), {
      show: () => this.child.tail(5),
    });
  }

  /** SIGKILL; nothing is saved. */
  kill() {
    return this.child.kill();
  }

  /** SIGTERM, and a start. */
  async restart() {
    await this.child.stop();
    await this.launch();
  }

  /** What `redis-cli` prints. */
  async cli(...words) {
    const { stdout } = await run('redis-cli', ['-p', `${this.port}`, '-c', ...words]);
    return stdout.trimEnd();
  }

  /** Names of keys, as the runbook lists them. */
  async keys(pattern) {
    const listed = await this.cli('--scan', '--pattern', pattern);
    return listed === '' ? [] : listed.split('\n');
  }
}

/** A redis-server that takes TLS too, with a certificate of the given authority. Valkey's has no TLS here. */
export async function redisWithTls(world, authority) {
  const [port, { certificate, key }] = [await freePort(), await authority.sign('store')];
  const files = ['--tls-cert-file', certificate, '--tls-key-file', key, '--tls-ca-cert-file', authority.file];
  const redis = await Redis.start(world, ['--tls-port', `${port}`, '--tls-auth-clients', 'no', ...files], 'redis');
  redis.tlsUrl = `rediss://127.0.0.1:${port}`;
  return redis;
}

/** A leader, its replica, and a Sentinel that decides alone; it may ask for a password of its own. */
export class SentinelGroup {
  static async start(world, password = '') {
    const leader = await Redis.start(world);
    const replica = await Redis.start(world, ['--replicaof', '127.0.0.1', `${leader.port}`]);
    await until('the replica follows', async () =>
      (await replica.cli('INFO', 'replication')).includes('master_link_status:up'),
    );
    const port = await freePort();
    const settings = world.file('sentinel.conf');
    writeFileSync(
      settings,
      [
        `port ${port}`,
        'bind 127.0.0.1',
        `dir ${world.folder}`,
        `sentinel monitor main 127.0.0.1 ${leader.port} 1`,
        'sentinel down-after-milliseconds main 1000',
        'sentinel failover-timeout main 5000',
        ...(password ? [`requirepass ${password}`] : []),
      ].join('\n'),
    );
    const child = new Child('sentinel', part(USUAL), [settings, '--sentinel'], { log: world.file('sentinel.log') });
    world.own(child);
    const group = new SentinelGroup();
    Object.assign(group, { leader, replica, port, child });
    await until('the Sentinel knows both', async () => {
      const login = password ? ['-a', password, '--no-auth-warning'] : [];
      const { stdout } = await run('redis-cli', ['-p', `${port}`, ...login, 'SENTINEL', 'replicas', 'main']);
      return stdout.includes(`${replica.port}`);
    });
    return group;
  }

  get url() {
    return `redis+sentinel://127.0.0.1:${this.port}/main`;
  }
}

const CLUSTERED = ['--cluster-enabled', 'yes', '--cluster-node-timeout', '2000'];

/** Three leaders that share the slots. */
export class Cluster {
  static async start(world) {
    const cluster = new Cluster();
    cluster.nodes = [];
    for (let number = 0; number < 3; number += 1) {
      cluster.nodes.push(
        await Redis.start(world, CLUSTERED),
      );
    }
    const places = cluster.nodes.map(({ port }) => `127.0.0.1:${port}`);
    await run('redis-cli', ['--cluster', 'create', ...places, '--cluster-yes']);
    await until('the cluster is whole', async () => {
      const states = await Promise.all(cluster.nodes.map((node) => node.cli('CLUSTER', 'INFO')));
      return states.every((state) => state.includes('cluster_state:ok'));
    });
    return cluster;
  }

  get url() {
    return `redis+cluster://${this.nodes.map(({ port }) => `127.0.0.1:${port}`).join(',')}`;
  }

  /** By whichever of them has the key. */
  cli(...words) {
    const alive = this.nodes.find((node) => node.child.alive);
    return alive.cli(...words);
  }

  /** The leader of the servers that have `key`. */
  async leaderOf(key) {
    const slot = Number(await this.cli('CLUSTER', 'KEYSLOT', key));
    const lines = (await this.cli('CLUSTER', 'NODES')).split('\n').map((line) => line.split(' '));
    const has = ([, , flags, , , , , , ...ranges]) =>
      flags.includes('master') &&
      ranges.some((range) => {
        const [from, to = from] = range.split('-').map(Number);
        return from <= slot && slot <= to;
      });
    const [id, address] = lines.find(has);
    const port = Number(address.split('@')[0].split(':').pop());
    return { id, node: this.nodes.find((node) => node.port === port) };
  }

  /** A replica of the leader with this id. */
  async addReplica(id) {
    const replica = await Redis.start(this.nodes[0].world, CLUSTERED);
    const [here, there] = [replica, this.nodes[0]].map(({ port }) => `127.0.0.1:${port}`);
    await run('redis-cli', ['--cluster', 'add-node', here, there, '--cluster-slave', '--cluster-master-id', id]);
    await until('the replica follows', async () =>
      (await replica.cli('INFO', 'replication')).includes('master_link_status:up'),
    );
    this.nodes.push(replica);
    return replica;
  }
}
