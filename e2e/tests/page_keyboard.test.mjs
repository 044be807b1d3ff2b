// The page without a mouse: cameras open with Enter and close with Delete.

import assert from 'node:assert/strict';

import { scenario } from '../harness/world.mjs';
import { until } from '../harness/wait.mjs';

scenario('a camera is opened with Enter and closed with Delete', async (world) => {
  const manifold = await world.manifold({
    cameras: [
      { id: 'cam-1', url: 'test://', close_after: '1s' },
      { id: 'cam-2', url: 'test://', close_after: '1s' },
    ],
  });
  const viewer = await world.open(manifold.url);
  const { page } = viewer;
  await page.waitForSelector('[data-open="cam-2"]');

  // The list is one stop of Tab; arrows move in it.
  await tabTo(page, '[data-open]');
  await page.keyboard.press('ArrowDown');
  await page.keyboard.press('Enter');

  await viewer.plays('cam-2');
  assert.equal((await viewer.tiles()).length, 1);

  await tabTo(page, '[data-camera="cam-2"]');
  await page.keyboard.press('Delete');

  await until('the tile is closed', async () => (await viewer.tiles()).length === 0, { within: 5_000 });
  await until('its lease is gone', async () => (await manifold.stats()).active_streams === 0, { within: 3_000 });
});

/** Presses Tab until the focus is on the element, or in it. */
async function tabTo(page, selector) {
  for (let presses = 0; presses < 60; presses++) {
    const there = await page.evaluate((wanted) => !!document.activeElement?.closest(wanted), selector);
    if (there) return;
    await page.keyboard.press('Tab');
  }
  assert.fail(`Tab does not reach ${selector}`);
}
