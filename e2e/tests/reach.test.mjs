// Ways to the server other than UDP over IPv4: TCP, IPv6, a relay.

import assert from 'node:assert/strict';
import { connect } from 'node:net';

import { scenario } from '../harness/world.mjs';
import { pause, until } from '../harness/wait.mjs';

const SYNTHETIC = [{ id: 'cam-1', url: 'test://' }];

scenario('where UDP is blocked the page plays over TCP', async (world) => {
  const link = await world.link({ no_udp: true });
  const manifold = await world.manifold({
    listen: ['127.0.0.1:0', `${link.here}:0`],
    media: { udp: `${link.here}:0` },
    auth: { allow_open_on_network: true },
    cameras: SYNTHETIC,
  });
  const browser = await world.browser({ program: link.wrapper });

  const viewer = await world.open(`${manifold.urls[1]}/?open=cam-1`, { browser });

  await viewer.plays('cam-1', 40_000);
  const pair = await viewer.comesBy('cam-1', 'TCP', ({ protocol }) => protocol === 'tcp');
  assert.deepEqual([pair.remote.protocol, pair.remote.port], ['tcp', manifold.udp.port]);
  await viewer.advances('cam-1', 30);
  const metrics = await manifold.metrics();
  assert.match(metrics, /^manifold_tcp_connections [1-9]/m);
  assert.match(metrics, /^manifold_tcp_framing_errors_total 0$/m);
  assert.equal(value(metrics, 'manifold_send_drops_total'), 0);
});

scenario('a session over TCP ends with its connection', async (world) => {
  const manifold = await world.manifold({ cameras: SYNTHETIC });
  const { json } = await manifold.reserve('cam-1');
  const viewer = await world.open(manifold.url);
  await viewer.watch('cam-1', json, { candidates: ' tcp ' });
  await viewer.advances('cam-1');
  await viewer.comesBy('cam-1', 'TCP', ({ protocol }) => protocol === 'tcp');

  await viewer.page.evaluate(() => window.testPeers[0].close());

  await until('its lease is gone', async () => (await manifold.stats()).active_streams === 0, { within: 5_000 });
  await until('its connection too', async () => value(await manifold.metrics(), 'manifold_tcp_connections') === 0);
});

scenario('Chromium plays over IPv6, one port for both families', async (world) => {
  const manifold = await world.manifold({
    listen: ['127.0.0.1:0', '[::1]:0'],
    media: { udp: '[::]:0', advertise: ['::1', '127.0.0.1'] },
    cameras: SYNTHETIC,
  });
  const { json } = await manifold.reserve('cam-1');
  const viewer = await world.open(manifold.url);

  await viewer.watch('v6', json, { candidates: ' ::1 ' });

  await viewer.advances('v6');
  await viewer.comesBy('v6', 'IPv6', ({ remote }) => remote.address === '::1');
  const second = await manifold.reserve('cam-1');
  await viewer.watch('v4', second.json, { candidates: ' 127.0.0.1 ' });
  await viewer.advances('v4');
});

scenario('a thousand connections of strangers are bounded, and nobody notices', async (world) => {
  const manifold = await world.manifold({ cameras: SYNTHETIC });
  const viewer = await world.open(`${manifold.url}/?open=cam-1`);
  await viewer.plays('cam-1');
  const { host, port } = manifold.tcp;
  const strangers = Array.from({ length: 1_000 }, () => connect(port, host));
  for (const stranger of strangers) stranger.on('error', () => {});
  world.after(() => strangers.forEach((stranger) => stranger.destroy()));

  const figures = await until('all were let in or turned away', async () => {
    const metrics = await manifold.metrics();
    const open = value(metrics, 'manifold_tcp_connections');
    const refused = value(metrics, 'manifold_tcp_connections_refused_total');
    return refused > 0 && open + refused >= 1_000 ? { open, refused } : undefined;
  });
  assert.ok(figures.open <= 129, JSON.stringify(figures));

  await viewer.advances('cam-1', 30);
  await until(
    'they are dropped',
    async () => {
      const metrics = await manifold.metrics();
      return value(metrics, 'manifold_tcp_strangers_dropped_total') >= 128;
    },
    { within: 20_000 },
  );
});

scenario('who speaks something else on the media port is dropped at once', async (world) => {
  const manifold = await world.manifold({ cameras: SYNTHETIC });
  const { host, port } = manifold.tcp;
  const socket = connect(port, host);
  const closed = new Promise((resolve) => socket.on('close', resolve).on('error', () => {}));

  socket.write('GET / HTTP/1.1\r\nHost: manifold\r\n\r\n');

  await closed;
  assert.equal(value(await manifold.metrics(), 'manifold_tcp_framing_errors_total'), 1);
});

/** A figure without labels. */
function value(metrics, name) {
  return Number(new RegExp(`^${name} (\\S+)$`, 'm').exec(metrics)?.[1]);
}
