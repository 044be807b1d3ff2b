// Those who speak: what Chromium sends when it is answered, and senders that are no browsers.

import assert from 'node:assert/strict';
import { join } from 'node:path';

import { part, root } from '../harness/parts.mjs';
import { Child } from '../harness/process.mjs';
import { CardSite, socketUrl } from '../harness/voice.mjs';
import { until } from '../harness/wait.mjs';
import { scenario } from '../harness/world.mjs';

scenario('Chromium sends redundancy to who is heard, and says itself how loud it is', async (world) => {
  const { manifold, page } = await relay(world);
  const sender = await page.open('sender', manifold.url);
  const receiver = await page.open('receiver', manifold.url);
  const stream = await sender.speak(440);
  await receiver.listen(stream);

  // Statistics of a sender name the codec inside. What a receiver has already it throws away and counts.
  let heard;
  await until(
    'each packet carries the one before it',
    async () => {
      heard = await receiver.inbound();
      return heard?.packetsReceived > 100 && heard.packetsDiscarded > heard.packetsReceived / 2;
    },
    { show: () => heard },
  );
  assert.deepEqual([heard.packetsLost, heard.nackCount], [0, 0]);
  const { level } = await sender.says({ type: 'audio_data', stream_id: stream });
  assert.ok(level > 0 && level <= 1, `${level}`);
  for (const trouble of ['lost', 'late', 'withheld']) {
    assert.match(await manifold.metrics(), new RegExp(`^manifold_voice_packets_${trouble}_total 0$`, 'm'));
  }
});

scenario('a speaker that shares no code with browsers is heard', async (world) => {
  const { manifold, page } = await relay(world);
  const receiver = await page.open('receiver', manifold.url);
  await receiver.listen();
  const speaker = speak(world, manifold, 620);
  const [, stream] = await speaker.says(/"stream": "(stream_[0-9a-f-]{36})"/);
  await speaker.says(/"state": "connected"/);

  await receiver.hears(620);
  await receiver.says({ type: 'audio_data', stream_id: stream });

  await speaker.stop();
  assert.equal(speaker.code, 0, speaker.tail(10));
  await receiver.says({ type: 'stream_ended', stream_id: stream }, 2_000);
});

scenario('of a speaker whose process stands still the stream ends within 10 s', async (world) => {
  const { manifold, page } = await relay(world);
  const receiver = await page.open('receiver', manifold.url);
  await receiver.listen();
  const speaker = speak(world, manifold, 620);
  const [, stream] = await speaker.says(/"stream": "(stream_[0-9a-f-]{36})"/);
  await receiver.hears(620);

  // Its sockets stay open and nobody says goodbye, as if its network were gone.
  speaker.signal('SIGSTOP');
  await receiver.says({ type: 'stream_ended', stream_id: stream }, 10_000);
  speaker.signal('SIGKILL');
});

/** aiortc as a speaker. */
function speak(world, manifold, hertz) {
  const script = join(root, 'publishers/aiortc_speaker.py');
  const args = [script, '--url', socketUrl(manifold.url), '--hertz', String(hertz)];
  const speaker = new Child('aiortc speaker', part('aiortc'), args, { log: world.file('aiortc-speaker.log') });
  world.own(speaker);
  return speaker;
}

/** A server, and a page with cards. */
async function relay(world) {
  const manifold = await world.manifold({});
  const site = await CardSite.start(world);
  return { manifold, page: await site.page() };
}
