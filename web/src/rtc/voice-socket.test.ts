import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { FakeNet } from "./voice-fakes";
import type { SocketEvent } from "./voice-socket";
import { serverMessageFrom } from "./voice-wire";

function bench() {
  const net = new FakeNet();
  const socket = net.voiceSocket();
  const events: SocketEvent[] = [];
  socket.listen((event) => events.push(event));
  return { net, socket, events };
}

beforeEach(() => void vi.useFakeTimers());
afterEach(() => void vi.useRealTimers());

describe("VoiceSocket", () => {
  it("keeps the list of voices, oldest first and each once", () => {
    const { net, socket } = bench();
    socket.start();
    net.socket.open(["a", "b", "a"]);
    net.socket.say({ type: "stream_available", stream_id: "c" });
    net.socket.say({ type: "stream_available", stream_id: "b" });
    expect(socket.streams).toEqual(["a", "b", "c"]);
    net.socket.say({ type: "stream_ended", stream_id: "a" });
    expect(socket.streams).toEqual(["b", "c"]);
  });

  it("forgets the voices when the connection is lost, and connects again with growing pauses", () => {
    const { net, socket } = bench();
    socket.start();
    net.socket.open(["a"]);
    const pauses: number[] = [];
    for (let loss = 0; loss < 7; loss++) {
      net.socket.lose();
      expect(socket.streams).toEqual([]);
      const { state } = socket;
      if (state.kind !== "away") throw new Error(state.kind);
      pauses.push(state.retryAtMs - performance.now());
      vi.advanceTimersByTime(state.retryAtMs - performance.now());
      expect(net.sockets).toHaveLength(loss + 2);
    }
    expect(pauses).toEqual([300, 700, 1_500, 3_000, 6_000, 10_000, 10_000]);
    net.socket.open();
    net.socket.lose();
    expect(socket.state).toMatchObject({ kind: "away", retryAtMs: performance.now() + 300 });
  });

  it("tells a full server from an absent one, and asks it less often", () => {
    const { net, socket } = bench();
    socket.start();
    net.socket.open();
    net.socket.lose(1013);
    expect(socket.state).toMatchObject({ kind: "away", full: true, retryAtMs: performance.now() + 10_000 });
  });

  it("pings a silent server, and leaves one that stays silent", () => {
    const { net, socket } = bench();
    socket.start();
    net.socket.open();
    vi.advanceTimersByTime(24_000);
    net.socket.say({ type: "audio_data", stream_id: "a", level: 0.5 });
    vi.advanceTimersByTime(24_000);
    expect(net.socket.types()).toEqual([]);
    vi.advanceTimersByTime(1_000);
    expect(net.socket.types()).toEqual(["ping"]);
    net.socket.say({ type: "pong" });
    vi.advanceTimersByTime(32_999);
    expect(socket.state.kind).toBe("open");
    vi.advanceTimersByTime(1);
    expect(socket.state.kind).toBe("away");
    expect(net.sockets[0]?.closed).toBe(true);
  });

  it("gives up a connection that does not open", () => {
    const { socket } = bench();
    socket.start();
    vi.advanceTimersByTime(8_000);
    expect(socket.state.kind).toBe("away");
  });

  it("hears nothing of a socket that it left", () => {
    const { net, socket, events } = bench();
    socket.start();
    const old = net.socket;
    old.lose();
    socket.retryNow();
    const before = events.length;
    old.say({ type: "stream_available", stream_id: "ghost" });
    old.lose();
    expect(events).toHaveLength(before);
    expect(socket.state.kind).toBe("connecting");
  });

  it("stays closed once it was closed", () => {
    const { net, socket } = bench();
    socket.start();
    net.socket.open(["a"]);
    socket.close();
    vi.advanceTimersByTime(120_000);
    expect(net.sockets).toHaveLength(1);
    expect([socket.state.kind, socket.streams]).toEqual(["closed", []]);
    expect(socket.send({ type: "ping" })).toBe(false);
  });

  it("passes levels on, and survives nonsense", () => {
    const { net, socket, events } = bench();
    socket.start();
    net.socket.open();
    const before = events.length;
    for (const nonsense of [null, 7, [], {}, { type: "x" }, { type: "stream_available" }, { type: "available_streams", streams: 7 }]) {
      net.socket.say(nonsense);
    }
    expect(events).toHaveLength(before);
    net.socket.say({ type: "audio_data", stream_id: "a", level: 0.25, dbov: -12, voice: true, timestamp: 1.5 });
    expect(events.at(-1)).toEqual({ kind: "level", streamId: "a", level: 0.25 });
  });
});

describe("serverMessageFrom", () => {
  it("reads what the server says, and nothing else", () => {
    expect(serverMessageFrom('{"type":"webrtc_offer","offer":{"type":"offer","sdp":"v=0"}}')).toEqual({ type: "webrtc_offer", sdp: "v=0", streamId: "" });
    expect(serverMessageFrom('{"type":"error"}')).toEqual({ type: "error", message: "" });
    expect(serverMessageFrom('{"type":"audio_data","stream_id":"a","level":9}')).toMatchObject({ level: 1 });
    for (const wrong of ["", "{", "null", '{"type":"sender_ready"}', '{"type":"webrtc_answer","answer":"v=0"}', new Blob()]) {
      expect(serverMessageFrom(wrong)).toBeNull();
    }
  });
});
