// Janus as a WHEP server, to compare with: its streaming plugin behind a shim.
//
// The plugin offers, and WHEP's viewers offer as well. The shim makes an answer for each out of what the
// other one offered: Janus is an ICE-lite agent and DTLS server then, as Manifold is. RTP comes in by UDP.

import { mkdir, writeFile } from 'node:fs/promises';
import { createServer } from 'node:http';
import { join } from 'node:path';

import { Child } from '../harness/process.mjs';
import { until } from '../harness/wait.mjs';
import { freePort } from './ports.mjs';

const PLUGIN = 'janus.plugin.streaming';
const MOUNT = 1;

/** Starts Janus and the shim; what takes part in the comparison. */
export async function startJanus(world) {
  const [api, rtp] = [await freePort('tcp'), await freePort('udp')];
  const folder = world.file('janus');
  await mkdir(folder, { recursive: true });
  for (const [name, text] of Object.entries(settings(api, rtp))) await writeFile(join(folder, name), text);
  const child = new Child('janus', 'janus', ['--configs-folder', folder, '--debug-level', '2'], {
    log: world.file('janus.log'),
  });
  world.own(child);
  const base = `http://127.0.0.1:${api}/janus`;
  await until('Janus answers', async () => (await fetch(`${base}/info`)).ok, { show: () => child.tail(5) });
  const url = await shim(world, base);
  return { name: 'Janus', pid: child.pid, rtp, whep: `${url}/whep`, stop: () => child.stop() };
}

/** The plugin's payload type: the tool's own for H.264, constrained baseline, packetization-mode 1. */
export const PAYLOAD_TYPE = 108;

function settings(api, rtp) {
  return {
    'janus.jcfg': `
general: {
  protected_folders = []
  session_timeout = 0
  admin_secret = "unused"
}
media: { rtp_port_range = "20000-30000" }
nat: {
  ice_lite = true
  ice_enforce_list = "lo"
  ice_ignore_list = "vmnet"
}
plugins: {
  disable = "libjanus_audiobridge.so,libjanus_echotest.so,libjanus_lua.so,libjanus_duktape.so,libjanus_nosip.so,libjanus_recordplay.so,libjanus_sip.so,libjanus_textroom.so,libjanus_videocall.so,libjanus_videoroom.so,libjanus_voicemail.so"
}
transports: { disable = "libjanus_websockets.so,libjanus_pfunix.so,libjanus_rabbitmq.so,libjanus_mqtt.so,libjanus_nanomsg.so" }
events: { broadcast = false }
`,
    'janus.transport.http.jcfg': `
general: { json = "plain", base_path = "/janus", http = true, port = ${api}, ip = "127.0.0.1", https = false }
admin: { admin_http = false }
`,
    'janus.plugin.streaming.jcfg': `
bench: {
  type = "rtp"
  id = ${MOUNT}
  description = "bench"
  video = true
  videoport = ${rtp}
  videopt = ${PAYLOAD_TYPE}
  videocodec = "h264"
  videofmtp = "profile-level-id=42e01f;packetization-mode=1"
  videobufferkf = true
}
`,
  };
}

/** Serves WHEP over Janus's own API; its URL. */
async function shim(world, base) {
  const sessions = new Map();
  const server = createServer(async (request, response) => {
    try {
      const chunks = [];
      for await (const chunk of request) chunks.push(chunk);
      if (request.method === 'DELETE') {
        await sessions.get(request.url)?.end();
        sessions.delete(request.url);
        return response.writeHead(200).end();
      }
      const session = new JanusSession(base);
      const answer = await session.watch(Buffer.concat(chunks).toString());
      const location = `/session/${session.id}`;
      sessions.set(location, session);
      response.writeHead(201, { 'content-type': 'application/sdp', location }).end(answer);
    } catch (error) {
      response.writeHead(502, { 'content-type': 'text/plain' }).end(`${error.message}`);
    }
  });
  await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
  world.after(() => server.close());
  return `http://127.0.0.1:${server.address().port}`;
}

class JanusSession {
  constructor(base) {
    this.base = base;
  }

  /** Brings a viewer's offer; the answer. */
  async watch(offer) {
    this.id = (await this.ask(this.base, { janus: 'create' })).data.id;
    const session = `${this.base}/${this.id}`;
    const handle = (await this.ask(session, { janus: 'attach', plugin: PLUGIN })).data.id;
    const message = (body, jsep) => this.ask(`${session}/${handle}`, { janus: 'message', body, jsep });
    await message({ request: 'watch', id: MOUNT });
    const theirs = await this.event(session);
    await message({ request: 'start' }, { type: 'answer', sdp: answerToJanus(theirs, offer) });
    return answerToViewer(theirs, offer);
  }

  async end() {
    await this.ask(`${this.base}/${this.id}`, { janus: 'destroy' });
  }

  async ask(url, body) {
    const transaction = Math.random().toString(36).slice(2);
    const response = await fetch(url, { method: 'POST', body: JSON.stringify({ transaction, ...body }) });
    const answer = await response.json();
    if (answer.janus === 'error') throw new Error(`Janus: ${answer.error.reason}`);
    return answer;
  }

  /** The next event with SDP in it. */
  async event(session) {
    for (;;) {
      const event = await (await fetch(`${session}?maxev=1`)).json();
      const error = event.plugindata?.data?.error;
      if (error) throw new Error(`Janus: ${error}`);
      if (event.jsep) return event.jsep.sdp;
    }
  }
}

const lines = (sdp) => sdp.split(/\r?\n/);
const first = (sdp, prefix) => lines(sdp).find((line) => line.startsWith(prefix));
const all = (sdp, prefix) => lines(sdp).filter((line) => line.startsWith(prefix));
/** ICE and DTLS of one side: what both answers are made of. */
const transport = (sdp) => [
  first(sdp, 'a=ice-ufrag:'),
  first(sdp, 'a=ice-pwd:'),
  first(sdp, 'a=fingerprint:'),
  ...new Set(all(sdp, 'a=candidate:')),
];

/** The viewer as one who answers Janus: it sends the ClientHello. */
function answerToJanus(theirs, offer) {
  const mid = first(theirs, 'a=mid:');
  return sdp([
    ...head(`a=group:BUNDLE ${mid.slice('a=mid:'.length)}`),
    ...section(),
    mid,
    'a=recvonly',
    'a=setup:active',
    ...transport(offer),
  ]);
}

/** Janus as one who answers the viewer. The offer's sound is refused: there is none. */
function answerToViewer(theirs, offer) {
  const sections = offer.split(/^m=/m).slice(1);
  const mids = sections.map((text) => first(text, 'a=mid:'));
  const isVideo = sections.map((text) => text.startsWith('video'));
  const taken = mids[isVideo.indexOf(true)].slice('a=mid:'.length);
  const parts = sections.flatMap((text, index) =>
    isVideo[index]
      ? [...section(), mids[index], 'a=sendonly', 'a=setup:passive', ...transport(theirs)]
      : [...refused(text), mids[index]],
  );
  return sdp([...head(`a=group:BUNDLE ${taken}`), 'a=ice-lite', ...parts]);
}

function head(group) {
  return ['v=0', 'o=- 1 1 IN IP4 127.0.0.1', 's=-', 't=0 0', group];
}

/** A section that is not taken. */
function refused(offered) {
  const [, , protocol, payloadType] = offered.split(/\s/);
  const map = first(offered, `a=rtpmap:${payloadType} `);
  return [`m=audio 0 ${protocol} ${payloadType}`, 'c=IN IP4 0.0.0.0', map, 'a=inactive'];
}

function section() {
  return [
    `m=video 9 UDP/TLS/RTP/SAVPF ${PAYLOAD_TYPE}`,
    'c=IN IP4 127.0.0.1',
    'a=rtcp-mux',
    `a=rtpmap:${PAYLOAD_TYPE} H264/90000`,
    `a=fmtp:${PAYLOAD_TYPE} level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=42e01f`,
    `a=rtcp-fb:${PAYLOAD_TYPE} nack`,
    `a=rtcp-fb:${PAYLOAD_TYPE} nack pli`,
  ];
}

function sdp(parts) {
  return `${parts.join('\r\n')}\r\n`;
}
