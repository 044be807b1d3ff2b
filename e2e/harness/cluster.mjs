// Several servers as one system.

import { freePort } from './camera.mjs';
import { Redis } from './redis.mjs';
import { pause } from './wait.mjs';

/**
 * Nodes n1, n2 … with one store and one park.
 *
 * @param {(redis: Redis, number: number) => string | Promise<string>} [urlOf] a node's own way to the store
 * @param {object} [settings] what all nodes have in their settings beyond that
 */
export async function cluster(world, nodes, cameras, urlOf = (redis) => redis.url, settings = {}) {
  const redis = await Redis.start(world);
  const started = [];
  for (let number = 1; number <= nodes; number += 1) {
    started.push(await startNode(world, number, await urlOf(redis, number), { cameras, ...settings }));
  }
  return { redis, nodes: started };
}

/**
 * One node more, on a store that runs.
 *
 * @param {number} number of its name
 * @param {string} store the store's URL
 * @param {object} settings its own; `cluster.url` is how the others reach it, where that is not its address
 * @param {Record<string, string>} [env]
 */
export async function startNode(world, number, store, settings, env) {
  const port = await freePort();
  const cluster = { node: `n${number}`, url: `http://127.0.0.1:${port}`, ...settings.cluster };
  return world.manifold({ ...settings, listen: [`127.0.0.1:${port}`], cluster, store: { url: store } }, env);
}

/** The node that has the lease on a camera, as the store tells. */
export async function originOf(redis, camera) {
  const owner = await redis.cli('GET', `stream:origin:${camera}/main`);
  return owner.split(' ')[0];
}

/** Watches a picture; `worst()` ends that and tells the longest time in ms without a new frame. */
export function watchGaps(viewer, camera) {
  let frames;
  let at = Date.now();
  let worst = 0;
  let isOver = false;
  const watching = (async () => {
    while (!isOver) {
      const now = (await viewer.tile(camera))?.framesDecoded;
      if (now !== frames) {
        // The first look is no gap.
        if (frames !== undefined) worst = Math.max(worst, Date.now() - at);
        [frames, at] = [now, Date.now()];
      }
      await pause(30);
    }
  })();
  return {
    async worst() {
      isOver = true;
      await watching;
      return worst;
    },
  };
}

/** The store's clock, in ms since 1970: what leases live by. */
export async function storeTime(redis) {
  const [seconds, micros] = (await redis.cli('TIME')).split('\n').map(Number);
  return seconds * 1e3 + micros / 1e3;
}

/**
 * When the last lease of others' ended that the nodes told each other of since `from`, in ms after that, by the
 * store's clock: however late a busy test looks.
 */
export async function lastLeaseEnded(redis, from) {
  const ended = await redis.cli('XREVRANGE', 'stream:ended', '+', Math.floor(from), 'COUNT', 1);
  return Number(ended.split('-')[0]) - from;
}
