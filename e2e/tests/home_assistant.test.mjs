// The add-on for Home Assistant: that its files say what the Supervisor understands, and that its script
// starts the server as the options ask.

import assert from 'node:assert/strict';
import { mkdir, readFile, symlink, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { test } from 'node:test';

import { parse } from 'yaml';

import { freePort } from '../harness/camera.mjs';
import { part, repository } from '../harness/parts.mjs';
import { Child } from '../harness/process.mjs';
import { until } from '../harness/wait.mjs';
import { scenario } from '../harness/world.mjs';

const ADDON = join(repository, 'packaging/home-assistant/manifold');

// https://developers.home-assistant.io/docs/add-ons/configuration
const REQUIRED = ['name', 'version', 'slug', 'description', 'arch'];
const KNOWN = [
  ...REQUIRED,
  ...['machine', 'url', 'startup', 'webui', 'boot', 'ports', 'ports_description', 'host_network', 'host_ipc'],
  ...['host_dbus', 'host_pid', 'host_uts', 'devices', 'homeassistant', 'hassio_role', 'hassio_api'],
  ...['homeassistant_api', 'docker_api', 'privileged', 'full_access', 'apparmor', 'map', 'environment', 'audio'],
  ...['video', 'gpio', 'usb', 'uart', 'udev', 'devicetree', 'kernel_modules', 'stdin', 'legacy', 'options', 'schema'],
  ...['image', 'timeout', 'tmpfs', 'discovery', 'services', 'auth_api', 'ingress', 'ingress_port', 'ingress_entry'],
  ...['ingress_stream', 'panel_icon', 'panel_title', 'panel_admin', 'backup', 'backup_pre', 'backup_post'],
  ...['backup_exclude', 'advanced', 'stage', 'init', 'watchdog', 'realtime', 'journald', 'breaking_versions'],
];
const ARCHITECTURES = ['armhf', 'armv7', 'aarch64', 'amd64', 'i386'];
const FOLDERS = ['homeassistant_config', 'addon_config', 'ssl', 'addons', 'backup', 'share', 'media', 'all_addon_configs', 'data'];
const TYPE = /^(str|bool|int|float)(\((-?\d+)?,(-?\d+)?\))?\??$|^(email|url|password|port|device)\??$|^match\(.+\)\??$|^list\([^|)]+(\|[^|)]+)*\)\??$/;

const read = (file) => readFile(join(ADDON, file), 'utf8');
const yaml = async (file) => parse(await read(file));

test('config.yaml has the keys that the Supervisor knows, with values that it takes', async () => {
  const config = await yaml('config.yaml');
  for (const key of REQUIRED) assert.ok(config[key], `${key} is missing`);
  assert.deepEqual(Object.keys(config).filter((key) => !KNOWN.includes(key)), []);
  assert.match(config.slug, /^[-_.A-Za-z0-9]+$/);
  assert.deepEqual(config.arch.filter((arch) => !ARCHITECTURES.includes(arch)), []);
  assert.ok(['initialize', 'system', 'services', 'application', 'once'].includes(config.startup));
  assert.ok(['auto', 'manual'].includes(config.boot));
  for (const { type } of config.map) assert.ok(FOLDERS.includes(type), type);
  for (const [port, host] of Object.entries(config.ports)) {
    assert.match(port, /^\d+\/(tcp|udp)$/);
    assert.ok(host === null || (host > 0 && host < 65_536), port);
  }
  for (const url of [config.webui, config.watchdog]) {
    const [, port] = url.match(/^https?:\/\/\[HOST\]:\[PORT:(\d+)\]\//);
    assert.ok(`${port}/tcp` in config.ports, `${url}: no such port`);
  }
  assert.match(config.panel_icon, /^mdi:[a-z0-9-]+$/);
});

test('the version is the workspace’s', async () => {
  const [, version] = (await readFile(join(repository, 'Cargo.toml'), 'utf8')).match(/^version = "(.+)"$/m);
  assert.equal((await yaml('config.yaml')).version, version);
  assert.match(await read('CHANGELOG.md'), new RegExp(`^## ${version.replaceAll('.', '\\.')}$`, 'm'));
});

test('each option has a type, a default where one is needed, words for people, and an effect', async () => {
  const { options, schema, ports } = await yaml('config.yaml');
  const { configuration, network } = await yaml('translations/en.yaml');
  const script = await read('run.sh');
  for (const [name, type] of Object.entries(schema)) {
    assert.match(type, TYPE, name);
    assert.equal(name in options, !type.endsWith('?'), `${name}: a default is for what is not optional`);
    assert.ok(configuration[name]?.name && configuration[name].description, `${name}: no words`);
    assert.match(script, new RegExp(`option ${name}\\b`), `${name}: not read`);
  }
  assert.deepEqual(Object.keys(options).filter((name) => !(name in schema)), []);
  assert.deepEqual(Object.keys(configuration).sort(), Object.keys(schema).sort());
  assert.deepEqual(Object.keys(network).sort(), Object.keys(ports).sort());
});

test('each architecture has an image to build from, and the pictures have their sizes', async () => {
  const { arch } = await yaml('config.yaml');
  assert.deepEqual(Object.keys((await yaml('build.yaml')).build_from).sort(), [...arch].sort());
  assert.deepEqual(await sizeOf('icon.png'), [128, 128]);
  assert.deepEqual(await sizeOf('logo.png'), [250, 100]);
  assert.ok(parse(await readFile(join(ADDON, '../repository.yaml'), 'utf8')).name);
});

scenario('the script starts the server where the options say', async (world) => {
  const ports = { http_port: await freePort(), audio_port: await freePort(), media_port: await freePort(), https_port: await freePort() };
  const addon = await start(world, { log_level: 'debug', max_connections: 7, https: true, ...ports });
  const [http, audio] = [ports.http_port, ports.audio_port].map((port) => `http://127.0.0.1:${port}`);
  await until('it is healthy', async () => (await fetch(`${http}/health`)).ok, { show: () => addon.tail(5) });

  assert.equal((await fetch(`${http}/talk`)).status, 200);
  assert.deepEqual(await (await fetch(`${audio}/stream/status`)).json(), { active_streams: [] });
  assert.equal((await (await fetch(`${http}/voice/config`)).json()).max_connections, 7);
  assert.equal((await (await fetch(`${http}/tls`)).json()).https_port, ports.https_port);
  assert.equal((await fetch(`${http}/api/v1/cameras`)).status, 401, 'cameras are not handed out');
  assert.match(addon.output, new RegExp(`:${ports.media_port}\\b`));
});

scenario('with a file of one’s own the cameras are handed out, and the token is asked for', async (world) => {
  const ports = { http_port: await freePort(), audio_port: await freePort(), media_port: await freePort(), https_port: await freePort() };
  const settings = world.file('own.toml');
  await writeFile(settings, `[auth]\nallow_open_on_network = true\n[rtsp]\nlisten = ""\n`);
  const options = { log_level: 'info', max_connections: 50, https: false, token: 'a token & more', ...ports };
  const addon = await start(world, options, { SETTINGS_FILE: settings });
  const http = `http://127.0.0.1:${ports.http_port}`;
  await until('it is healthy', async () => (await fetch(`${http}/health`)).ok, { show: () => addon.tail(5) });

  assert.equal((await fetch(`${http}/api/v1/cameras`)).status, 200);
  assert.equal((await (await fetch(`${http}/voice/config`)).json()).token_required, true);
  assert.equal((await (await fetch(`${http}/tls`)).json()).https_port, null);
});

scenario('a token that would be read wrongly is refused', async (world) => {
  const addon = await start(world, { log_level: 'info', https: false, http_port: 1, audio_port: 1, media_port: 1, https_port: 1, max_connections: 1, token: 'quoted"token' });
  await addon.ended;
  assert.equal(addon.code, 2);
  assert.match(addon.output, /must not contain quotes or backslashes/);
});

/** Runs the add-on's script as its image does, with a folder of its own in place of `/data`. */
async function start(world, options, env = {}) {
  const bin = world.file('bin');
  await mkdir(bin);
  await symlink(part('manifold'), join(bin, 'manifold'));
  await writeFile(world.file('options.json'), JSON.stringify(options, null, 2));
  const addon = new Child('add-on', '/bin/sh', [join(ADDON, 'run.sh')], {
    log: world.file('addon.log'),
    cwd: world.folder,
    env: {
      PATH: `${bin}:${process.env.PATH}`,
      OPTIONS_FILE: world.file('options.json'),
      SETTINGS_FILE: world.file('none.toml'),
      DATA_DIR: world.file('data'),
      ...env,
    },
  });
  world.own(addon);
  return addon;
}

/** Width and height of a PNG, from its first chunk. */
async function sizeOf(file) {
  const bytes = await readFile(join(ADDON, file));
  assert.equal(bytes.toString('latin1', 1, 4), 'PNG');
  return [bytes.readUInt32BE(16), bytes.readUInt32BE(20)];
}
