// HTTPS: what browsers demand before they open the microphone, and those who speak TLS otherwise.

import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { writeFile } from 'node:fs/promises';
import { request } from 'node:https';
import { networkInterfaces } from 'node:os';
import { connect } from 'node:tls';
import { promisify } from 'node:util';

import { chromiumThatTrusts, putCertificate } from '../harness/certificates.mjs';
import { Manifold } from '../harness/manifold.mjs';
import { scenario } from '../harness/world.mjs';
import { until } from '../harness/wait.mjs';

const run = promisify(execFile);

const OUTSIDE = {
  listen: ['[::]:0'],
  http: { https: '[::]:0' },
  auth: { allow_open_on_network: true },
  cameras: [{ id: 'cam-1', url: 'test://clock?width=320&height=180&fps=15&gop=15' }],
};

/** The addresses of this machine that others can open. */
function outsideAddresses() {
  const all = Object.values(networkInterfaces()).flat();
  return all.filter(({ internal, address }) => !internal && !address.startsWith('fe80')).map(({ address }) => address);
}

function port(address) {
  return Number(address.slice(address.lastIndexOf(':') + 1));
}

const bracketed = (address) => (address.includes(':') ? `[${address}]` : address);

scenario('a phone that installed the certificate has a microphone by HTTPS, and none by HTTP', async (world) => {
  const manifold = await world.manifold(OUTSIDE);
  const [host] = outsideAddresses();
  const plain = `http://${bracketed(host)}:${port(manifold.url)}/`;
  const answer = await fetch(`${plain}ca.crt`);
  assert.equal(answer.headers.get('content-type'), 'application/x-x509-ca-cert');
  const program = await chromiumThatTrusts(world, await answer.text());
  const browser = await world.browser({ program });

  const closed = await world.open(plain, { browser });
  assert.deepEqual(await closed.page.evaluate(microphone), { secure: false, devices: false });
  const told = await closed.page.evaluate(async () => (await fetch('/tls')).json());
  assert.deepEqual(told, { https_port: port(manifold.https), ca: '/ca.crt', mode: 'auto' });

  const secure = `https://${bracketed(host)}:${told.https_port}/`;
  const open = await world.open(`${secure}?open=cam-1`, { browser });
  const heard = await open.page.evaluate(microphone);
  assert.deepEqual(heard, { secure: true, devices: true, track: 'live' });
  await open.plays('cam-1');
  const hello = await open.page.evaluate(firstMessage, `wss://${bracketed(host)}:${told.https_port}/ws`);
  assert.equal(JSON.parse(hello).type, 'available_streams');

  const stranger = await world.browser();
  await assert.rejects(stranger.open(secure), /ERR_CERT_AUTHORITY_INVALID/);
});

/** In the page: what a page may know of microphones; the track is ended again. */
async function microphone() {
  const devices = navigator.mediaDevices !== undefined;
  if (!devices) return { secure: isSecureContext, devices };
  const [track] = (await navigator.mediaDevices.getUserMedia({ audio: true })).getTracks();
  const found = { secure: isSecureContext, devices, track: track.readyState };
  track.stop();
  return found;
}

/** In the page: what a WebSocket says first. */
function firstMessage(url) {
  return new Promise((resolve, reject) => {
    const socket = new WebSocket(url);
    socket.onmessage = ({ data }) => resolve(data);
    socket.onerror = () => reject(new Error('the WebSocket failed'));
  });
}

scenario('OpenSSL and curl trust every address and name by the certificate that a start before made', async (world) => {
  const manifold = await world.manifold(OUTSIDE);
  const { text: installed } = await manifold.call('GET', '/ca.crt');
  const file = world.file('ca.crt');
  await writeFile(file, installed);

  await manifold.restart();

  const at = port(manifold.https);
  const { stdout: name } = await run('hostname', []);
  const toHost = ['--resolve', `${name.trim()}:${at}:127.0.0.1`, '--resolve', `${name.trim()}.local:${at}:127.0.0.1`];
  const names = ['127.0.0.1', '::1', 'localhost', name.trim(), `${name.trim()}.local`, ...outsideAddresses()];
  for (const host of names) {
    const url = `https://${bracketed(host)}:${at}/health`;
    const { stdout } = await run('curl', ['--silent', '--show-error', '--cacert', file, ...toHost, url]);
    assert.equal(JSON.parse(stdout).status, 'healthy', host);
  }
  for (const [version, accepted] of [['-tls1_1', false], ['-tls1_2', true], ['-tls1_3', true]]) {
    const shake = ['s_client', '-connect', `127.0.0.1:${at}`, '-CAfile', file, '-verify_return_error', version];
    const done = run('openssl', [...shake, '-alpn', 'h2,http/1.1', '-brief'], { input: '' });
    done.child.stdin.end();
    const result = await done.then(({ stderr }) => stderr, () => undefined);
    assert.equal(result !== undefined, accepted, version);
    if (accepted) assert.match(result, /Verification: OK/);
  }
  const plain = await run('curl', ['--silent', `http://127.0.0.1:${at}/`]);
  assert.match(plain.stdout, /^This port speaks HTTPS/);
  assert.ok(!manifold.logs.includes('PRIVATE KEY'));
});

scenario('new certificate files are used for the next connection while the last one lives on', async (world) => {
  const files = { certificate: world.file('cert.pem'), key: world.file('key.pem') };
  await putCertificate(files, 'first.example');
  const manifold = await Manifold.start(world, { http: { https: '127.0.0.1:0' } }, {
    SSL_CERT_FILE: files.certificate,
    SSL_KEY_FILE: files.key,
  });
  const told = await manifold.get('/tls');
  assert.deepEqual(told, { https_port: port(manifold.https), ca: null, mode: 'files' });
  assert.equal((await manifold.call('GET', '/ca.crt')).status, 404);
  const old = await connection(world, told.https_port);
  assert.equal(old.name, 'first.example');

  await putCertificate(files, 'second.example');

  await until('a new connection has the new certificate', async () => {
    const next = await connection(world, told.https_port);
    return next.name === 'second.example';
  });
  assert.equal(await old.ask('/health'), 200);

  await writeFile(files.key, 'no key');
  const sentence = /key\.pem \(http\.key\) holds no private key in PEM/;
  await manifold.child.says(sentence);
  assert.equal((await connection(world, told.https_port)).name, 'second.example');
  await putCertificate(files, 'third.example');
  await until('right files end the trouble', async () => (await connection(world, told.https_port)).name === 'third.example');
  assert.equal(manifold.logs.match(new RegExp(sentence, 'g')).length, 1, 'it is said once');
  assert.equal(await old.ask('/health'), 200);
});

/** A connection by TLS to `port` that is kept: the name in its certificate, and requests on it alone. */
async function connection(world, port) {
  const socket = connect({ port, host: '127.0.0.1', rejectUnauthorized: false });
  world.after(() => socket.destroy());
  await new Promise((resolve, reject) => socket.once('secureConnect', resolve).once('error', reject));
  const ask = (path) =>
    new Promise((resolve, reject) => {
      const sent = request({ path, port, createConnection: () => socket, headers: { connection: 'keep-alive' } });
      sent.on('response', (response) => response.resume().on('end', () => resolve(response.statusCode)));
      sent.on('error', reject).end();
    });
  return { name: socket.getPeerCertificate().subject.CN, ask };
}

scenario('a certificate that cannot be used stops the start with one line', async (world) => {
  const files = { certificate: world.file('cert.pem'), key: world.file('key.pem') };
  await putCertificate(files, 'a.example');
  await writeFile(files.certificate, 'nothing');

  const start = world.manifold({ http: { https: '127.0.0.1:0', ...files } });

  await assert.rejects(start, /cert\.pem \(http\.certificate\) holds no certificate in PEM/);
});
