// Pages end at any moment and in any way: what they had is given back within 5 s, also where they said nothing.
// Who only loses a WebSocket, or has none, keeps his place.

import assert from 'node:assert/strict';
import { request } from 'node:http';

import { Redis } from '../harness/redis.mjs';
import { Socket } from '../harness/socket.mjs';
import { holds, pause, until } from '../harness/wait.mjs';
import { scenario } from '../harness/world.mjs';

/** The promise of the contract for what is closed. */
const CLOSED = { within: 5_000 };

/** From the end of a page's socket to the look at what it left, and as long again. */
const LOOKED_MS = 6_000;

/** Pages that are closed at once, every other one on its way to the picture. */
const PAGES = 8;

/** How far apart their ends are: loading, reserving, offering, connecting and playing take a second together. */
const APART_MS = 150;

const cameras = [{ id: 'cam-1', url: 'test://', close_after: '1s' }];

const active = async (manifold) => (await manifold.stats()).active_streams;
const nobody = (manifold) => until('all places are free', async () => (await active(manifold)) === 0, CLOSED);

/** What pages left without a word, and what the server gave back for them. */
async function givenBack(manifold) {
  const metrics = await manifold.metrics();
  return Number(/^manifold_reservations_left_behind_total\{why="page_gone"\} (\d+)/m.exec(metrics)[1]);
}

/** A place that is reserved for a page which calls itself so. */
async function reserve(manifold, page) {
  const body = { camera_id: 'cam-1', user_id: 'tester', ...(page === undefined ? {} : { page }) };
  const { status, json, text } = await manifold.call('POST', '/api/v1/stream/reserve', { body });
  assert.equal(status, 200, text);
  return json.reservation_id;
}

const socketOf = (manifold, page) => Socket.open(manifold.url, { path: `/ws/stream/stats?page=${page}` });

/** In the page: its WebSockets are known, so that they can be ended from here. */
function knowSockets() {
  const Real = window.WebSocket;
  window.testSockets = [];
  window.WebSocket = class extends Real {
    constructor(...given) {
      super(...given);
      window.testSockets.push(this);
    }
  };
}

scenario('pages are closed while they load, reserve, offer, connect and play', async (world) => {
  const manifold = await world.manifold({ cameras });
  const browser = await world.browser();
  const contexts = await Promise.all(Array.from({ length: PAGES }, () => browser.client.newContext()));
  await Promise.all(
    contexts.map(async (context, at) => {
      const page = await context.newPage();
      page.goto(`${manifold.url}/?open=cam-1`).catch(() => {});
      await pause(at * APART_MS);
      // A busy Chromium does not always say that it has closed a page that was loading: its context takes it along.
      if (at % 2 === 0) page.close().catch(() => {});
      await context.close();
    }),
  );
  await nobody(manifold);
  await until('its puller is gone', async () => (await manifold.camera('cam-1')).pullers === 0, CLOSED);
});

scenario('a page that crashes says nothing, and its place is free within 5 s', async (world) => {
  const manifold = await world.manifold({ cameras });
  const [doomed, witness] = [await world.browser(), await world.browser()];
  const victim = await world.open(`${manifold.url}/?open=cam-1`, { browser: doomed });
  const other = await world.open(`${manifold.url}/?open=cam-1`, { browser: witness });
  await victim.plays('cam-1');
  await other.plays('cam-1');

  // The page that is asked never answers.
  victim.page.goto('chrome://crash').catch(() => {});
  await until('its place is free', async () => (await active(manifold)) === 1, CLOSED);
  await other.advances('cam-1');
});

scenario('a page whose WebSocket ends and cannot be opened again keeps its place', async (world) => {
  const manifold = await world.manifold({ cameras });
  const viewer = await world.open('about:blank');
  await viewer.page.addInitScript(knowSockets);
  await viewer.page.goto(`${manifold.url}/?open=cam-1`);
  await viewer.plays('cam-1');
  const { reservation_id: id } = (await manifold.get('/api/v1/why/cam-1')).viewers[0];

  await viewer.page.evaluate(() => {
    window.WebSocket = class {
      constructor() {
        throw new Error('a proxy lets none through');
      }
    };
    for (const socket of window.testSockets) socket.close();
  });
  const isThere = async () => (await manifold.get(`/api/v1/trace/${id}`)).state === 'granted';
  await holds('it has its place', isThere, LOOKED_MS);
  await viewer.advances('cam-1');
  assert.equal(await givenBack(manifold), 0);
});

scenario('places go with the page that reserved them, and no others', async (world) => {
  const manifold = await world.manifold({ cameras });
  const [gone, back, twice] = await Promise.all(['p1', 'p2', 'p3'].map((page) => socketOf(manifold, page)));
  const second = await socketOf(manifold, 'p3');
  for (const page of ['p1', 'p2', 'p3', 'never-opened', undefined]) await reserve(manifold, page);
  const calling = await reserve(manifold, 'cannot-open');
  assert.equal((await manifold.call('POST', `/api/v1/stream/heartbeat/${calling}`)).status, 200);
  assert.equal(await active(manifold), 6);

  gone.destroy();
  back.destroy();
  twice.close();
  const again = await socketOf(manifold, 'p2');
  // A page that reserved, and neither opened a socket nor made use of its place, was closed while it loaded.
  await until('two places are free', async () => (await active(manifold)) === 4, CLOSED);
  // The look at the others has been at the same time.
  assert.equal(await givenBack(manifold), 2);

  // Granted after its page has gone.
  await reserve(manifold, 'p1');
  await until('it is given back too', async () => (await active(manifold)) === 4, CLOSED);
  for (const socket of [again, second]) socket.close();
  await until('the last ones', async () => (await active(manifold)) === 2, CLOSED);
  const wrong = await manifold.call('POST', '/api/v1/stream/reserve', {
    body: { camera_id: 'cam-1', user_id: 'tester', page: 'a name with spaces' },
  });
  assert.equal(wrong.status, 400);
  assert.match(wrong.json.detail, /^page must be 1 to 64 of the characters/);
});

scenario('who hangs up before he is told of his place has none', async (world) => {
  const redis = await Redis.start(world);
  const manifold = await world.manifold({ cameras, store: { url: redis.url } });
  // The store answers late, and meanwhile whoever asked goes.
  await redis.cli('CLIENT', 'PAUSE', '1000', 'WRITE');
  const body = JSON.stringify({ camera_id: 'cam-1', user_id: 'tester' });
  const headers = { 'content-type': 'application/json', 'content-length': body.length };
  const asked = request(`${manifold.url}/api/v1/stream/reserve`, { method: 'POST', headers });
  asked.on('error', () => {});
  asked.end(body);
  await pause(300);
  asked.destroy();

  await manifold.child.says(/who asked for this place has hung up/);
  await nobody(manifold);
  await until('the store has none', async () => (await redis.keys('stream:reservation:*')).length === 0, CLOSED);
});
