// How long a browser waits for its first picture: 30 joins of a camera that is already live.
//
// The camera is a real RTSP server, 640x360 at 15 frames a second with a keyframe every 2 s. The joins
// are spread evenly over that interval, so that waiting for a keyframe would show. Measured in the page,
// from the WHEP POST: to the first decoded frame, which is the last keyframe, and to the first one that
// is live, read from the strip in its pixels. One join before them warms the browser's decoder up.
// Prints one line of JSON.

import { World } from '../harness/world.mjs';
import { pause } from '../harness/wait.mjs';

const JOINS = 30;
const KEYFRAME_INTERVAL_MS = 2_000;

const world = new World('bench-join');
try {
  console.log(JSON.stringify(await measure()));
} finally {
  await world.end();
}

async function measure() {
  const camera = await world.camera({ size: '640x360', fps: 15, gop: 30 });
  const manifold = await world.manifold({
    log: { level: 'info' },
    cameras: [{ id: 'cam-1', url: camera.url('/h264'), on_demand: false }],
  });
  await manifold.cameraIs('cam-1', 'live');
  const browser = await world.browser();
  const { page } = await world.open(manifold.url, { browser });

  await joinOnce(manifold, page);
  const joins = [];
  const start = Date.now();
  for (let i = 0; i < JOINS; i++) {
    const step = KEYFRAME_INTERVAL_MS + KEYFRAME_INTERVAL_MS / JOINS;
    await pause(Math.max(0, start + i * step - Date.now()));
    joins.push(await joinOnce(manifold, page));
  }
  const sorted = (key) => joins.map((one) => Math.round(one[key] * 10) / 10).sort((a, b) => a - b);
  return {
    joins: JOINS,
    keyframe_interval_ms: KEYFRAME_INTERVAL_MS,
    answered_ms: sorted('answered'),
    connected_ms: sorted('connected'),
    first_frame_ms: sorted('firstFrame'),
    live_ms: sorted('live'),
  };
}

async function joinOnce(manifold, page) {
  const { status, json, text } = await manifold.reserve('cam-1', 'bench');
  if (status !== 200) throw new Error(`reserve: ${status} ${text}`);
  return page.evaluate(watchOnce, { url: `/whep/cam-1`, token: json.token });
}

/** In the page: one WHEP session, closed after its first live frame; milliseconds since the POST. */
async function watchOnce({ url, token }) {
  // Live: what was captured at most this long ago. The way from camera to pixels takes some 50 ms.
  const LIVE_MS = 150;
  const peer = new RTCPeerConnection();
  peer.addTransceiver('video', { direction: 'recvonly' });
  peer.addTransceiver('audio', { direction: 'recvonly' });
  const watched = new Promise((resolve, reject) => {
    peer.ontrack = ({ track }) => {
      if (track.kind === 'video') readUntilLive(track).then(resolve, reject);
    };
    setTimeout(() => reject(new Error('no live frame in 10 s')), 10_000);
  });
  const connected = new Promise((resolve) => {
    peer.onconnectionstatechange = () => peer.connectionState === 'connected' && resolve(performance.now());
  });
  await peer.setLocalDescription();

  const headers = { authorization: `Bearer ${token}`, 'content-type': 'application/sdp' };
  const posted = performance.now();
  const answer = await fetch(url, { method: 'POST', headers, body: peer.localDescription.sdp });
  if (answer.status !== 201) throw new Error(`WHEP POST: ${answer.status} ${await answer.text()}`);
  const sdp = await answer.text();
  const answered = performance.now();
  await peer.setRemoteDescription({ type: 'answer', sdp });
  const { firstFrame, live } = await watched;
  await fetch(answer.headers.get('location'), { method: 'DELETE', headers });
  peer.close();
  return {
    answered: answered - posted,
    connected: (await connected) - posted,
    firstFrame: firstFrame - posted,
    live: live - posted,
  };

  /** When the first decoded frame came, and the first live one. */
  async function readUntilLive(track) {
    const reader = new MediaStreamTrackProcessor({ track }).readable.getReader();
    let firstFrame;
    for (;;) {
      const { value: frame } = await reader.read();
      const at = performance.now();
      firstFrame ??= at;
      const capturedMs = await captureTime(frame);
      frame.close();
      if (performance.timeOrigin + at - capturedMs > LIVE_MS) continue;
      await reader.cancel();
      return { firstFrame, live: at };
    }
  }

  async function captureTime(frame) {
    const pixels = new Uint8Array(frame.allocationSize());
    // The luma plane comes first in every format that decoders put out.
    const [{ offset, stride }] = await frame.copyTo(pixels);
    const strip = window.decodeStrip(frame.codedWidth, (x, y) => pixels[offset + y * stride + x]);
    return strip?.capturedMs ?? 0;
  }
}
