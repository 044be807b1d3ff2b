import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { FakeNet, FakePeer, FakeTrack, settle, streamOf } from "./voice-fakes";
import { DEFAULT_SETTINGS } from "./voice-setup";
import { VoiceSender, type SenderState } from "./voice-sender";

function bench({ plainHttp = false } = {}) {
  const net = new FakeNet();
  const states: SenderState[] = [];
  const peers: FakePeer[] = [];
  const tracks: FakeTrack[] = [];
  const asked: MediaStreamConstraints[] = [];
  let refuse: ((constraints: MediaStreamConstraints) => Error | null) | null = null;
  const microphone = async (constraints: MediaStreamConstraints): Promise<MediaStream> => {
    asked.push(constraints);
    const error = refuse?.(constraints) ?? null;
    if (error !== null) throw error;
    const track = new FakeTrack();
    tracks.push(track);
    return streamOf(track);
  };
  const sender = new VoiceSender({
    socket: net.voiceSocket(),
    newPeer: () => {
      const peer = new FakePeer();
      peers.push(peer);
      return peer as unknown as RTCPeerConnection;
    },
    microphone: plainHttp ? undefined : microphone,
    meterOf: () => ({ level: () => 0.5, close: () => undefined }),
    settings: () => ({ ...DEFAULT_SETTINGS, wishes: { echoCancellation: { ideal: false } } }),
    onState: (state) => states.push(state),
  });
  return { net, sender, states, peers, tracks, asked, refuseBy: (make: typeof refuse) => (refuse = make) };
}

type Bench = ReturnType<typeof bench>;

async function onAir(of: Bench) {
  of.sender.start();
  of.net.socket.open();
  of.net.socket.say({ type: "sender_ready", connection_id: "me" });
  await settle();
  of.net.socket.say({ type: "webrtc_answer", answer: { type: "answer", sdp: "its answer" } });
  of.peers.at(-1)?.become("connected");
  await settle();
}

function named(name: string): Error {
  return Object.assign(new Error(name), { name });
}

beforeEach(() => void vi.useFakeTimers());
afterEach(() => void vi.useRealTimers());

describe("VoiceSender", () => {
  it("goes on air once the path and the microphone are there", async () => {
    const test = bench();
    await onAir(test);
    expect(test.net.socket.sent).toEqual([
      { type: "start_sending" },
      { type: "webrtc_offer", offer: { type: "offer", sdp: "our offer" } },
    ]);
    expect(test.peers[0]?.remote).toEqual({ type: "answer", sdp: "its answer" });
    expect(test.peers[0]?.carried).toEqual([test.tracks[0]]);
    expect(test.states.map((state) => state.kind)).toEqual(["opening", "on-air"]);
    expect([test.sender.streamId, test.sender.level()]).toEqual(["stream_me", 0.5]);
  });

  it("asks for the microphone as the server wishes, and for the chosen one", async () => {
    const test = bench();
    await test.sender.replaceDevice("desk");
    await onAir(test);
    expect(test.asked).toEqual([
      { audio: expect.objectContaining({ echoCancellation: { ideal: false }, noiseSuppression: { ideal: true }, deviceId: { exact: "desk" } }) },
    ]);
  });

  it("takes another microphone where the chosen one is gone", async () => {
    const test = bench();
    test.refuseBy(({ audio }) => (typeof audio === "object" && audio.deviceId !== undefined ? named("OverconstrainedError") : null));
    await test.sender.replaceDevice("gone");
    await onAir(test);
    expect(test.states.at(-1)?.kind).toBe("on-air");
  });

  it("lets the microphone and the stream go at once when the talk ends", async () => {
    const test = bench();
    await onAir(test);
    test.sender.stop();
    expect(test.tracks[0]?.stopped).toBe(true);
    expect(test.peers[0]?.closed).toBe(true);
    expect(test.net.socket.types().at(-1)).toBe("stop_stream");
    expect(test.sender.state.kind).toBe("idle");
  });

  it("uses the same socket for the next word, and leaves it after five silent minutes", async () => {
    const test = bench();
    await onAir(test);
    test.sender.stop();
    test.sender.start();
    expect(test.net.sockets).toHaveLength(1);
    expect(test.net.socket.types().slice(-2)).toEqual(["stop_stream", "start_sending"]);
    test.sender.stop();
    vi.advanceTimersByTime(24_000);
    for (let pings = 0; pings < 12; pings++) {
      vi.advanceTimersByTime(25_000);
      test.net.socket.say({ type: "pong" });
    }
    expect(test.net.socket.closed).toBe(true);
  });

  it("does not open a microphone that came after the release", async () => {
    const test = bench();
    test.sender.start();
    test.sender.stop();
    await settle();
    expect(test.tracks[0]?.stopped).toBe(true);
    expect(test.sender.track).toBeNull();
    expect(test.sender.state.kind).toBe("idle");
  });

  it.each([
    ["NotAllowedError", "denied"],
    ["NotFoundError", "no-microphone"],
    ["NotReadableError", "busy"],
  ])("says what %s means, and keeps saying it after the release", async (name, kind) => {
    const test = bench();
    test.refuseBy(() => named(name));
    test.sender.start();
    await settle();
    test.sender.stop();
    expect(test.sender.state).toMatchObject({ kind: "failed", trouble: { kind } });
  });

  it("says why there is no microphone on plain HTTP", () => {
    const test = bench({ plainHttp: true });
    test.sender.start();
    expect(test.sender.state).toMatchObject({ kind: "failed", trouble: { kind: "insecure" } });
    expect(test.net.sockets).toHaveLength(0);
  });

  it("notices an unplugged microphone", async () => {
    const test = bench();
    await onAir(test);
    test.tracks[0]?.dispatchEvent(new Event("ended"));
    expect(test.sender.state).toMatchObject({ kind: "failed", trouble: { kind: "unplugged" } });
    expect(test.net.socket.types().at(-1)).toBe("stop_stream");
  });

  it("connects again while a person still talks, with the same microphone", async () => {
    const test = bench();
    await onAir(test);
    test.peers[0]?.become("failed");
    expect(test.sender.state).toMatchObject({ kind: "interrupted", trouble: { kind: "no-path" } });
    vi.advanceTimersByTime(200);
    await settle();
    test.net.socket.say({ type: "sender_ready", connection_id: "me" });
    await settle();
    test.peers[1]?.become("connected");
    expect(test.sender.state.kind).toBe("on-air");
    expect(test.peers[1]?.carried).toEqual([test.tracks[0]]);
    expect(test.tracks).toHaveLength(1);
  });

  it("comes back with the server", async () => {
    const test = bench();
    await onAir(test);
    test.net.socket.lose();
    expect(test.sender.state).toMatchObject({ kind: "interrupted", trouble: { kind: "away" } });
    expect(test.peers[0]?.closed).toBe(true);
    vi.advanceTimersByTime(300);
    await onAir(test);
    expect(test.sender.state.kind).toBe("on-air");
  });

  it("says that the server is full", () => {
    const test = bench();
    test.sender.start();
    test.net.socket.open();
    test.net.socket.say({ type: "error", message: "Server error: all 50 places are taken" });
    expect(test.sender.state).toMatchObject({ trouble: { kind: "refused", sentence: "All 50 places are taken." } });
    test.net.socket.lose(1013);
    expect(test.sender.state).toMatchObject({ kind: "interrupted", trouble: { kind: "full" } });
  });

  it("waits out a short interruption", async () => {
    const test = bench();
    await onAir(test);
    test.peers[0]?.become("disconnected");
    vi.advanceTimersByTime(2_000);
    test.peers[0]?.become("connected");
    vi.advanceTimersByTime(5_000);
    expect(test.sender.state.kind).toBe("on-air");
    expect(test.peers).toHaveLength(1);
  });

  it("gives up an answer that leads nowhere", () => {
    const test = bench();
    test.sender.start();
    test.net.socket.open();
    vi.advanceTimersByTime(8_000);
    expect(test.sender.state).toMatchObject({ kind: "interrupted", trouble: { kind: "no-path" } });
  });

  it("is mute from the first word where it was muted before", async () => {
    const test = bench();
    test.sender.mute();
    await onAir(test);
    expect([test.tracks[0]?.enabled, test.sender.level()]).toEqual([false, 0]);
    test.sender.unmute();
    expect(test.tracks[0]?.enabled).toBe(true);
  });
});
