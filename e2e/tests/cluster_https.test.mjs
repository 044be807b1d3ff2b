// Nodes that reach each other by HTTPS: with an authority of each node's own, and with one that all know.

import assert from 'node:assert/strict';
import { writeFile } from 'node:fs/promises';

import { freePort } from '../harness/camera.mjs';
import { Authority } from '../harness/certificates.mjs';
import { originOf, startNode } from '../harness/cluster.mjs';
import { manifold } from '../harness/command.mjs';
import { Redis } from '../harness/redis.mjs';
import { KEY, token } from '../harness/token.mjs';
import { until } from '../harness/wait.mjs';
import { scenario } from '../harness/world.mjs';

const admin = { headers: { authorization: `Bearer ${token('', 'ada', { video: { roomJoin: false, roomAdmin: true } })}` } };
const keys = { 'auth.keys': { [KEY.id]: KEY.secret } };

/** A node that the others reach by HTTPS; `http` and `cluster` say what it shows, and by whom it believes. */
async function secureNode(world, number, redis, { http, cluster, ...settings }) {
  const address = `127.0.0.1:${await freePort()}`;
  return startNode(world, number, redis.url, {
    ...settings,
    http: { https: address, ...http },
    cluster: { url: `https://${address}`, ...cluster },
  });
}

/** The nodes that one does not hear of, with the reasons; `undefined` while it knows none. */
const missing = async (node) => {
  const { cluster } = (await node.call('GET', '/health')).json;
  return cluster.nodes.length === 0 ? undefined : cluster.nodes.filter(({ available }) => !available);
};

const hearsAll = (node) => until('the node hears the others', async () => (await missing(node))?.length === 0);

scenario('each node has an authority of its own: they believe each other without any setting', async (world) => {
  const redis = await Redis.start(world);
  const camera = await world.camera();
  const settings = { ...keys, cameras: [{ id: 'cam-1', url: camera.url('/h264opus') }] };
  const first = await secureNode(world, 1, redis, settings);
  const second = await secureNode(world, 2, redis, settings);
  for (const node of [first, second]) await hearsAll(node);

  const there = await world.open(`${first.url}/?open=cam-1`);
  await there.plays('cam-1');
  assert.equal(await originOf(redis, 'cam-1'), 'n1');
  const here = await world.open(second.url);
  const reserved = here.page.waitForResponse((answer) => answer.url().endsWith('/stream/reserve') && answer.ok());
  await here.page.locator('[data-open="cam-1"]').click();
  const { reservation_id: id } = await (await reserved).json();
  await here.plays('cam-1');
  await here.hears('cam-1', 440);
  assert.equal(camera.connections(), 1, 'the edge takes it from the origin');

  const { json: why } = await first.call('GET', `/api/v1/why/${id}`, admin);
  assert.deepEqual([why.well, why.node, why.unanswered], [true, 'n2', undefined], JSON.stringify(why));
  const { json: life } = await first.call('GET', `/api/v1/trace/${id}`, admin);
  assert.deepEqual([life.state, life.node, life.origin], ['granted', 'n2', 'n1'], JSON.stringify(life));

  const removed = await first.call('DELETE', `/rooms/camera_cam-1/participants/viewer_${id}`, admin);
  assert.equal(removed.status, 200, removed.text);
  await until('its media ends at its own node', async () => /^manifold_viewers_connected 0$/m.test(await second.metrics()), {
    within: 5_000,
  });

  const reset = await second.call('POST', '/api/v1/reset', { body: { camera_id: 'cam-1' }, ...admin });
  assert.equal(reset.status, 200, reset.text);
  await until('the origin pulled the camera anew', () => camera.connectionsEver() >= 2, { within: 15_000 });
  await there.plays('cam-1');
  await there.advances('cam-1');

  await first.child.kill();
  await second.reserve('cam-1', 'late');
  await until('the other node is the origin', async () => (await originOf(redis, 'cam-1')) === 'n2');
});

scenario('one authority for all nodes: who does not know it hears nobody, and says so', async (world) => {
  const redis = await Redis.start(world);
  const camera = await world.camera();
  const settings = { cameras: [{ id: 'cam-1', url: camera.url('/h264opus') }] };
  const authority = await Authority.make(world, 'private');
  const http = await authority.sign('node');
  const knowing = { ca: authority.file };
  const first = await secureNode(world, 1, redis, { ...settings, http, cluster: knowing });
  const second = await secureNode(world, 2, redis, { ...settings, http, cluster: knowing });
  for (const node of [first, second]) await hearsAll(node);
  const browser = await world.browser();
  for (const node of [first, second]) {
    const viewer = await world.open(`${node.url}/?open=cam-1`, { browser });
    await viewer.plays('cam-1');
    await viewer.advances('cam-1');
  }
  assert.equal(camera.connections(), 1);

  const third = await secureNode(world, 3, redis, { ...settings, http });
  const reasons = await until('it does not hear the others', async () => {
    const silent = await missing(third);
    return silent?.length === 2 && silent.map(({ reason }) => reason);
  });
  for (const reason of reasons) {
    assert.match(reason, /it is not believed: its certificate is of an authority that this machine does not know; .*cluster\.ca/);
  }

  const empty = world.file('empty.crt');
  await writeFile(empty, 'nothing');
  const config = world.file('refused.toml');
  await writeFile(config, `listen = ["127.0.0.1:0"]\naudio_listen = "off"\n[media]\nudp = "127.0.0.1:0"\n[rtsp]\nlisten = ""
[store]\nurl = "${redis.url}"\ndata_dir = "${world.folder}/refused"
[cluster]\nnode = "n4"\nurl = "https://127.0.0.1:1"\nca = "${empty}"\n`);
  const refused = await manifold(`serve --config ${config}`);
  assert.equal(refused.code, 1, refused.text);
  assert.match(refused.err, /cluster\.ca .*empty\.crt holds no certificate of an authority/);
});
