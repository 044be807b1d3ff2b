// A second, independent implementation of WebRTC watches: aiortc, in Python.

import assert from 'node:assert/strict';
import { join } from 'node:path';

import { part, root } from '../harness/parts.mjs';
import { Child } from '../harness/process.mjs';
import { scenario } from '../harness/world.mjs';
import { until } from '../harness/wait.mjs';

const profiles = ['any', 'SRTP_AES128_CM_SHA1_80', 'SRTP_AEAD_AES_128_GCM'];

for (const profile of profiles) {
  scenario(`aiortc sees and hears a camera; SRTP profile: ${profile}`, async (world) => {
    const camera = await world.camera();
    const manifold = await world.manifold({
      cameras: [{ id: 'cam-1', url: camera.url('/h264aac'), close_after: '1s' }],
    });
    const { json } = await manifold.reserve('cam-1', 'aiortc');

    const seen = await watch(world, json.whep_url, json.token, profile);

    assert.deepEqual([seen.width, seen.height], [640, 360]);
    assert.ok(seen.video_frames >= 30, `${seen.video_frames} frames`);
    assert.ok(seen.strips >= seen.video_frames * 0.8, `${seen.strips} of ${seen.video_frames} strips read well`);
    assert.ok(seen.last_frame > seen.first_frame, 'the frame number advances');
    assert.equal(seen.frame_gaps, 0, 'no frame is missing or doubled');
    assert.ok(Math.abs(seen.tone_hz - 440) < 15, `a tone of ${seen.tone_hz} Hz`);
    if (profile !== 'any') assert.equal(seen.srtp_profile, profile);
    assert.equal(seen.delete_status, 200);
    await until('its lease is gone with its DELETE', async () => (await manifold.stats()).active_streams === 0, {
      within: 3_000,
    });
  });
}

/** Runs the viewer to its end; what it has seen. */
async function watch(world, url, token, profile) {
  const script = join(root, 'viewers/aiortc_viewer.py');
  const args = [script, '--url', url, '--token', token, '--frames', '45', '--srtp-profile', profile];
  const child = new Child('aiortc viewer', part('aiortc'), args, { log: world.file('aiortc.log') });
  world.own(child);
  await until('the aiortc viewer has ended', () => !child.alive, { within: 60_000, show: () => child.tail(10) });
  assert.equal(child.code, 0, child.tail());
  return JSON.parse(child.output.trim().split('\n').at(-1));
}
