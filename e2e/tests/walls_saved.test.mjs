// Walls that are saved from the page, opened by name and by link, and deleted; and whose they are.

import assert from 'node:assert/strict';

import { scenario } from '../harness/world.mjs';
import { KEY, token } from '../harness/token.mjs';
import { until } from '../harness/wait.mjs';

const cameras = ['cam-1', 'cam-2', 'cam-3'].map((id) => ({ id, url: 'test://', close_after: '1s' }));
const hostile = '<img src=x onerror="window.owned = 1"> بوابة';

for (const colorScheme of ['light', 'dark']) {
  scenario(`a wall is saved, opened, replaced and deleted with the keyboard, in ${colorScheme}`, async (world) => {
    const manifold = await world.manifold({ cameras });
    const viewer = await world.open(`${manifold.url}/?open=cam-1,cam-2`, { colorScheme });
    const { page } = viewer;
    const open = async () => (await viewer.tiles()).map((tile) => tile.camera).sort();
    await viewer.plays('cam-1');
    await viewer.plays('cam-2');

    await page.locator('[data-camera="cam-1"]').focus();
    await page.keyboard.press('w');
    await page.waitForSelector('#walls[open]');
    await until('the name can be typed', () => page.evaluate(() => document.activeElement.id === 'wall-name'));
    await page.keyboard.type(hostile);
    await page.keyboard.press('Enter');
    const row = page.locator('[data-wall]');
    await row.waitFor();
    assert.ok((await row.textContent()).includes(hostile));
    await page.screenshot({ path: world.file(`${colorScheme}.png`) });
    await legible(page);
    const [saved] = (await manifold.get('/api/v1/layouts')).layouts;
    assert.equal(saved.name, hostile);
    assert.deepEqual(saved.tiles.map((tile) => tile.camera_id), ['cam-1', 'cam-2']);
    await until('the address is a link to it', () => new URL(page.url()).search === `?wall=${saved.id}`);

    // Another camera is another wall, until it replaces the one that is saved.
    await page.keyboard.press('Escape');
    await page.locator('[data-open="cam-3"]').click();
    await viewer.plays('cam-3');
    await until('the address is without it', () => new URL(page.url()).search === '?open=cam-1,cam-2,cam-3');
    await page.locator('[data-camera="cam-3"]').focus();
    await page.keyboard.press('w');
    await page.locator('#wall-name').fill(hostile);
    await until('it says so', async () => (await page.locator('.wall-save button').innerText()) === 'Replace');
    await page.keyboard.press('Enter');
    await until('it is replaced', async () => (await manifold.get(`/api/v1/layouts/${saved.id}`)).tiles.length === 3);
    assert.equal((await manifold.get('/api/v1/layouts')).layouts.length, 1);

    // By name: what is not on it closes, what is on it plays on.
    await page.keyboard.press('Escape');
    for (const id of ['cam-1', 'cam-2']) {
      await page.locator(`[data-camera="${id}"]`).focus();
      await page.keyboard.press('Delete');
    }
    await until('two are closed', async () => (await open()).join() === 'cam-3');
    await page.keyboard.press('w');
    await page.locator(`[data-wall="${saved.id}"]`).focus();
    await page.keyboard.press('Enter');
    await until('all of it is open', async () => (await open()).join() === 'cam-1,cam-2,cam-3');
    for (const { id } of cameras) await viewer.plays(id);

    // By link, also after a restart of the server.
    const other = await world.open(`${manifold.url}/?wall=${saved.id}`, { colorScheme });
    for (const { id } of cameras) await other.plays(id);
    assert.equal(new URL(other.page.url()).search, `?wall=${saved.id}`);
    assert.deepEqual((await other.tiles()).map((tile) => tile.camera), ['cam-1', 'cam-2', 'cam-3']);
    await other.close();

    await page.keyboard.press('w');
    const remove = page.locator(`[data-delete-wall="${saved.id}"]`);
    await remove.focus();
    await page.keyboard.press('Enter');
    assert.equal((await manifold.get('/api/v1/layouts')).layouts.length, 1, 'the first press only asks');
    await page.keyboard.press('Enter');
    await until('it is deleted', async () => (await manifold.get('/api/v1/layouts')).layouts.length === 0);
    await until('the page knows', async () => (await page.locator('.wall-row').count()) === 0);
    await until('the link is not to it any more', () => new URL(page.url()).search === '?open=cam-1,cam-2,cam-3' || page.url());

    const gone = await world.open(`${manifold.url}/?wall=${saved.id}`, { colorScheme });
    await gone.page.waitForSelector('text=There is no such wall');
    await until('its address is without it', () => new URL(gone.page.url()).search === '');
    assert.equal(await page.evaluate(() => window.owned), undefined);
    assert.deepEqual([...viewer.errors, ...gone.errors], []);
    await deletedInTrail(manifold, saved.id);
  });
}

scenario('nobody sees or opens a wall of others, nor the cameras on it', async (world) => {
  const sources = ['METRO', 'TAXI'].map((id) => ({ id, name: id, name_ar: id, limit: 5 }));
  const manifold = await world.manifold({
    auth: { mode: 'keys' },
    'auth.keys': { [KEY.id]: KEY.secret },
    sources,
    cameras: [
      { id: 'metro-gate', source: 'METRO', url: 'test://' },
      { id: 'taxi-rank', source: 'TAXI', url: 'test://' },
    ],
  });
  const of = (name, source) =>
    token('', name, { video: { roomJoin: true, roomList: true }, attributes: { role: 'viewer', sources: source } });
  const amal = of('amal', 'METRO');
  const badr = of('badr', 'TAXI');
  const admin = token('', 'ada', { video: { roomJoin: false, roomAdmin: true } });
  const as = (key) => ({ headers: { authorization: `Bearer ${key}` } });
  const tiles = ['metro-gate', 'taxi-rank'].map((camera_id) => ({ camera_id }));
  const saved = await manifold.call('POST', '/api/v1/layouts', { body: { name: 'Gates', tiles }, ...as(amal) });
  assert.equal(saved.status, 201, saved.text);
  const { id } = saved.json;

  assert.deepEqual((await manifold.call('GET', '/api/v1/layouts', as(badr))).json, { layouts: [] });
  for (const [method, body] of [['GET'], ['PUT', { name: 'Mine' }], ['DELETE']]) {
    const refused = await manifold.call(method, `/api/v1/layouts/${id}`, { body, ...as(badr) });
    assert.equal(refused.status, 404, `${method}: ${refused.text}`);
    assert.ok(!refused.text.includes('metro'), refused.text);
  }
  assert.equal((await manifold.call('GET', '/api/v1/layouts', as(admin))).json.layouts[0].owner, 'amal');

  // A link that a colleague sent opens nothing, and says so.
  const stranger = await world.open(`${manifold.url}/?wall=${id}`);
  await useKey(stranger, badr);
  await stranger.page.waitForSelector("text=it is somebody else's");
  await stranger.page.waitForSelector('[data-open="taxi-rank"]');
  assert.equal(await stranger.page.locator('[data-open="metro-gate"]').count(), 0);
  assert.deepEqual(await stranger.tiles(), []);

  // On one's own wall a camera of others is one that is not there.
  const owner = await world.open(`${manifold.url}/?wall=${id}`);
  await useKey(owner, amal);
  await owner.plays('metro-gate');
  const tile = owner.page.locator('[data-camera="taxi-rank"]');
  await until('the tile says it', async () => /Unknown camera/.test(await tile.innerText()), { show: () => tile.innerText() });
  assert.equal((await manifold.call('GET', '/api/v1/stream/stats', as(admin))).json.active_streams, 1);
});

async function useKey({ page }, key) {
  const field = page.locator('.banners input');
  await field.fill(key);
  await field.press('Enter');
}

async function deletedInTrail(manifold, id) {
  let rows;
  await until(
    'the trail tells of it',
    async () => {
      ({ rows } = await manifold.get('/api/v1/audit?kind=changed'));
      rows = rows.filter((row) => row.object === id);
      return rows.length === 3;
    },
    { show: () => rows },
  );
  assert.deepEqual(rows.map((row) => row.action), ['layout_added', 'layout_changed', 'layout_deleted']);
  assert.ok(rows.every((row) => row.reason.startsWith(hostile)));
}

/** The card's text stands out from its ground as WCAG asks. */
async function legible(page) {
  const ratio = await page.evaluate(() => {
    const canvas = new OffscreenCanvas(1, 1).getContext('2d', { willReadFrequently: true });
    const luminance = (colour) => {
      canvas.fillStyle = colour;
      canvas.fillRect(0, 0, 1, 1);
      const parts = [...canvas.getImageData(0, 0, 1, 1).data.slice(0, 3)].map((value) => {
        const share = value / 255;
        return share <= 0.04045 ? share / 12.92 : ((share + 0.055) / 1.055) ** 2.4;
      });
      return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2];
    };
    const ground = luminance(getComputedStyle(document.querySelector('#walls')).backgroundColor);
    const of = (selector) => {
      const text = luminance(getComputedStyle(document.querySelector(selector)).color);
      const [dark, light] = [text, ground].sort((a, b) => a - b);
      return (light + 0.05) / (dark + 0.05);
    };
    return Math.min(of('.wall-name'), of('.wall-count'), of('#walls h2'));
  });
  assert.ok(ratio >= 4.5, `contrast ${ratio}`);
}
