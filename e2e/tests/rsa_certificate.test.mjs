// A viewer whose DTLS certificate has an RSA key: GStreamer's webrtcbin, which shares no code with
// the others.

import assert from 'node:assert/strict';
import { join } from 'node:path';

import { part, root } from '../harness/parts.mjs';
import { Child } from '../harness/process.mjs';
import { scenario } from '../harness/world.mjs';
import { until } from '../harness/wait.mjs';

scenario('a viewer with an RSA certificate sees the camera', async (world) => {
  const manifold = await world.manifold({
    media: { udp: '0.0.0.0:0' },
    cameras: [{ id: 'cam-1', url: 'test://', close_after: '1s' }],
  });
  const { json } = await manifold.reserve('cam-1', 'gstreamer');
  part('webrtcbin');
  const args = [join(root, 'viewers/gst_viewer.py'), '--url', json.whep_url, '--token', json.token];
  const child = new Child('GStreamer viewer', part('python'), args, { log: world.file('gstreamer.log') });
  world.own(child);

  await until('the GStreamer viewer has ended', () => !child.alive, { within: 60_000, show: () => child.tail(10) });

  assert.equal(child.code, 0, child.tail());
  const seen = JSON.parse(child.output.trim().split('\n').at(-1));
  assert.ok(seen.video_frames >= 30, `${seen.video_frames} frames`);
  assert.equal(seen.delete_status, 200);
});
