// Several servers as one system: one of them pulls a camera, viewers are on any, and one may go.

import assert from 'node:assert/strict';
import { once } from 'node:events';
import { connect, createServer } from 'node:net';

import { LEFT } from '../harness/browser.mjs';
import { cluster, originOf } from '../harness/cluster.mjs';
import { scenario } from '../harness/world.mjs';
import { until } from '../harness/wait.mjs';

scenario('viewers on three nodes: the camera is pulled once', async (world) => {
  const camera = await world.camera();
  const { redis, nodes } = await cluster(world, 3, [{ id: 'cam-1', url: camera.url('/h264opus'), close_after: '1s' }]);

  const reserved = await Promise.all(
    Array.from({ length: 200 }, (_, index) => nodes[index % 3].reserve('cam-1', `user-${index}`)),
  );
  assert.ok(reserved.every(({ status }) => status === 200), JSON.stringify(reserved.find((r) => r.status !== 200)?.json));
  let most = 0;
  for (const node of nodes) {
    await until(
      'the camera is live at each node',
      async () => {
        most = Math.max(most, camera.connections());
        return (await node.camera('cam-1')).state === 'live';
      },
      { within: 15_000, show: () => node.camera('cam-1') },
    );
  }
  assert.equal(most, 1, 'one puller');
  assert.ok(['n1', 'n2', 'n3'].includes(await originOf(redis, 'cam-1')));

  const browser = await world.browser();
  for (const node of nodes) {
    const viewer = await world.open(`${node.url}/?open=cam-1`, { browser });
    await viewer.plays('cam-1');
    await viewer.hears('cam-1', 440);
  }
  assert.equal(camera.connections(), 1);
});

/** A way to the store that can be cut. */
class Wire {
  static async start(world, port) {
    const wire = new Wire();
    wire.sockets = new Set();
    wire.server = createServer((near) => {
      if (wire.isCut) return near.destroy();
      const far = connect(port, '127.0.0.1');
      for (const socket of [near, far]) {
        wire.sockets.add(socket);
        socket.on('error', () => {});
        socket.on('close', () => wire.sockets.delete(socket));
      }
      near.pipe(far).pipe(near);
      return undefined;
    }).listen(0, '127.0.0.1');
    await once(wire.server, 'listening');
    world.after(() => wire.close());
    wire.url = `redis://127.0.0.1:${wire.server.address().port}`;
    return wire;
  }

  cut() {
    this.isCut = true;
    for (const socket of this.sockets) socket.destroy();
  }

  mend() {
    this.isCut = false;
  }

  close() {
    this.cut();
    this.server.close();
  }
}

scenario('a node that loses the store gives its camera away, and its viewers see it from there', async (world) => {
  const camera = await world.camera();
  let wire;
  const { redis, nodes } = await cluster(world, 2, [{ id: 'cam-1', url: camera.url('/h264opus') }], async (store, number) => {
    if (number === 2) return store.url;
    wire = await Wire.start(world, store.port);
    return wire.url;
  });
  const [first, second] = nodes;
  const browser = await world.browser();
  const there = await world.open(`${first.url}/?open=cam-1`, { browser });
  await there.plays('cam-1');
  const here = await world.open(`${second.url}/?open=cam-1`, { browser });
  await here.plays('cam-1');
  assert.equal(await originOf(redis, 'cam-1'), 'n1');

  wire.cut();

  await until('the node that sees the store is the origin', async () => (await originOf(redis, 'cam-1')) === 'n2');
  await until('the camera has one puller, and it is another one', () => camera.connectionsEver() > 1 && camera.connections() === 1, {
    show: () => [camera.connectionsEver(), camera.connections()],
  });
  for (const viewer of [there, here]) {
    await viewer.plays('cam-1');
    await viewer.advances('cam-1');
  }
  assert.equal(camera.connections(), 1);
  wire.mend();
  await there.advances('cam-1', 30, 20_000);
});

scenario('the origin is killed: viewers at other nodes see the picture again', async (world) => {
  const camera = await world.camera();
  const { redis, nodes } = await cluster(world, 2, [{ id: 'cam-1', url: camera.url('/h264opus') }]);
  const [first, second] = nodes;
  const browser = await world.browser();
  const there = await world.open(`${first.url}/?open=cam-1`, { browser });
  await there.plays('cam-1');
  assert.equal(await originOf(redis, 'cam-1'), 'n1');
  const here = await world.open(`${second.url}/?open=cam-1`, { browser });
  await here.plays('cam-1');
  assert.equal(camera.connections(), 1);

  await first.child.kill();

  await until('the other node is the origin', async () => (await originOf(redis, 'cam-1')) === 'n2');
  await here.plays('cam-1');
  await here.advances('cam-1');
  await here.hears('cam-1', 440);
  const peers = await here.page.evaluate(() => window.testPeers.length);
  assert.equal(peers, 1, 'over the connection it had');
  await until('the leases of the dead node are back', async () => (await second.stats()).active_streams === 1, {
    within: 20_000,
  });
});

scenario('a camera is pulled as long as another node shows it, and no longer', async (world) => {
  const camera = await world.camera();
  const { redis, nodes } = await cluster(world, 2, [{ id: 'cam-1', url: camera.url('/h264opus'), close_after: '1s' }]);
  const [first, second] = nodes;
  const browser = await world.browser();
  const there = await world.open(`${first.url}/?open=cam-1`, { browser });
  await there.plays('cam-1');
  const here = await world.open(`${second.url}/?open=cam-1`, { browser });
  await here.plays('cam-1');

  await there.page.close();

  await until('one viewer is left, at the other node', async () => (await first.stats()).active_streams === 1, LEFT);
  await here.advances('cam-1', 40, 20_000);
  assert.equal(await originOf(redis, 'cam-1'), 'n1');

  await second.child.kill();

  // The dead node says nothing; its checks are missed after half a minute.
  await until('the camera is left', () => camera.connections() === 0, { within: 60_000 });
  await until('nobody is its origin', async () => (await originOf(redis, 'cam-1')) === '');
});
