/**
 * Live figures of one connection, from the differences between the browser's counters.
 *
 * `Figures` is fed a `getStats()` report about once a second and keeps a short window of them.
 * `null` always means "not known", never zero.
 */

/** How many reports are kept: at one a second, loss and buffer time are means over 5 s. */
const WINDOW = 6;
/** Frame rate and bitrate are means over the last two steps: they shall follow what is seen. */
const RATE_WINDOW = 3;

export interface FigureSet {
  readonly width: number | null;
  readonly height: number | null;
  /** Frames decoded a second. */
  readonly fps: number | null;
  /** Bits a second, picture and sound. */
  readonly bitrate: number | null;
  /** Since the connection began. A packet that a retransmission repaired stays counted. */
  readonly packetsLost: number | null;
  /** Percent of the packets expected within the window, 0 to 100. */
  readonly lossPercent: number | null;
  readonly rttMs: number | null;
  /** Mean jitter of the picture's packets. */
  readonly jitterMs: number | null;
  /** Mean time a frame waited in the jitter buffer within the window. */
  readonly bufferMs: number | null;
  readonly framesDecoded: number;
  /** Decoded too late to be shown, or left out. */
  readonly framesDropped: number | null;
  /** Pauses that a person sees (W3C webrtc-stats, freezeCount). */
  readonly freezes: number | null;
  /** How often the browser asked for lost packets again. */
  readonly nacks: number | null;
  /** Packets of the picture that came a second time; `null` where the browser does not count them. */
  readonly repaired: number | null;
  readonly packetsReceived: number;
  /** Root mean square of the sound within the last step, 0 to 1; `null` without sound. */
  readonly audioLevel: number | null;
  /** Whether any packet of sound has come. */
  readonly hasAudio: boolean;
}

export const NO_FIGURES: FigureSet = {
  width: null,
  height: null,
  fps: null,
  bitrate: null,
  packetsLost: null,
  lossPercent: null,
  rttMs: null,
  jitterMs: null,
  bufferMs: null,
  framesDecoded: 0,
  framesDropped: null,
  freezes: null,
  nacks: null,
  repaired: null,
  packetsReceived: 0,
  audioLevel: null,
  hasAudio: false,
};

/** The counters of one report that the figures are made of. */
interface Sample {
  readonly atMs: number;
  readonly bytes: number;
  readonly packets: number;
  readonly lost: number;
  readonly frames: number;
  readonly bufferDelayS: number;
  readonly bufferEmitted: number;
  readonly audioEnergy: number;
  readonly audioDurationS: number;
}

/** A report, as `RTCStatsReport` or any map like it. */
export type StatsLike = ReadonlyMap<string, unknown> | RTCStatsReport;

type Stat = Readonly<Record<string, unknown>>;

export class Figures {
  #samples: Sample[] = [];

  /** Forgets everything: a new connection counts from zero. */
  reset(): void {
    this.#samples = [];
  }

  /** Takes a report made at `atMs` (any monotonic clock) and says what it means. */
  handleReport(report: StatsLike, atMs: number): FigureSet {
    const stats = statsOf(report);
    const video = inbound(stats, "video");
    const audio = inbound(stats, "audio");
    const sample = sampleOf(video, audio, atMs);
    const last = this.#samples.at(-1);
    if (last !== undefined && sample.packets < last.packets) this.reset();
    // Only the last report before the first packet counts: waiting is no slow picture.
    if (last?.packets === 0) this.#samples.pop();
    this.#samples.push(sample);
    if (this.#samples.length > WINDOW) this.#samples.shift();
    return this.#figures(sample, stats, video, audio);
  }

  #figures(sample: Sample, stats: readonly Stat[], video: Stat | undefined, audio: Stat | undefined): FigureSet {
    const first = this.#samples[0] ?? sample;
    const recent = this.#samples.at(-RATE_WINDOW) ?? first;
    const previous = this.#samples.at(-2) ?? sample;
    const expected = sample.packets - first.packets + sample.lost - first.lost;
    const rttS = optional(selectedPair(stats)?.["currentRoundTripTime"]);
    const jitterS = optional(video?.["jitter"]);
    const heard = number(audio?.["packetsReceived"]) > 0;
    return {
      width: optional(video?.["frameWidth"]),
      height: optional(video?.["frameHeight"]),
      fps: rate(sample.frames - recent.frames, sample.atMs - recent.atMs),
      bitrate: rate(8 * (sample.bytes - recent.bytes), sample.atMs - recent.atMs),
      packetsLost: optional(video?.["packetsLost"]),
      lossPercent: expected > 0 ? Math.min(100, Math.max(0, (100 * (sample.lost - first.lost)) / expected)) : null,
      rttMs: rttS === null ? null : rttS * 1000,
      jitterMs: jitterS === null ? null : jitterS * 1000,
      bufferMs: ratio(1000 * (sample.bufferDelayS - first.bufferDelayS), sample.bufferEmitted - first.bufferEmitted),
      framesDecoded: sample.frames,
      framesDropped: optional(video?.["framesDropped"]),
      freezes: optional(video?.["freezeCount"]),
      nacks: optional(video?.["nackCount"]),
      repaired: optional(video?.["retransmittedPacketsReceived"]),
      packetsReceived: number(video?.["packetsReceived"]),
      audioLevel: heard ? audioLevel(previous, sample, audio) : null,
      hasAudio: heard,
    };
  }
}

function sampleOf(video: Stat | undefined, audio: Stat | undefined, atMs: number): Sample {
  return {
    atMs,
    bytes: number(video?.["bytesReceived"]) + number(audio?.["bytesReceived"]),
    packets: number(video?.["packetsReceived"]),
    lost: number(video?.["packetsLost"]),
    frames: number(video?.["framesDecoded"]),
    bufferDelayS: number(video?.["jitterBufferDelay"]),
    bufferEmitted: number(video?.["jitterBufferEmittedCount"]),
    audioEnergy: number(audio?.["totalAudioEnergy"]),
    audioDurationS: number(audio?.["totalSamplesDuration"]),
  };
}

/** By the energy between two reports (W3C webrtc-stats, totalAudioEnergy); else the browser's momentary level. */
function audioLevel(previous: Sample, sample: Sample, audio: Stat | undefined): number | null {
  const meanSquare = ratio(
    sample.audioEnergy - previous.audioEnergy,
    sample.audioDurationS - previous.audioDurationS,
  );
  return meanSquare === null ? optional(audio?.["audioLevel"]) : Math.sqrt(Math.max(0, meanSquare));
}

function statsOf(report: StatsLike): Stat[] {
  const stats: Stat[] = [];
  report.forEach((stat: unknown) => {
    if (typeof stat === "object" && stat !== null) stats.push(stat as Stat);
  });
  return stats;
}

function inbound(stats: readonly Stat[], kind: string): Stat | undefined {
  return stats.find((stat) => stat["type"] === "inbound-rtp" && stat["kind"] === kind);
}

function selectedPair(stats: readonly Stat[]): Stat | undefined {
  const selected = stats.find((stat) => stat["type"] === "transport")?.["selectedCandidatePairId"];
  return stats.find(
    (stat) => stat["type"] === "candidate-pair" && (selected === undefined ? stat["nominated"] : stat["id"] === selected),
  );
}

function rate(difference: number, elapsedMs: number): number | null {
  return elapsedMs > 0 ? Math.max(0, (1000 * difference) / elapsedMs) : null;
}

function ratio(numerator: number, denominator: number): number | null {
  return denominator > 0 ? numerator / denominator : null;
}

function number(value: unknown): number {
  return typeof value === "number" && Number.isFinite(value) ? value : 0;
}

function optional(value: unknown): number | null {
  return typeof value === "number" && Number.isFinite(value) ? value : null;
}
