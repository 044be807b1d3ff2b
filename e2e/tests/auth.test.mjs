// auth.mode = "keys": the API asks for a token of a configured key; the page asks the person for it.

import assert from 'node:assert/strict';

import { KEY, token } from '../harness/token.mjs';
import { scenario } from '../harness/world.mjs';
import { chromium } from '../harness/sdp.mjs';

const config = {
  auth: { mode: 'keys' },
  'auth.keys': { [KEY.id]: KEY.secret },
  cameras: [{ id: 'cam-1', url: 'test://' }],
};
const bearer = (text) => ({ headers: { authorization: `Bearer ${text}` } });
const admin = () => token('', 'dashboard', { video: { roomJoin: false, roomAdmin: true } });

scenario('with keys the API is closed without one, and to viewers', async (world) => {
  const manifold = await world.manifold(config);
  const body = { camera_id: 'cam-1', user_id: 'x' };
  const calls = [
    ['POST', '/api/v1/stream/reserve', body],
    ['DELETE', '/api/v1/stream/release/00000000-0000-4000-8000-000000000000'],
    ['POST', '/api/v1/stream/heartbeat/00000000-0000-4000-8000-000000000000', {}],
    ['GET', '/api/v1/stream/stats'],
    ['GET', '/api/v1/cameras'],
    ['GET', '/api/v1/cameras/cam-1'],
    ['GET', '/rooms'],
    ['GET', '/rooms/camera_cam-1'],
    ['DELETE', '/ingress/whip-pusher-cam-1'],
  ];
  for (const [method, path, body] of calls) {
    const none = await manifold.call(method, path, { body });
    assert.equal(none.status, 401, `${method} ${path} without a key: ${none.text}`);
    const viewer = token('camera_cam-1', 'viewer_x');
    const low = await manifold.call(method, path, { body, ...bearer(viewer) });
    assert.equal(low.status, 403, `${method} ${path} with a viewer's token: ${low.text}`);
  }

  const reserved = await manifold.call('POST', '/api/v1/stream/reserve', { body, ...bearer(admin()) });
  assert.equal(reserved.status, 200, reserved.text);
  assert.equal((await manifold.whep('cam-1', reserved.json.token, chromium)).status, 201);
  assert.equal((await manifold.call('GET', '/health')).status, 200, 'a load balancer has no key');
});

scenario('the page asks for a key, and plays with it', async (world) => {
  const manifold = await world.manifold(config);
  const viewer = await world.open(manifold.url);

  const field = viewer.page.locator('dialog[open] input, form input[type="password"]').first();
  await field.fill(admin());
  await viewer.page.keyboard.press('Enter');
  await viewer.page.locator('[data-open="cam-1"]').click();

  await viewer.plays('cam-1');
  assert.deepEqual(viewer.errors, []);
});
