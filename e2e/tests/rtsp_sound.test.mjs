// An RTSP camera's picture and sound in a browser: AAC becomes Opus, G.711 goes through as it is.

import assert from 'node:assert/strict';

import { freePort } from '../harness/camera.mjs';
import { scenario } from '../harness/world.mjs';

const kinds = [
  { path: '/h264aac', codec: 'audio/opus' },
  { path: '/h264pcmu', codec: 'audio/PCMU' },
  { path: '/h264pcma', codec: 'audio/PCMA' },
  // 200 ms in one packet, as some cameras send.
  { path: '/h264pcmalong', codec: 'audio/PCMA' },
  { path: '/h264opus', codec: 'audio/opus' },
];

for (const { path, codec } of kinds) {
  scenario(`picture and sound of ${path} arrive as H264 and ${codec}`, async (world) => {
    const camera = await world.camera();
    const manifold = await world.manifold({ cameras: [{ id: 'cam-1', url: camera.url(path) }] });

    const viewer = await world.open(`${manifold.url}/?open=cam-1`);
    await viewer.plays('cam-1');

    const { last } = await viewer.advances('cam-1', 15);
    assert.deepEqual([last.width, last.height], [640, 360]);
    const tone = await viewer.hears('cam-1', 440);
    assert.ok(tone.level > -40, `the tone is loud enough: ${tone.level} dBFS`);
    const inbound = await viewer.inbound('cam-1');
    assert.equal(inbound.video.codec, 'video/H264');
    assert.equal(inbound.audio.codec, codec);
    assert.equal(inbound.transport.srtpCipher, 'SRTP_AEAD_AES_256_GCM');
    assert.deepEqual(viewer.errors, []);
  });
}

scenario('picture and sound of what Manifold serves by RTSP arrive when Manifold pulls it', async (world) => {
  const camera = await world.camera();
  const port = await freePort();
  const manifold = await world.manifold({
    rtsp: { listen: `127.0.0.1:${port}` },
    cameras: [
      { id: 'cam-1', url: camera.url('/h264opus') },
      { id: 'cam-2', url: `rtsp://127.0.0.1:${port}/cam-1` },
    ],
  });

  const viewer = await world.open(`${manifold.url}/?open=cam-2`);
  await viewer.plays('cam-2');

  await viewer.advances('cam-2', 15);
  await viewer.hears('cam-2', 440);
  assert.equal((await viewer.inbound('cam-2')).audio.codec, 'audio/opus');
});
