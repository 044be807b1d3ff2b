// The talk page, as a person uses it.

import { writeTone } from './tone.mjs';
import { until } from './wait.mjs';

const AUDIO = 'audio[data-voice-out]';
/** Filters that are made for speech take a pure tone away. */
const NO_FILTERS = { echo_cancellation: false, noise_suppression: false, auto_gain_control: false };

/** Settings under which a tone passes as it is. */
export const TONES = { voice: {}, 'voice.audio': NO_FILTERS };

/** A browser whose microphone is a tone. */
export async function talkingBrowser(world, hertz) {
  return world.browser({ microphone: await writeTone(world.file(`tone-${hertz}.wav`), hertz) });
}

/** An open talk page. */
export class TalkPage {
  /** @param {object} [options] of `World.open` */
  static async open(world, url, options = {}) {
    const viewer = await world.open(new URL('/talk', url).href, options);
    return new TalkPage(viewer);
  }

  constructor(viewer) {
    this.viewer = viewer;
    this.page = viewer.page;
  }

  /** What the page itself tells. */
  report() {
    return this.page.evaluate(() => window.manifold?.talk?.());
  }

  /** Waits until the report has these values. */
  async is(wanted, within = 15_000) {
    let report;
    await until(
      `the talk page has ${JSON.stringify(wanted)}`,
      async () => {
        report = await this.report();
        return report && Object.entries(wanted).every(([key, value]) => report[key] === value);
      },
      { within, show: () => report },
    );
    return report;
  }

  /** Holds Space down until `release`. */
  async hold() {
    await this.is({ connection: 'open' });
    await this.page.keyboard.down('Space');
    await this.is({ talking: 'on-air' });
    const { ownStreamId } = await this.report();
    return ownStreamId;
  }

  async release() {
    await this.page.keyboard.up('Space');
    await this.is({ talking: 'idle' });
  }

  hears(hertz, options) {
    return this.viewer.hearsAt(AUDIO, hertz, options);
  }

  /** Chooses whom to hear: a stream's id, `newest` or `nobody`. */
  choose(voice) {
    return this.page.locator(`[data-voice="${voice}"] input`).check();
  }

  async close() {
    await this.viewer.close();
  }
}
