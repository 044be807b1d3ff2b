// Chromium, one process a browser, so that one can be killed; and the page of manifold in it.

import { chromium } from 'playwright-core';

import { part } from './parts.mjs';
import { decodeStrip, readStrip } from './strip.mjs';
import { until } from './wait.mjs';

const FLAGS = [
  '--no-sandbox',
  '--disable-gpu',
  '--disable-quic',
  '--no-first-run',
  '--disable-background-networking',
  '--disable-component-update',
  '--disable-sync',
  '--autoplay-policy=no-user-gesture-required',
];

/** Which of a picture's `inbound-rtp` statistics tell why it does not go on. */
const TOLD = /^(codec|frames(Received|Decoded|Dropped)|keyFramesDecoded|freezeCount|(pli|nack)Count|packets(Received|Lost))$/;

/**
 * Until nothing is left of a page that was closed: the promise of the contract. It says so itself; a busy browser,
 * though, gives its pages half a second for their goodbyes, and then the server sees its WebSocket end.
 */
export const LEFT = { within: 5_000 };

/** A browser of its own process. */
export class Browser {
  /**
   * @param {{ program?: string, microphone?: string, flags?: string[] }} [options] `program`: what starts
   *   Chromium, if not itself; `microphone`: a WAV file that is its microphone, allowed to every page
   */
  static async start({ program = part('chromium'), microphone, flags = [] } = {}) {
    const browser = new Browser();
    browser.server = await chromium.launchServer({
      executablePath: program,
      headless: true,
      args: [...FLAGS, ...(microphone === undefined ? [] : fakeMicrophone(microphone)), ...flags],
      ignoreDefaultArgs: ['--mute-audio'],
    });
    browser.client = await chromium.connect(browser.server.wsEndpoint());
    return browser;
  }

  /**
   * Opens a page; errors that it reports are kept in `errors`.
   *
   * @param {string} url
   * @param {object} [options] of playwright's `newContext`: `colorScheme`, `viewport` …
   */
  async open(url, options = {}) {
    const context = await this.client.newContext({ viewport: { width: 1280, height: 800 }, ...options });
    const page = await context.newPage();
    await page.addInitScript(recordPeers);
    await page.addInitScript(`window.decodeStrip = ${decodeStrip}`);
    const errors = [];
    page.on('pageerror', (error) => errors.push(String(error)));
    await page.goto(url);
    return new Viewer(page, context, errors);
  }

  /** Ends the browser as a person does, by closing it. */
  async close() {
    await this.client.close().catch(() => {});
    await this.server.close();
  }

  /** Ends all its processes with SIGKILL: no page hears of it. */
  async kill() {
    await this.server.kill();
  }
}

/** A microphone that plays a file over and over, and a person who allows it. */
function fakeMicrophone(file) {
  return [
    '--use-fake-device-for-media-stream',
    '--use-fake-ui-for-media-stream',
    `--use-file-for-fake-audio-capture=${file}`,
  ];
}

/** A page of manifold. */
export class Viewer {
  constructor(page, context, errors) {
    this.page = page;
    this.context = context;
    this.errors = errors;
  }

  /** What the page itself tells of its tiles. */
  tiles() {
    return this.page.evaluate(() => window.manifold.tiles());
  }

  async tile(camera) {
    const tiles = await this.tiles();
    return tiles.find((tile) => tile.camera === camera);
  }

  /** Waits until the camera's tile plays: decoded frames rise from one look to the next. */
  async plays(camera, within = 20_000) {
    let before;
    let tile;
    await until(
      `${camera} plays`,
      async () => {
        tile = await this.tile(camera);
        const rises = before !== undefined && tile?.framesDecoded > before;
        before = tile?.framesDecoded;
        return tile?.state === 'playing' && rises;
      },
      { within, every: 200, show: () => tile },
    );
    return tile;
  }

  /** The strip in the camera's picture, read from the pixels; `null` where there is none. */
  strip(camera) {
    return this.page.evaluate(readStrip, `[data-camera="${camera}"] video`);
  }

  /** Waits for a strip that reads well. */
  stripOf(camera, within = 10_000) {
    return until(`the strip of ${camera} can be read`, () => this.strip(camera), { within });
  }

  /** Waits until the frame number in the pixels has risen by `frames`; the two strips. */
  async advances(camera, frames = 10, within = 10_000) {
    const first = await this.stripOf(camera, within);
    let last = first;
    await until(
      `${camera} advances by ${frames} frames`,
      async () => {
        last = (await this.strip(camera)) ?? last;
        return last.frame >= first.frame + frames;
      },
      { within, show: () => ({ first, last }) },
    );
    return { first, last };
  }

  /**
   * Waits until pictures are shown that were taken after `since` (ms since the Unix epoch), and go on:
   * a source that starts anew counts its own from 0.
   */
  async showsWhatIsTakenAfter(since, camera, within = 15_000) {
    let strip;
    const isNew = async () => {
      strip = await this.strip(camera);
      return strip?.capturedMs > since;
    };
    await until(`${camera} shows what is new`, isNew, { within, show: () => strip });
    await this.advances(camera);
  }

  /** Has the number of every picture noted that comes from here on, see `missed`. */
  async notesPictures(camera) {
    const { video } = await this.inbound(camera);
    await this.page.evaluate(notePictures, { selector: `[data-camera="${camera}"] video`, dropped: video.framesDropped });
  }

  /**
   * How many pictures are missing between the first that was noted and the last. Those are left out
   * that the browser says it dropped itself, having had no time for them.
   */
  async missed(camera) {
    const find = (selector) => document.querySelector(selector).testNoted;
    const { numbers, dropped } = await this.page.evaluate(find, `[data-camera="${camera}"] video`);
    const { video } = await this.inbound(camera);
    const seen = new Set(numbers.filter((number) => number !== null));
    const span = Math.max(...seen) - Math.min(...seen) + 1;
    return Math.max(0, span - seen.size - (video.framesDropped - dropped));
  }

  /** Waits until the loudest tone of the camera's sound lies within `tolerance` Hz of `hertz`. */
  hears(camera, hertz, options) {
    return this.hearsAt(`[data-camera="${camera}"] video`, hertz, options);
  }

  /** The same of any media element; `>>>` goes into a shadow root. */
  async hearsAt(selector, hertz, { tolerance = 12, within = 15_000 } = {}) {
    let tone;
    await until(
      `${selector} sounds at ${hertz} Hz`,
      async () => {
        tone = await this.page.evaluate(loudestTone, selector);
        return tone.level > -60 && Math.abs(tone.hertz - hertz) <= tolerance;
      },
      { within, every: 200, show: () => tone },
    );
    return tone;
  }

  /** The `inbound-rtp` statistics of the camera's peer connection, by kind. */
  inbound(camera) {
    return this.page.evaluate(inboundOf, `[data-camera="${camera}"] video`);
  }

  /** Of every tile, what its connection received: for messages of failure. */
  async figures() {
    const cameras = await this.page.$$eval('[data-camera]', (tiles) => tiles.map((tile) => tile.dataset.camera));
    const told = cameras.map(async (camera) => {
      const { video = {} } = await this.inbound(camera);
      return [camera, Object.fromEntries(Object.entries(video).filter(([name]) => TOLD.test(name)))];
    });
    return Object.fromEntries(await Promise.all(told));
  }

  /**
   * Watches by WHEP alone, without the page's own code. The picture stands as a tile of that name, so
   * that `strip`, `hears` and `inbound` find it.
   *
   * @param {string} name
   * @param {{ whep_url: string, token: string }} reservation
   * @param {{ configuration?: RTCConfiguration, candidates?: string, asksForKeyframes?: boolean }} [options]
   *   `candidates`: of the answer's only those with this word in them; `configuration` may say
   *   `iceServers: 'link'` for those that an OPTIONS request is told; `asksForKeyframes`: whether
   *   `requestKeyframe` will be called
   */
  watch(name, { whep_url: url, token }, options = {}) {
    const { configuration = {}, candidates = '', asksForKeyframes = false } = options;
    const wanted = { name, url, token, configuration, candidates, asksForKeyframes };
    return this.page.evaluate(watchByWhep, wanted);
  }

  /** Waits until the camera comes over a pair of candidates that fits; the pair. */
  async comesBy(camera, what, fits, within = 15_000) {
    let pair;
    await until(
      `${camera} comes by ${what}`,
      async () => {
        pair = (await this.inbound(camera)).pair;
        return pair !== undefined && fits(pair);
      },
      { within, show: () => pair },
    );
    return pair;
  }

  /**
   * Publishes the picture of a tile by WHIP, encoded anew.
   *
   * @param {string} name of the tile
   * @param {string} url of the WHIP endpoint, with the stream key
   * @param {'H264' | 'VP8' | 'VP9' | 'AV1'} codec the only one that is offered
   */
  publish(name, url, codec) {
    return this.page.evaluate(publishByWhip, { selector: `[data-camera="${name}"] video`, url, codec });
  }

  /** Has a browser that watches with `asksForKeyframes` ask for one (PLI), as it does after a loss. */
  requestKeyframe(name) {
    return this.page.evaluate(requestKeyframe, `[data-camera="${name}"] video`);
  }

  async close() {
    await this.context.close();
  }
}

/** In the page: one WHIP session that sends what a video element shows. */
async function publishByWhip({ selector, url, codec }) {
  const [track] = document.querySelector(selector).captureStream().getVideoTracks();
  const peer = new RTCPeerConnection();
  const transceiver = peer.addTransceiver(track, { direction: 'sendonly' });
  const fits = ({ mimeType, sdpFmtpLine = '' }) =>
    mimeType === `video/${codec}` && !/profile-id=[1-9]|profile=[1-9]|packetization-mode=0/.test(sdpFmtpLine);
  transceiver.setCodecPreferences(RTCRtpSender.getCapabilities('video').codecs.filter(fits));
  await peer.setLocalDescription();
  const headers = { 'content-type': 'application/sdp' };
  const answer = await fetch(url, { method: 'POST', headers, body: peer.localDescription.sdp });
  const sdp = await answer.text();
  if (answer.status !== 201) throw new Error(`WHIP POST: ${answer.status} ${sdp}`);
  await peer.setRemoteDescription({ type: 'answer', sdp });
}

/** In the page: reads the strip of each picture of a track, also of those that are never shown. */
function notePictures({ selector, dropped }) {
  const video = document.querySelector(selector);
  const [track] = video.srcObject.getVideoTracks();
  const numbers = [];
  video.testNoted = { numbers, dropped };
  // 20 s of pictures wait where the page is behind.
  const pictures = new MediaStreamTrackProcessor({ track, maxBufferSize: 300 }).readable;
  const strip = new WritableStream({
    write(picture) {
      const { displayWidth: width } = picture;
      const canvas = new OffscreenCanvas(width, Math.ceil(width / 24));
      const context = canvas.getContext('2d', { willReadFrequently: true });
      context.drawImage(picture, 0, 0);
      picture.close();
      const { data } = context.getImageData(0, 0, canvas.width, canvas.height);
      const read = window.decodeStrip(width, (x, y) => data[(y * canvas.width + x) * 4 + 1]);
      numbers.push(read && read.frame);
    },
  });
  pictures.pipeTo(strip);
}

/** In the page: the receiver was made fit for it in `watchByWhep`. */
function requestKeyframe(selector) {
  const tracks = document.querySelector(selector).srcObject.getVideoTracks();
  const receivers = window.testPeers.flatMap((peer) => peer.getReceivers());
  receivers.find(({ track }) => tracks.includes(track)).testWorker.postMessage('keyframe');
}

/** In the page: one WHEP session whose picture goes to a new video element. */
async function watchByWhep({ name, url, token, configuration, candidates, asksForKeyframes }) {
  const tile = document.createElement('div');
  tile.dataset.camera = name;
  const video = Object.assign(document.createElement('video'), { muted: true, autoplay: true });
  tile.append(video);
  document.body.append(tile);
  if (configuration.iceServers === 'link') configuration.iceServers = await iceServers();
  const peer = new RTCPeerConnection(configuration);
  const stream = (video.srcObject = new MediaStream());
  peer.ontrack = ({ track }) => stream.addTrack(track);
  const { receiver } = peer.addTransceiver('video', { direction: 'recvonly' });
  peer.addTransceiver('audio', { direction: 'recvonly' });
  if (asksForKeyframes) addTransform();
  await peer.setLocalDescription();
  const headers = { authorization: `Bearer ${token}`, 'content-type': 'application/sdp' };
  const answer = await fetch(url, { method: 'POST', headers, body: peer.localDescription.sdp });
  const sdp = await answer.text();
  if (answer.status !== 201) throw new Error(`WHEP POST: ${answer.status} ${sdp}`);
  const isWanted = (line) => !line.startsWith('a=candidate:') || line.includes(candidates);
  const lines = sdp.split('\r\n').filter(isWanted);
  await peer.setRemoteDescription({ type: 'answer', sdp: lines.join('\r\n') });
  const location = new URL(answer.headers.get('location'), url).href;
  return { sdp, location, etag: answer.headers.get('etag') };

  // Only an encoded transform may ask for a keyframe; it passes all else through. One that is put in
  // while pictures come makes the browser begin anew, and ask for keyframes by itself.
  function addTransform() {
    const transform = `onrtctransform = ({ transformer }) => {
      transformer.readable.pipeTo(transformer.writable);
      onmessage = () => transformer.sendKeyFrameRequest();
    }`;
    receiver.testWorker = new Worker(URL.createObjectURL(new Blob([transform])));
    receiver.transform = new RTCRtpScriptTransform(receiver.testWorker);
  }

  async function iceServers() {
    const told = await fetch(url, { method: 'OPTIONS', headers: { authorization: `Bearer ${token}` } });
    const links = (told.headers.get('link') ?? '').matchAll(
      /<([^>]+)>; rel="ice-server"(?:; username="([^"]*)"; credential="([^"]*)")?/g,
    );
    return [...links].map(([, urls, username, credential]) => ({ urls, username, credential }));
  }
}

/** In the page, before its scripts: keeps every peer connection within reach. */
function recordPeers() {
  const Native = window.RTCPeerConnection;
  window.testPeers = [];
  window.RTCPeerConnection = class extends Native {
    constructor(...args) {
      super(...args);
      window.testPeers.push(this);
    }
  };
}

/** In the page: the peak of the spectrum of a media element's sound, in Hz and dBFS. */
async function loudestTone(selector) {
  const [first, ...inner] = selector.split('>>>');
  const element = inner.reduce((found, part) => found?.shadowRoot?.querySelector(part), document.querySelector(first));
  const track = element?.srcObject?.getAudioTracks()[0];
  if (!track) return { hertz: 0, level: -Infinity, why: 'no audio track' };
  window.testAnalysers ??= new Map();
  let analyser = window.testAnalysers.get(track.id);
  if (!analyser) {
    const context = new AudioContext();
    await context.resume();
    analyser = context.createAnalyser();
    analyser.fftSize = 8192;
    context.createMediaStreamSource(new MediaStream([track])).connect(analyser);
    window.testAnalysers.set(track.id, analyser);
  }
  const spectrum = new Float32Array(analyser.frequencyBinCount);
  analyser.getFloatFrequencyData(spectrum);
  const peak = spectrum.indexOf(Math.max(...spectrum));
  return { hertz: (peak * analyser.context.sampleRate) / analyser.fftSize, level: spectrum[peak] ?? -Infinity };
}

/**
 * In the page, of the connection that feeds a video element: `inbound-rtp` by kind, what the sender
 * reports told by kind, the transport, and its pair of candidates.
 */
async function inboundOf(selector) {
  const tracks = document.querySelector(selector)?.srcObject?.getTracks() ?? [];
  const peer = window.testPeers.find((peer) =>
    peer.getReceivers().some((receiver) => tracks.includes(receiver.track)),
  );
  const found = { remote: {} };
  const stats = (await peer?.getStats()) ?? [];
  stats.forEach((row) => {
    if (row.type === 'inbound-rtp') found[row.kind] = { ...row, codec: stats.get(row.codecId)?.mimeType };
    if (row.type === 'remote-outbound-rtp') found.remote[row.kind] = { ...row };
    if (row.type === 'transport') found.transport = { ...row };
  });
  const pair = stats.get?.(found.transport?.selectedCandidatePairId);
  if (pair) {
    const [local, remote] = [stats.get(pair.localCandidateId), stats.get(pair.remoteCandidateId)];
    found.pair = { local: { ...local }, remote: { ...remote }, protocol: local?.protocol };
  }
  return found;
}
