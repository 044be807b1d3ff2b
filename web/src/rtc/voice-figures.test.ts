import { describe, expect, it } from "vitest";
import { meterPart, rootMeanSquare } from "./meter";
import { addressFrom } from "./voice-address";
import { VoiceCounters } from "./voice-figures";
import { DEFAULT_SETTINGS, fetchSecureDoor, fetchSettings } from "./voice-setup";

function report(change: Record<string, unknown> = {}, playout: Record<string, unknown> | null = null) {
  return new Map<string, unknown>([
    ["in", { type: "inbound-rtp", kind: "audio", packetsReceived: 10, packetsLost: 1, jitterBufferDelay: 1, jitterBufferEmittedCount: 48_000, ...change }],
    ["transport", { type: "transport", selectedCandidatePairId: "pair" }],
    ["pair", { type: "candidate-pair", id: "pair", currentRoundTripTime: 0.004 }],
    ...(playout === null ? [] : ([["out", { type: "media-playout", ...playout }]] as const)),
  ]);
}

describe("VoiceCounters", () => {
  it("adds up what a sound waits for between server and ear", () => {
    const counters = new VoiceCounters();
    expect(counters.handleReport(report({}, { totalPlayoutDelay: 0, totalSamplesCount: 0 })).latencyMs).toBeNull();
    const figures = counters.handleReport(
      report({ packetsReceived: 60, jitterBufferDelay: 1 + 0.03 * 48_000, jitterBufferEmittedCount: 96_000 }, { totalPlayoutDelay: 0.01 * 48_000, totalSamplesCount: 48_000 }),
    );
    expect(figures.bufferMs).toBeCloseTo(30);
    expect(figures.playoutMs).toBeCloseTo(10);
    expect(figures.latencyMs).toBeCloseTo(2 + 30 + 10);
  });

  it("counts what was made up, but not the silence", () => {
    const counters = new VoiceCounters();
    counters.handleReport(report({ concealedSamples: 0, silentConcealedSamples: 0, totalSamplesReceived: 0 }));
    const figures = counters.handleReport(report({ packetsReceived: 20, concealedSamples: 300, silentConcealedSamples: 200, totalSamplesReceived: 1_000 }));
    expect(figures).toMatchObject({ concealedPercent: 10, packetsReceived: 20, packetsLost: 1 });
  });

  it("begins anew where the counters do", () => {
    const counters = new VoiceCounters();
    counters.handleReport(report({ packetsReceived: 1_000, jitterBufferDelay: 90, jitterBufferEmittedCount: 9_000 }));
    expect(counters.handleReport(report()).bufferMs).toBeNull();
  });
});

describe("meter", () => {
  it("fills by decibels", () => {
    expect([meterPart(0), meterPart(1), meterPart(Number.NaN)]).toEqual([0, 1, 0]);
    expect(meterPart(10 ** (-27 / 20))).toBeCloseTo(0.5);
    expect(meterPart(1e-9)).toBe(0);
  });

  it("measures the root mean square", () => {
    expect(rootMeanSquare(new Float32Array([0.5, -0.5]))).toBeCloseTo(0.5);
    expect(rootMeanSquare(new Float32Array())).toBe(0);
  });
});

describe("setup", () => {
  const address = addressFrom("http://host:8080", { protocol: "http:" });
  const answering = (body: string, status = 200): typeof fetch => async () => new Response(body, { status });

  it("takes the microphone's wishes and all else from the server", async () => {
    const told = '{"enabled":true,"iceServers":[{"urls":["stun:s"]}],"audio":{"sampleRate":16000,"channelCount":1,"echoCancellation":false,"latency":0},"token_required":true}';
    const { wishes, ...rest } = await fetchSettings(address, answering(told));
    expect(rest).toEqual({ isEnabled: true, iceServers: [{ urls: ["stun:s"] }], needsToken: true });
    expect(wishes).toEqual({
      channelCount: { ideal: 1 },
      sampleRate: { ideal: 16_000 },
      echoCancellation: { ideal: false },
      noiseSuppression: { ideal: true },
      autoGainControl: { ideal: true },
    });
  });

  it("does without", async () => {
    for (const get of [answering("nonsense"), answering("{}", 404), () => Promise.reject(new Error("away"))]) {
      expect(await fetchSettings(address, get)).toEqual(DEFAULT_SETTINGS);
      expect(await fetchSecureDoor(address, get)).toBeNull();
    }
  });

  it("finds the secure door and its certificate", async () => {
    const door = await fetchSecureDoor(address, answering('{"https_port":8443,"ca":"/ca.crt","mode":"auto"}'));
    expect([door?.address.at("talk").href, door?.caUrl]).toEqual(["https://host:8443/talk", "http://host:8080/ca.crt"]);
    const given = await fetchSecureDoor(address, answering('{"https_port":443,"ca":null,"mode":"files"}'));
    expect([given?.address.at("talk").href, given?.caUrl]).toEqual(["https://host/talk", null]);
    for (const wrong of ['{"https_port":null}', '{"https_port":"8443"}', '{"https_port":70000}', "[]"]) {
      expect(await fetchSecureDoor(address, answering(wrong))).toBeNull();
    }
  });
});
