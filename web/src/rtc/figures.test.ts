import { describe, expect, it } from "vitest";
import { Figures } from "./figures";

interface Counters {
  bytes: number;
  packets: number;
  lost: number;
  frames: number;
  delay?: number;
  emitted?: number;
  energy?: number;
  duration?: number;
  rtt?: number;
}

function report(counters: Counters, withAudio = true): Map<string, unknown> {
  const stats = new Map<string, unknown>([
    [
      "V",
      {
        type: "inbound-rtp",
        kind: "video",
        frameWidth: 640,
        frameHeight: 360,
        bytesReceived: counters.bytes,
        packetsReceived: counters.packets,
        packetsLost: counters.lost,
        framesDecoded: counters.frames,
        jitter: 0.004,
        framesDropped: 3,
        freezeCount: 1,
        nackCount: 7,
        retransmittedPacketsReceived: 6,
        jitterBufferDelay: counters.delay ?? 0,
        jitterBufferEmittedCount: counters.emitted ?? 0,
      },
    ],
    ["T", { type: "transport", selectedCandidatePairId: "P2" }],
    ["P1", { id: "P1", type: "candidate-pair", nominated: true, currentRoundTripTime: 9 }],
    ["P2", { id: "P2", type: "candidate-pair", nominated: true, currentRoundTripTime: counters.rtt ?? 0.003 }],
  ]);
  if (withAudio) {
    stats.set("A", {
      type: "inbound-rtp",
      kind: "audio",
      packetsReceived: 50,
      bytesReceived: 0,
      audioLevel: 0.9,
      totalAudioEnergy: counters.energy ?? 0,
      totalSamplesDuration: counters.duration ?? 0,
    });
  }
  return stats;
}

describe("Figures", () => {
  it("tells of repairs and pauses as the browser counts them, and of none where it does not", () => {
    const figures = new Figures();
    const counters = { bytes: 1, packets: 1, lost: 0, frames: 1 };
    expect(figures.handleReport(report(counters), 0)).toMatchObject({ framesDropped: 3, freezes: 1, nacks: 7, repaired: 6 });
    expect(figures.handleReport(new Map(), 1)).toMatchObject({ framesDropped: null, freezes: null, nacks: null, repaired: null });
  });

  it("makes rates of differences", () => {
    const figures = new Figures();
    figures.handleReport(report({ bytes: 1000, packets: 100, lost: 0, frames: 10, delay: 1, emitted: 10 }), 5_000);
    const set = figures.handleReport(
      report({ bytes: 101_000, packets: 190, lost: 10, frames: 25, delay: 2.5, emitted: 25, energy: 0.25, duration: 1 }),
      6_000,
    );
    expect(set).toMatchObject({ width: 640, height: 360, fps: 15, bitrate: 800_000, packetsLost: 10, lossPercent: 10 });
    expect(set.bufferMs).toBeCloseTo(100);
    expect(set.rttMs).toBeCloseTo(3);
    expect(set.jitterMs).toBeCloseTo(4);
    expect(set.audioLevel).toBeCloseTo(0.5);
  });

  it("knows nothing of rates after one report", () => {
    const set = new Figures().handleReport(report({ bytes: 1, packets: 1, lost: 0, frames: 1 }), 1);
    expect(set).toMatchObject({ fps: null, bitrate: null, lossPercent: null, bufferMs: null, framesDecoded: 1 });
  });

  it("does not take the wait for the first packet for a slow picture", () => {
    const figures = new Figures();
    figures.handleReport(report({ bytes: 0, packets: 0, lost: 0, frames: 0 }), 0);
    figures.handleReport(report({ bytes: 0, packets: 0, lost: 0, frames: 0 }), 9_000);
    figures.handleReport(report({ bytes: 1_000, packets: 9, lost: 0, frames: 1 }), 10_000);
    const set = figures.handleReport(report({ bytes: 2_000, packets: 99, lost: 0, frames: 16 }), 11_000);
    expect(set).toMatchObject({ fps: 15, bitrate: 8_000 });
  });

  it("follows a change of rate within two steps", () => {
    const figures = new Figures();
    let set = null;
    for (let second = 1; second <= 6; second += 1) {
      const frames = second <= 4 ? second : 4 + 15 * (second - 4);
      set = figures.handleReport(report({ bytes: 0, packets: second, lost: 0, frames }), second * 1_000);
    }
    expect(set?.fps).toBe(15);
  });

  it("forgets what is older than its window", () => {
    const figures = new Figures();
    figures.handleReport(report({ bytes: 0, packets: 0, lost: 0, frames: 0 }), 0);
    figures.handleReport(report({ bytes: 0, packets: 0, lost: 100, frames: 0 }), 1_000);
    let set = null;
    for (let second = 2; second <= 7; second += 1) {
      set = figures.handleReport(report({ bytes: 0, packets: 100 * second, lost: 100, frames: 0 }), second * 1_000);
    }
    expect(set?.lossPercent).toBe(0);
    expect(set?.packetsLost).toBe(100);
  });

  it("starts over when the counters do", () => {
    const figures = new Figures();
    figures.handleReport(report({ bytes: 9_000, packets: 900, lost: 50, frames: 90 }), 1_000);
    const set = figures.handleReport(report({ bytes: 10, packets: 1, lost: 0, frames: 1 }), 2_000);
    expect(set).toMatchObject({ fps: null, bitrate: null, lossPercent: null });
  });

  it("never shows a negative loss when late packets arrive after all", () => {
    const figures = new Figures();
    figures.handleReport(report({ bytes: 0, packets: 100, lost: 10, frames: 0 }), 1_000);
    expect(figures.handleReport(report({ bytes: 0, packets: 120, lost: 4, frames: 0 }), 2_000).lossPercent).toBe(0);
  });

  it("takes the momentary level until two reports give an energy, and none without sound", () => {
    expect(new Figures().handleReport(report({ bytes: 0, packets: 1, lost: 0, frames: 0 }), 1).audioLevel).toBe(0.9);
    const silent = new Figures().handleReport(report({ bytes: 0, packets: 1, lost: 0, frames: 0 }, false), 1);
    expect(silent).toMatchObject({ audioLevel: null, hasAudio: false });
  });

  it("makes nothing of an empty report", () => {
    expect(new Figures().handleReport(new Map(), 1)).toMatchObject({ width: null, rttMs: null, framesDecoded: 0 });
  });
});
