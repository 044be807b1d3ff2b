// Cameras and walls that one node is told of over the API are the same at all nodes of a cluster.

import assert from 'node:assert/strict';
import { readFile, readdir } from 'node:fs/promises';

import { cluster } from '../harness/cluster.mjs';
import { until } from '../harness/wait.mjs';
import { scenario } from '../harness/world.mjs';

const CANARY = 'c4nary-Pa55word';
/** In the settings file of each node. */
const cameras = [{ id: 'still-here', url: 'test://' }];

const add = (node, body) => node.call('POST', '/api/v1/cameras', { body: { source: 'TEST', ...body } });
const put = (node, id, body) => node.call('PUT', `/api/v1/cameras/${id}`, { body });
const status = async (node, id) => (await node.call('GET', `/api/v1/cameras/${id}`)).status;
const urlOf = async (node, id) => (await node.call('GET', `/api/v1/cameras/${id}`)).json?.url;

/** Ended without a word, as by a power cut; and started again later. */
async function kill(node) {
  await node.child.kill();
  return () => node.launch(node.args, node.env);
}

scenario('a camera that is added at one node is watched at another, and moved and deleted there', async (world) => {
  const first = await world.camera({ auth: 'digest', password: CANARY });
  const second = await world.camera({ auth: 'digest', password: CANARY, size: '320x240' });
  const { redis, nodes } = await cluster(world, 2, cameras);
  const [one, other] = nodes;

  const asked = Date.now();
  const added = await add(one, { id: 'gate', url: first.url('/h264'), close_after: '1s' });
  assert.equal(added.status, 201, added.text);
  assert.equal(added.json.hint, undefined);
  await until('the other node has it', async () => (await status(other, 'gate')) === 200);
  console.log(`a camera was at the other node after ${Date.now() - asked} ms`);
  const viewer = await world.open(`${other.url}/?open=gate`);
  await viewer.plays('gate');
  assert.equal((await viewer.inbound('gate')).video.frameWidth, 640);

  assert.equal((await put(other, 'gate', { url: second.url('/h264') })).status, 200);
  await until('the picture is that of the other camera', async () => (await viewer.inbound('gate')).video?.frameWidth === 320);
  await until('the first node has the new address', async () => (await urlOf(one, 'gate')).includes(`:${second.port}/`));

  // What was in the store is not needed.
  await redis.cli('FLUSHALL');
  assert.equal((await one.call('DELETE', '/api/v1/cameras/gate')).status, 200);
  await until('it is gone at the other node', async () => (await status(other, 'gate')) === 404);
  const tile = viewer.page.locator('[data-camera="gate"]');
  await until('who watched there is told', async () => /Camera removed/.test(await tile.innerText()));

  // Who did what is told where it was asked, once.
  const actions = async (node) => {
    const { rows } = await node.get('/api/v1/audit?camera=gate');
    return rows.map((row) => row.action).filter((action) => action.startsWith('camera_')).sort().join();
  };
  await until('the first node has its own rows', async () => (await actions(one)) === 'camera_added,camera_deleted');
  await until('the other node has its own row', async () => (await actions(other)) === 'camera_changed');

  for (const node of nodes) {
    assert.ok(!node.logs.includes(CANARY), 'no password in a log');
    const folder = node.file('data');
    for (const name of await readdir(folder)) {
      assert.ok(!(await readFile(`${folder}/${name}`)).includes(CANARY), `no password in ${name}`);
    }
  }
});

scenario('what was deleted while a node was down stays deleted, and a camera of all settings files is changed at all', async (world) => {
  const { redis, nodes } = await cluster(world, 3, cameras);
  const [first, second, third] = nodes;
  for (const id of ['a', 'b', 'c']) assert.equal((await add(first, { id, url: 'test://' })).status, 201);
  assert.equal((await put(second, 'still-here', { name: 'Moved' })).status, 200);
  const at = (node) => async () => {
    const { cameras: found } = await node.get('/api/v1/cameras');
    return found.map(({ id, name }) => (id === 'still-here' ? name : id)).sort().join();
  };
  for (const node of nodes) {
    await until('all nodes have all', async () => (await at(node)()) === 'Moved,a,b,c', { show: at(node) });
  }

  const thirdAgain = await kill(third);
  assert.equal((await second.call('DELETE', '/api/v1/cameras/a')).status, 200);
  assert.equal((await first.call('DELETE', '/api/v1/cameras/still-here')).status, 200);
  await until('one node of two has it from the other', async () => (await at(second)()) === 'b,c', { show: at(second) });
  await until('and the other way', async () => (await at(first)()) === 'b,c', { show: at(first) });
  await redis.cli('FLUSHALL');
  // Those who know of it are started anew, with what is on their disks.
  await first.child.kill();
  await first.launch(first.args, first.env);
  await thirdAgain();
  await until('it is gone at the node that was down', async () => (await at(third)()) === 'b,c', { show: at(third) });
  for (const node of [first, second]) assert.equal(await at(node)(), 'b,c', 'and it did not bring it back');
});

scenario('while the store is away a node is changed all the same, and the others follow', async (world) => {
  const { redis, nodes } = await cluster(world, 2, cameras);
  const [one, other] = nodes;
  await until('they know each other', async () => (await one.get('/health')).cluster.nodes.length === 1);
  await redis.kill();
  assert.equal((await add(one, { id: 'a', url: 'test://' })).status, 201);
  const otherAgain = await kill(other);
  assert.equal((await add(one, { id: 'b', url: 'test://' })).status, 201);
  await redis.launch();
  await otherAgain();
  await until('the other node has both', async () => (await status(other, 'a')) + (await status(other, 'b')) === 400);
});

scenario('an import of a whole park reaches the other nodes', async (world) => {
  const { nodes } = await cluster(world, 2, cameras);
  const [one, other] = nodes;
  const rows = Array.from({ length: 9_999 }, (_, n) => ({
    id: `cam-${n}`,
    name: `Camera ${n}`,
    source: 'TEST',
    url: `rtsp://admin:${CANARY}@192.0.2.1/${n}`,
  }));
  const imported = await one.call('POST', '/api/v1/cameras/import', { body: rows });
  assert.equal(imported.status, 200, imported.text);
  const learned = async () => (await other.get('/metrics?format=json')).cluster.records_learned;
  await until('the other node has all', async () => (await learned()) === 9_999, { within: 120_000, show: learned });
  assert.equal(await urlOf(other, 'cam-9998'), 'rtsp://192.0.2.1/9998');
  assert.equal((await one.get('/metrics?format=json')).cluster.records_learned, 0, 'nothing comes back');
});

scenario('a wall that is saved at one node is opened, changed and deleted at another', async (world) => {
  const { nodes } = await cluster(world, 2, cameras);
  const [one, other] = nodes;
  const tiles = [{ camera_id: 'still-here', x: 0, y: 0, width: 1, height: 1 }];
  const saved = await one.call('POST', '/api/v1/layouts', { body: { name: 'Gates', tiles } });
  assert.equal(saved.status, 201, saved.text);
  const path = saved.headers.get('location');
  await until('the other node has it', async () => (await other.call('GET', path)).status === 200);
  assert.deepEqual((await other.get(path)).tiles, saved.json.tiles);
  assert.equal((await other.call('PUT', path, { body: { name: 'Doors' } })).status, 200);
  await until('it has the new name', async () => (await one.get(path)).name === 'Doors');
  assert.equal((await one.call('DELETE', path)).status, 204);
  await until('it is gone', async () => (await other.call('GET', path)).status === 404);
});
