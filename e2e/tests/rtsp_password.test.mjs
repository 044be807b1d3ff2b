// Cameras that ask for a password: the right one plays, the wrong one is a state with a sentence, and
// neither is ever shown.

import assert from 'node:assert/strict';

import { scenario } from '../harness/world.mjs';

const CANARY = 'c4nary-Pa55word';

for (const auth of ['digest', 'basic']) {
  scenario(`a camera with ${auth} password plays, and the password stays secret`, async (world) => {
    const camera = await world.camera({ auth, password: CANARY });
    const manifold = await world.manifold({
      log: { level: 'trace' },
      cameras: [{ id: 'cam-1', url: camera.url('/h264') }],
    });

    const viewer = await world.open(`${manifold.url}/?open=cam-1`);
    await viewer.plays('cam-1');
    await viewer.advances('cam-1');

    await showsNowhere(manifold, viewer, CANARY);
  });
}

scenario('a wrong password is a state with a sentence, and stays secret', async (world) => {
  const camera = await world.camera({ auth: 'digest' });
  const manifold = await world.manifold({
    log: { level: 'trace' },
    cameras: [{ id: 'cam-1', url: camera.url('/h264', CANARY) }],
  });

  const viewer = await world.open(`${manifold.url}/?open=cam-1`);

  const shown = await manifold.cameraIs('cam-1', 'unauthorized');
  assert.equal(shown.status, 'ERROR');
  assert.match(shown.reason, /user name or password/);
  const refused = await manifold.reserve('cam-1', 'second');
  assert.equal(refused.status, 409);
  assert.match(refused.text, /user name or password/);
  await showsNowhere(manifold, viewer, CANARY);
});

/** Looks for a secret in everything that manifold shows, plain and as the base64 of Basic. */
async function showsNowhere(manifold, viewer, secret) {
  const answers = await Promise.all(
    [
      '/api/v1/cameras',
      '/api/v1/cameras/cam-1',
      '/api/v1/stream/stats',
      '/rooms',
      '/rooms/camera_cam-1',
      '/health',
      '/metrics',
      '/metrics?format=prometheus',
    ].map(async (path) => [path, (await manifold.call('GET', path)).text]),
  );
  const places = [...answers, ['the log', manifold.logs], ['the page', await viewer.page.content()]];
  const basic = Buffer.from(`admin:${secret}`).toString('base64');
  for (const [place, text] of places) {
    assert.ok(text.length > 0, `${place} says something`);
    assert.ok(!text.includes(secret), `the password is in ${place}`);
    assert.ok(!text.includes(basic), `the password is in ${place}, as base64`);
  }
}
