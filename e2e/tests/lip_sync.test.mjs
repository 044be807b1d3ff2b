// Picture and sound belong together: our sender reports tell the browser how.

import assert from 'node:assert/strict';

import { scenario } from '../harness/world.mjs';
import { until } from '../harness/wait.mjs';

for (const path of ['/h264aac', '/h264pcmu']) {
  scenario(`picture and sound of ${path} are played within 200 ms of each other`, async (world) => {
    const camera = await world.camera();
    const manifold = await world.manifold({ cameras: [{ id: 'cam-1', url: camera.url(path) }] });
    const viewer = await world.open(`${manifold.url}/?open=cam-1`);
    await viewer.plays('cam-1');

    // Chromium gives the NTP time of what is played once a sender report of each track is there.
    let apart;
    await until(
      'the played picture and sound carry the same time',
      async () => {
        const { audio, video } = await viewer.inbound('cam-1');
        if (!audio?.estimatedPlayoutTimestamp || !video?.estimatedPlayoutTimestamp) return false;
        apart = audio.estimatedPlayoutTimestamp - video.estimatedPlayoutTimestamp;
        return Math.abs(apart) <= 200;
      },
      { within: 25_000, every: 250, show: () => ({ apart }) },
    );

    const { audio, video } = await viewer.inbound('cam-1');
    const clock = video.estimatedPlayoutTimestamp - NTP_TO_UNIX_MS - Date.now();
    assert.ok(Math.abs(clock) < 5_000, `the sender reports carry the wall clock; off by ${clock} ms`);
    assert.ok(audio.jitterBufferEmittedCount > 0);
  });
}

/** Milliseconds from 1900, where NTP counts from, to 1970. */
const NTP_TO_UNIX_MS = 2_208_988_800_000;
