// Several servers as one system.

import { freePort } from './camera.mjs';
import { Redis } from './redis.mjs';
import { pause } from './wait.mjs';

/** Nodes n1, n2 … with one store and one park. */
export async function cluster(world, nodes, cameras, urlOf = (redis) => redis.url) {
  const redis = await Redis.start(world);
  const started = [];
  for (let number = 1; number <= nodes; number += 1) {
    const port = await freePort();
    const listen = [`127.0.0.1:${port}`];
    const node = { node: `n${number}`, url: `http://127.0.0.1:${port}` };
    started.push(
      await world.manifold({
        listen,
        cameras,
        cluster: node,
        store: { url: await urlOf(redis, number) },
      }),
    );
  }
  return { redis, nodes: started };
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
