// Offers that real browsers wrote, and what tests make of them.

import { readFileSync } from 'node:fs';

const load = (name) => readFileSync(new URL(`../sdp/${name}.sdp`, import.meta.url), 'utf8');

/** Chromium 156: H264, VP8, VP9, AV1; Opus, G.711. */
export const chromium = load('chromium');

/** Firefox ESR as Debian has it: no H264. */
export const firefoxWithoutH264 = load('firefox-esr');

/** The same Firefox with its H264 plug-in: one payload type changes its codec. */
export const firefox = firefoxWithoutH264
  .replace('a=rtpmap:120 VP8/90000', 'a=rtpmap:120 H264/90000')
  .replace(
    'a=fmtp:120 max-fs=12288;max-fr=60',
    'a=fmtp:120 profile-level-id=42e01f;level-asymmetry-allowed=1;packetization-mode=1',
  );

/** An offer without its video section. */
export function withoutVideo(sdp) {
  const [session, ...sections] = sdp.split(/^(?=m=)/m);
  const kept = sections.filter((section) => !section.startsWith('m=video'));
  const mids = kept.map((section) => section.match(/^a=mid:(\S+)/m)[1]);
  return session.replace(/^a=group:BUNDLE .*?$/m, `a=group:BUNDLE ${mids.join(' ')}`) + kept.join('');
}

/** An offer with no codec of video that any camera or publisher sends. */
export const withOtherCodecs = (sdp) => sdp.replace(/ (H264|VP8|VP9|AV1)\/90000/g, ' theora/90000');

/** An offer whose H264 is only there in packetization-mode 0. */
export const withPacketizationMode0 = (sdp) => sdp.replaceAll('packetization-mode=1', 'packetization-mode=0');
