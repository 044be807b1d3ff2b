// The page in light and dark, wide and narrow. With MANIFOLD_SCREENSHOT=FILE it also makes the
// picture of the README.

import assert from 'node:assert/strict';

import { scenario } from '../harness/world.mjs';
import { until } from '../harness/wait.mjs';

for (const colorScheme of ['light', 'dark']) {
  scenario(`the page is legible in ${colorScheme}`, async (world) => {
    const manifold = await world.bareManifold();
    const { cameras } = await manifold.get('/api/v1/cameras');
    const ids = cameras.map((camera) => camera.id);
    const viewer = await world.open(`${manifold.url}/?open=${ids.join(',')}`, { colorScheme });
    for (const id of ids) await viewer.plays(id, 30_000);
    await figuresShown(viewer, ids);

    const { page } = viewer;
    const [text, background] = await page.evaluate(colours);
    assert.ok(contrast(text, background) >= 4.5, `text ${text} on ${background}`);
    assert.equal(luminance(background) < 0.2, colorScheme === 'dark');
    await page.screenshot({ path: world.file(`${colorScheme}.png`) });
    if (colorScheme === 'dark' && process.env.MANIFOLD_SCREENSHOT) {
      await page.screenshot({ path: process.env.MANIFOLD_SCREENSHOT });
    }

    await page.setViewportSize({ width: 390, height: 844 });
    const overflow = await page.evaluate(() => document.documentElement.scrollWidth - window.innerWidth);
    assert.ok(overflow <= 0, `nothing sticks out on a phone: ${overflow} px`);
    await page.screenshot({ path: world.file(`${colorScheme}-narrow.png`) });
    assert.deepEqual(viewer.errors, []);
  });
}

/** Waits until each tile shows its figures. */
async function figuresShown(viewer, ids) {
  for (const id of ids) {
    for (const figure of ['resolution', 'fps', 'bitrate', 'loss', 'rtt', 'latency']) {
      const place = viewer.page.locator(`[data-camera="${id}"] [data-figure="${figure}"]`);
      await until(`${id} shows its ${figure}`, async () => /\d/.test(await place.textContent()));
    }
  }
}

/** In the page: text and background colour of the body, as [red, green, blue]. */
function colours() {
  const canvas = new OffscreenCanvas(1, 1).getContext('2d');
  const style = getComputedStyle(document.body);
  const root = getComputedStyle(document.documentElement).backgroundColor;
  const behind = /, 0\)$|transparent/.test(style.backgroundColor) ? root : style.backgroundColor;
  return [style.color, behind].map((colour) => {
    canvas.fillStyle = colour;
    canvas.fillRect(0, 0, 1, 1);
    return [...canvas.getImageData(0, 0, 1, 1).data.slice(0, 3)];
  });
}

/** Relative luminance, WCAG 2.2. */
function luminance(rgb) {
  const [r, g, b] = rgb.map((value) => {
    const share = value / 255;
    return share <= 0.04045 ? share / 12.92 : ((share + 0.055) / 1.055) ** 2.4;
  });
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
}

/** Contrast ratio, WCAG 2.2. */
function contrast(a, b) {
  const [dark, light] = [luminance(a), luminance(b)].sort((x, y) => x - y);
  return (light + 0.05) / (dark + 0.05);
}
