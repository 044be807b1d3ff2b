/**
 * Live figures of one voice, from the browser's counters: how late it is, and what had to be made up.
 *
 * `null` always means "not known", never zero.
 */

import type { StatsLike } from "./figures";

/** Reports that means are made of: at one a second, over 5 s. */
const WINDOW = 6;

export interface VoiceFigures {
  /** From the server to the ear: half the round trip, the jitter buffer and the playout. */
  readonly latencyMs: number | null;
  readonly rttMs: number | null;
  /** Mean wait in the jitter buffer within the window. */
  readonly bufferMs: number | null;
  /** What the system's sound output adds. */
  readonly playoutMs: number | null;
  /** Of the sound within the window, the part that was made up for lost packets, 0 to 100. Silence does not count. */
  readonly concealedPercent: number | null;
  readonly packetsReceived: number;
  readonly packetsLost: number;
}

export const NO_VOICE_FIGURES: VoiceFigures = {
  latencyMs: null,
  rttMs: null,
  bufferMs: null,
  playoutMs: null,
  concealedPercent: null,
  packetsReceived: 0,
  packetsLost: 0,
};

type Stat = Readonly<Record<string, unknown>>;

/** The counters of one report, as W3C webrtc-stats names them. */
interface Sample {
  readonly delayS: number;
  readonly emitted: number;
  readonly playoutS: number;
  readonly played: number;
  readonly concealed: number;
  readonly samples: number;
  readonly packets: number;
}

export class VoiceCounters {
  #samples: Sample[] = [];

  reset(): void {
    this.#samples = [];
  }

  handleReport(report: StatsLike): VoiceFigures {
    const stats = statsOf(report);
    const inbound = stats.find((stat) => stat["type"] === "inbound-rtp" && stat["kind"] === "audio");
    const sample = sampleOf(inbound, stats.find((stat) => stat["type"] === "media-playout"));
    if (sample.packets < (this.#samples.at(-1)?.packets ?? 0)) this.reset();
    this.#samples.push(sample);
    if (this.#samples.length > WINDOW) this.#samples.shift();
    const first = this.#samples[0] ?? sample;
    const rttS = selectedPair(stats)?.["currentRoundTripTime"];
    const rttMs = typeof rttS === "number" ? 1000 * rttS : null;
    const bufferMs = ratio(1000 * (sample.delayS - first.delayS), sample.emitted - first.emitted);
    const playoutMs = ratio(1000 * (sample.playoutS - first.playoutS), sample.played - first.played);
    return {
      latencyMs: rttMs === null || bufferMs === null ? null : rttMs / 2 + bufferMs + (playoutMs ?? 0),
      rttMs,
      bufferMs,
      playoutMs,
      concealedPercent: ratio(100 * (sample.concealed - first.concealed), sample.samples - first.samples),
      packetsReceived: sample.packets,
      packetsLost: number(inbound?.["packetsLost"]),
    };
  }
}

function sampleOf(inbound: Stat | undefined, playout: Stat | undefined): Sample {
  return {
    delayS: number(inbound?.["jitterBufferDelay"]),
    emitted: number(inbound?.["jitterBufferEmittedCount"]),
    playoutS: number(playout?.["totalPlayoutDelay"]),
    played: number(playout?.["totalSamplesCount"]),
    concealed: number(inbound?.["concealedSamples"]) - number(inbound?.["silentConcealedSamples"]),
    samples: number(inbound?.["totalSamplesReceived"]),
    packets: number(inbound?.["packetsReceived"]),
  };
}

function statsOf(report: StatsLike): Stat[] {
  const stats: Stat[] = [];
  report.forEach((stat: unknown) => {
    if (typeof stat === "object" && stat !== null) stats.push(stat as Stat);
  });
  return stats;
}

function selectedPair(stats: readonly Stat[]): Stat | undefined {
  const selected = stats.find((stat) => stat["type"] === "transport")?.["selectedCandidatePairId"];
  return stats.find(
    (stat) => stat["type"] === "candidate-pair" && (selected === undefined ? stat["nominated"] : stat["id"] === selected),
  );
}

function ratio(numerator: number, denominator: number): number | null {
  return denominator > 0 ? Math.max(0, numerator / denominator) : null;
}

function number(value: unknown): number {
  return typeof value === "number" && Number.isFinite(value) ? value : 0;
}
