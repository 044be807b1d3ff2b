// From mouth to ear in Chromium: clicks into one peer connection, the same clicks out of another one, with
// the server between. Both ends share one clock, that of an AudioContext.
//
// What is measured is all of it: 20 ms or 10 ms of packet, Opus, the relay, the receiver's jitter buffer and
// the way out of WebRTC into WebAudio. Sound cards are not in it. Prints one line of JSON.

import { CardSite } from '../harness/voice.mjs';
import { until } from '../harness/wait.mjs';
import { World } from '../harness/world.mjs';
import { benchmark, figure, quantile } from './figures.mjs';

const CLICKS = 60;
const MEDIAN_MS_MAX = 66;

await benchmark(new World('bench-voice-latency'), async (world) => {
  const manifold = await world.manifold({ log: { level: 'warn' } });
  const site = await CardSite.start(world);
  const { page } = await site.page(await world.browser());
  await page.evaluate(clickThrough, `${manifold.url.replace('http', 'ws')}/ws`);
  let delays = [];
  await until(
    `${CLICKS} clicks came through`,
    async () => {
      delays = await page.evaluate(() => window.delays);
      return delays.length >= CLICKS;
    },
    { within: 90_000, every: 500, show: () => delays.length },
  );
  // The jitter buffer begins wide and settles within the first seconds.
  const settled = delays.slice(-CLICKS + 10);
  return {
    delays_ms: delays.map((delay) => Math.round(delay * 10) / 10),
    figures: [
      figure('voice, mouth to ear in Chromium, median', 'ms', quantile(settled, 0.5), MEDIAN_MS_MAX),
      figure('the same, p95', 'ms', quantile(settled, 0.95)),
    ],
  };
});

/** In the page: a click each half second into `window.delays`, as it comes out. */
async function clickThrough(url) {
  const CLICK_S = 0.5;
  const context = new AudioContext({ latencyHint: 'interactive', sampleRate: 48_000 });
  await context.resume();
  const detector = `
    registerProcessor('onset', class extends AudioWorkletProcessor {
      process([[samples]]) {
        const index = samples ? samples.findIndex((sample) => Math.abs(sample) > 0.1) : -1;
        if (index >= 0) this.port.postMessage(currentTime + index / sampleRate);
        return true;
      }
    })`;
  await context.audioWorklet.addModule(URL.createObjectURL(new Blob([detector], { type: 'text/javascript' })));

  const message = (socket, type) =>
    new Promise((told) => {
      const hear = ({ data }) => {
        const said = JSON.parse(data);
        if (said.type !== type) return;
        socket.removeEventListener('message', hear);
        told(said);
      };
      socket.addEventListener('message', hear);
    });
  const open = async () => {
    const socket = new WebSocket(url);
    await new Promise((opened) => (socket.onopen = opened));
    return socket;
  };

  const speaks = await open();
  const ready = message(speaks, 'sender_ready');
  speaks.send(JSON.stringify({ type: 'start_sending' }));
  await ready;
  const mouth = new MediaStreamAudioDestinationNode(context, { channelCount: 1 });
  // A microphone is never without samples; a destination without a source is.
  const room = new ConstantSourceNode(context, { offset: 0 });
  room.connect(mouth);
  room.start();
  const out = new RTCPeerConnection({ iceServers: [] });
  out.addTrack(mouth.stream.getAudioTracks()[0], mouth.stream);
  await out.setLocalDescription();
  const answered = message(speaks, 'webrtc_answer');
  speaks.send(JSON.stringify({ type: 'webrtc_offer', offer: out.localDescription.toJSON() }));
  await out.setRemoteDescription((await answered).answer);

  const hears = await open();
  const listen = async () => {
    const offered = message(hears, 'webrtc_offer');
    hears.send(JSON.stringify({ type: 'start_receiving' }));
    return (await offered).offer;
  };
  const into = new RTCPeerConnection({ iceServers: [] });
  into.ontrack = ({ streams: [stream] }) => {
    const element = new Audio();
    element.muted = true;
    element.srcObject = stream;
    element.play();
    window.element = element;
    const onset = new AudioWorkletNode(context, 'onset');
    onset.port.onmessage = ({ data }) => heard(data);
    new MediaStreamAudioSourceNode(context, { mediaStream: stream }).connect(onset);
    // A node that leads nowhere is not run.
    onset.connect(new GainNode(context, { gain: 0 })).connect(context.destination);
  };
  await until(() => out.connectionState === 'connected');
  await into.setRemoteDescription(await listen());
  await into.setLocalDescription();
  hears.send(JSON.stringify({ type: 'webrtc_answer', answer: into.localDescription.toJSON() }));
  await until(() => into.connectionState === 'connected');

  window.delays = [];
  let clickedAt;
  const burst = new AudioBuffer({ length: 480, sampleRate: 48_000 });
  // 10 ms of a tone: a codec of speech keeps that, and makes little of a single sample.
  burst.copyToChannel(Float32Array.from({ length: 480 }, (_, i) => 0.9 * Math.sin(i * 0.26)), 0);
  const click = () => {
    clickedAt = context.currentTime + 0.02;
    const source = new AudioBufferSourceNode(context, { buffer: burst });
    source.connect(mouth);
    source.start(clickedAt);
  };
  const heard = (at) => {
    if (clickedAt === undefined) return;
    window.delays.push((at - clickedAt) * 1_000);
    clickedAt = undefined;
  };
  click();
  // Not in step with packets of 10 or 20 ms.
  setInterval(click, CLICK_S * 1_000 + 7);

  function until(probe) {
    return new Promise((settled) => {
      const look = () => (probe() ? settled() : setTimeout(look, 10));
      look();
    });
  }
}
