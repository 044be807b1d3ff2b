// Garbage on the media port changes nothing, for nobody.

import assert from 'node:assert/strict';
import { randomBytes, randomInt } from 'node:crypto';
import { createSocket } from 'node:dgram';

import { scenario } from '../harness/world.mjs';
import { pause } from '../harness/wait.mjs';

const DATAGRAMS = 20_000;

scenario('random and truncated datagrams on the media port change nothing', async (world) => {
  const camera = await world.camera();
  const manifold = await world.manifold({
    log: { level: 'info' },
    cameras: [{ id: 'cam-1', url: camera.url('/h264') }],
  });
  const viewer = await world.open(`${manifold.url}/?open=cam-1`);
  await viewer.plays('cam-1');
  const before = await viewer.inbound('cam-1');

  const answers = await flood(manifold.udp);

  assert.equal(answers, 0, 'nothing is answered without integrity');

  await viewer.advances('cam-1', 15);
  const tile = await viewer.tile('cam-1');
  assert.equal(tile.state, 'playing');
  const after = await viewer.inbound('cam-1');
  assert.equal(after.video.ssrc, before.video.ssrc);
  assert.equal((await manifold.stats()).active_streams, 1);
  assert.ok(manifold.child.alive);
  const lines = manifold.logs.trimEnd().split('\n').length;
  assert.ok(lines < 2_000, `the log does not grow with the garbage: ${lines} lines`);
  assert.doesNotMatch(manifold.logs, /panicked/);
});

/**
 * Sends garbage that looks like each of the protocols of the port (RFC 7983), whole and cut short, and
 * some of it larger than any packet of theirs; how often something came back.
 */
async function flood({ host, port }) {
  const socket = createSocket('udp4');
  let answers = 0;
  socket.on('message', () => (answers += 1));
  // First bytes: STUN request, STUN answer, DTLS handshake and alert, RTP, RTCP, and none of them.
  const starts = [
    Buffer.from('000100002112a442', 'hex'),
    Buffer.from('010100082112a442', 'hex'),
    Buffer.from('16fefd0000000000000000', 'hex'),
    Buffer.from('15fefd00010000000000010002', 'hex'),
    Buffer.from('8060', 'hex'),
    Buffer.from('80c80006', 'hex'),
    // RTP with padding of more than there is, RTCP with a length beyond its end, an empty DTLS fragment.
    Buffer.from('b06000010000000100000001ff', 'hex'),
    Buffer.from('81c9ffff00000001', 'hex'),
    Buffer.from('16fefd0000000000000000000c010000c8000000000000000000', 'hex'),
    Buffer.from('ff', 'hex'),
    Buffer.alloc(0),
  ];
  for (let i = 0; i < DATAGRAMS; i++) {
    const start = starts[i % starts.length];
    const more = i % 97 === 0 ? 60_000 : 1_400;
    const whole = Buffer.concat([start, randomBytes(randomInt(more))]);
    const datagram = i % 3 === 0 ? whole.subarray(0, randomInt(whole.length + 1)) : whole;
    await new Promise((resolve, reject) =>
      socket.send(datagram, port, host, (error) => (error ? reject(error) : resolve())),
    );
    // A burst a millisecond: the socket's buffer is to be filled with garbage, not only emptied of it.
    if (i % 200 === 0) await pause(1);
  }
  socket.close();
  return answers;
}
