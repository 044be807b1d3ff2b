// Many RTSP cameras from one process: `manifold bench cameras`.

import { part } from '../harness/parts.mjs';
import { Child } from '../harness/process.mjs';
import { freePort } from './ports.mjs';

/** Starts `count` cameras of 2 Mbit/s at 25 frames a second: eight packets a frame. */
export async function startCameras(world, count) {
  const address = `127.0.0.1:${await freePort('tcp')}`;
  const args = ['bench', 'cameras', '--count', `${count}`, '--bitrate', '2M', '--fps', '25', '--gop', '50'];
  const child = new Child('cameras', part('manifold'), [...args, '--listen', address], {
    log: world.file('cameras.log'),
  });
  world.own(child);
  await child.says(/cameras of [\d.]+ Mbit\/s/, 60_000);
  const name = (index) => `cam-${`${index}`.padStart(3, '0')}`;
  return { pid: child.pid, name, url: (index) => `rtsp://${address}/${name(index)}` };
}
