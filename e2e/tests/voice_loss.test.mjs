// A voice over lines that lose packets: it goes on, and what is missing is concealed and counted.

import assert from 'node:assert/strict';

import { CardSite } from '../harness/voice.mjs';
import { pause } from '../harness/wait.mjs';
import { scenario } from '../harness/world.mjs';

/** How long is listened to, and in windows of which length each must have the tone. */
const LISTENED_MS = 8_000;
const WINDOW_MS = 1_000;

for (const [who, lossy] of [['the receiver', 'receiver'], ['the sender', 'sender']]) {
  scenario(`20 % of loss on the line of ${who}: speech goes on`, async (world) => {
    const link = await world.link();
    const manifold = await world.manifold(link.settings);
    const site = await CardSite.start(world, link.here);
    const near = await site.page();
    const far = await site.page(await world.browser({ program: link.wrapper }));
    const [sending, listening] = lossy === 'sender' ? [far, near] : [near, far];
    const urlOf = (page) => (page === far ? manifold.urls[1] : manifold.urls[0]);
    const sender = await sending.open('sender', urlOf(sending));
    const receiver = await listening.open('receiver', urlOf(listening));
    await sender.speak(440);
    await receiver.listen();
    await receiver.hears(440);

    await link.set({ delay_ms: 10, loss: 0.2, seed: 1 });
    const before = await receiver.inbound();
    const quiet = [];
    for (let from = 0; from < LISTENED_MS; from += WINDOW_MS) {
      await pause(WINDOW_MS);
      const { level, hertz } = await receiver.tone();
      if (level < -60 || Math.abs(hertz - 440) > 15) quiet.push({ from, level, hertz });
    }

    const after = await receiver.inbound();
    assert.deepEqual(quiet, [], 'the tone is there in each second');
    const samples = after.totalSamplesReceived - before.totalSamplesReceived;
    const concealed = after.concealedSamples - before.concealedSamples;
    assert.ok(concealed > 0 && concealed < samples / 5, `${concealed} of ${samples} samples are concealed`);
    const did = await link.end();
    const lost = lossy === 'sender' ? did.from_browser.lost : did.to_browser.lost;
    assert.ok(lost > 30, JSON.stringify(did));
  });
}
