// Players and recorders that read RTSP, and what is read back from the files that they write.

import { execFile } from 'node:child_process';
import { promisify } from 'node:util';

import { Child } from './process.mjs';
import { part } from './parts.mjs';
import { decodeStrip } from './strip.mjs';

const run = promisify(execFile);

/** Comes with FFmpeg. */
const FFPROBE = '/usr/bin/ffprobe';

/** Largest output that is read back: 10 s of 960x540 in grey. */
const OUTPUT_MAX = 100 * 2 ** 20;

/** FFmpeg recording a URL into `file` without touching the media, until it is told to end. */
export function recorder(world, name, url, file, { seconds } = {}) {
  const limit = seconds ? ['-t', String(seconds)] : [];
  const args = ['-hide_banner', '-y', '-rtsp_transport', 'tcp', '-i', url, ...limit, '-c', 'copy', file];
  const child = new Child(name, part('ffmpeg'), args, { log: world.file(`${name}.log`) });
  world.own(child);
  return child;
}

/** GStreamer decoding so many pictures of a URL; its exit code. */
export async function gstreamerPlays(world, url, { pictures = 30, user, password, protocols = 'tcp' } = {}) {
  const account = user ? [`user-id=${user}`, `user-pw=${password}`] : [];
  const source = ['rtspsrc', `location=${url}`, `protocols=${protocols}`, 'latency=100', ...account, 'name=s'];
  const decode = ['s.', '!', 'rtph264depay', '!', 'h264parse', '!', 'avdec_h264', '!'];
  const end = ['fakesink', 'sync=false', `num-buffers=${pictures}`];
  const args = ['-q', ...source, ...decode, ...end];
  const child = new Child('gstreamer', part('gstreamer'), args, { log: world.file('gstreamer.log') });
  world.own(child);
  return child.ended;
}

/** What ffprobe tells of a file or URL. */
export async function probe(input) {
  part('ffmpeg');
  const transport = input.startsWith('rtsp:') ? ['-rtsp_transport', 'tcp'] : [];
  const args = ['-v', 'error', ...transport, '-show_streams', '-of', 'json', input];
  const { stdout } = await run(FFPROBE, args, { timeout: 30_000 });
  return JSON.parse(stdout).streams;
}

/** What ffprobe complains of. */
export async function complaint(url, transport = 'tcp') {
  part('ffmpeg');
  const args = ['-v', 'error', '-rtsp_transport', transport, url];
  const failed = await run(FFPROBE, args, { timeout: 30_000 }).catch((error) => error);
  if (failed.code === undefined) throw new Error(`ffprobe is content with ${url}`);
  return failed.stderr;
}

/** The sizes of a recording's pictures, in their order. */
export async function sizesOf(file) {
  part('ffmpeg');
  const wanted = ['-select_streams', 'v', '-show_entries', 'frame=width,height', '-of', 'csv=p=0'];
  const { stdout } = await run(FFPROBE, ['-v', 'error', ...wanted, file], { maxBuffer: OUTPUT_MAX });
  return new Set(stdout.trim().split('\n').map((row) => row.split(',').slice(0, 2).join('x')));
}

/** The strips of all pictures in a file of this size, `null` where one reads badly. */
export async function stripsOf(file, width, height) {
  const args = ['-v', 'error', '-i', file, '-f', 'rawvideo', '-pix_fmt', 'gray', '-fps_mode', 'passthrough', '-'];
  const { stdout } = await run(part('ffmpeg'), args, { encoding: 'buffer', maxBuffer: OUTPUT_MAX });
  const size = width * height;
  const strips = [];
  for (let start = 0; start + size <= stdout.length; start += size) {
    strips.push(decodeStrip(width, (x, y) => stdout[start + y * width + x]));
  }
  return strips;
}
