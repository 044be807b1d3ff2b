import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { FakeNet, FakePeer, settle } from "./voice-fakes";
import { type ReceiverState, VoiceReceiver } from "./voice-receiver";

function bench(own: readonly string[] = []) {
  const net = new FakeNet();
  const states: ReceiverState[] = [];
  const peers: FakePeer[] = [];
  const audio = {
    srcObject: null as unknown,
    volume: 1,
    blocked: false,
    play: async () => {
      if (audio.blocked) throw Object.assign(new Error("gesture"), { name: "NotAllowedError" });
    },
    pause: () => undefined,
  };
  const socket = net.voiceSocket();
  const receiver = new VoiceReceiver({
    socket,
    audio: audio as never,
    newPeer: () => {
      const peer = new FakePeer();
      peers.push(peer);
      return peer as unknown as RTCPeerConnection;
    },
    isOwn: (streamId) => own.includes(streamId),
    onState: (state) => states.push(state),
  });
  socket.start();
  return { net, socket, receiver, states, peers, audio };
}

type Bench = ReturnType<typeof bench>;

/** The server offers, and the path opens. */
async function offered(of: Bench) {
  of.net.socket.say({ type: "webrtc_offer", offer: { type: "offer", sdp: "its offer" } });
  await settle();
  const peer = of.peers.at(-1);
  peer?.hear(`sound ${of.peers.length}`);
  peer?.become("connected");
  await settle();
}

function asked(of: Bench): unknown[] {
  return of.net.socket.sent.flatMap((message) => (message.type === "start_receiving" ? [message.stream_id] : []));
}

beforeEach(() => void vi.useFakeTimers());
afterEach(() => void vi.useRealTimers());

describe("VoiceReceiver", () => {
  it("plays the newest voice: asks, answers the offer, plays", async () => {
    const test = bench();
    test.receiver.follow({ kind: "newest" });
    test.net.socket.open(["old", "new"]);
    await offered(test);
    expect(test.net.socket.sent).toEqual([
      { type: "start_receiving", stream_id: "new" },
      { type: "webrtc_answer", answer: { type: "answer", sdp: "our answer" } },
    ]);
    expect(test.receiver.state).toEqual({ kind: "playing", streamId: "new" });
    expect(test.audio.srcObject).toBe("sound 1");
  });

  it("waits for a voice, and plays it in one step when it starts", async () => {
    const test = bench();
    test.receiver.follow({ kind: "newest" });
    test.net.socket.open();
    expect(test.receiver.state.kind).toBe("waiting");
    test.net.socket.say({ type: "stream_available", stream_id: "a" });
    await offered(test);
    expect(test.receiver.state).toEqual({ kind: "playing", streamId: "a" });
  });

  it("goes to a newer voice, and back when that ends", async () => {
    const test = bench();
    test.receiver.follow({ kind: "newest" });
    test.net.socket.open(["a"]);
    await offered(test);
    test.net.socket.say({ type: "stream_available", stream_id: "b" });
    await offered(test);
    expect(test.peers[0]?.closed).toBe(true);
    test.net.socket.say({ type: "stream_ended", stream_id: "b" });
    await offered(test);
    expect(asked(test)).toEqual(["a", "b", "a"]);
    expect(test.receiver.state).toEqual({ kind: "playing", streamId: "a" });
  });

  it("does not play its own voice", () => {
    const test = bench(["mine"]);
    test.receiver.follow({ kind: "newest" });
    test.net.socket.open(["other", "mine"]);
    expect(asked(test)).toEqual(["other"]);
  });

  it("stays with the chosen voice, and takes it again when it returns", async () => {
    const test = bench();
    test.receiver.follow({ kind: "stream", streamId: "a" });
    test.net.socket.open(["a"]);
    await offered(test);
    test.net.socket.say({ type: "stream_available", stream_id: "b" });
    expect(asked(test)).toEqual(["a"]);
    test.net.socket.say({ type: "stream_ended", stream_id: "a" });
    expect(test.receiver.state.kind).toBe("waiting");
    expect(test.audio.srcObject).toBeNull();
    test.net.socket.say({ type: "stream_available", stream_id: "a" });
    await offered(test);
    expect(test.receiver.state).toEqual({ kind: "playing", streamId: "a" });
  });

  it("asks for one voice at a time, and leaves an offer that came too late unanswered", async () => {
    const test = bench();
    test.receiver.follow({ kind: "stream", streamId: "a" });
    test.net.socket.open(["a", "b"]);
    test.receiver.follow({ kind: "stream", streamId: "b" });
    expect(asked(test)).toEqual(["a"]);
    test.net.socket.say({ type: "webrtc_offer", offer: { type: "offer", sdp: "of a" } });
    await settle();
    expect(asked(test)).toEqual(["a", "b"]);
    expect(test.peers).toHaveLength(0);
    await offered(test);
    expect(test.receiver.state).toEqual({ kind: "playing", streamId: "b" });
  });

  it.each(["No audio stream available", "Stream ended"])("takes “%s” for a voice that is over, and asks again while the list has it", async (words) => {
    const test = bench();
    test.receiver.follow({ kind: "newest" });
    test.net.socket.open(["a"]);
    test.net.socket.say({ type: "error", message: words });
    expect(test.receiver.state.kind).toBe("waiting");
    vi.advanceTimersByTime(300);
    await offered(test);
    expect(test.receiver.state).toEqual({ kind: "playing", streamId: "a" });
  });

  it("takes an offer that it did not ask for again, where it is for the wanted voice", async () => {
    const test = bench();
    test.receiver.follow({ kind: "newest" });
    test.net.socket.open(["a"]);
    test.net.socket.say({ type: "error", message: "No audio stream available" });
    test.net.socket.say({ type: "webrtc_offer", offer: { type: "offer", sdp: "its offer" }, stream_id: "a" });
    await settle();
    expect(test.net.socket.types()).toEqual(["start_receiving", "webrtc_answer"]);
    vi.advanceTimersByTime(300);
    expect(asked(test)).toEqual(["a"]);
  });

  it("leaves an offer for another voice than it asked for, and tells the server that it is not wanted", async () => {
    const test = bench();
    test.receiver.follow({ kind: "newest" });
    test.net.socket.open(["a", "b"]);
    test.net.socket.say({ type: "webrtc_offer", offer: { type: "offer", sdp: "of a" }, stream_id: "a" });
    await settle();
    expect(test.peers).toHaveLength(0);
    test.receiver.follow({ kind: "nobody" });
    test.net.socket.say({ type: "webrtc_offer", offer: { type: "offer", sdp: "of b" }, stream_id: "b" });
    await settle();
    expect(test.peers).toHaveLength(0);
    expect(test.net.socket.types()).toEqual(["start_receiving", "stop_stream"]);
    expect(test.receiver.state.kind).toBe("off");
  });

  it("connects again when the path breaks", async () => {
    const test = bench();
    test.receiver.follow({ kind: "newest" });
    test.net.socket.open(["a"]);
    await offered(test);
    test.peers[0]?.become("failed");
    expect(test.receiver.state).toMatchObject({ kind: "interrupted", trouble: { kind: "no-path" } });
    vi.advanceTimersByTime(300);
    await offered(test);
    expect(test.receiver.state).toEqual({ kind: "playing", streamId: "a" });
  });

  it("comes back with the server", async () => {
    const test = bench();
    test.receiver.follow({ kind: "newest" });
    test.net.socket.open(["a"]);
    await offered(test);
    test.net.socket.lose();
    expect(test.receiver.state).toMatchObject({ kind: "interrupted", trouble: { kind: "away" } });
    expect(test.peers[0]?.closed).toBe(true);
    vi.advanceTimersByTime(300);
    test.net.socket.open(["a2"]);
    await offered(test);
    expect(test.receiver.state).toEqual({ kind: "playing", streamId: "a2" });
  });

  it("says that the server is full", () => {
    const test = bench();
    test.receiver.follow({ kind: "newest" });
    test.net.socket.open();
    test.net.socket.lose(1013);
    expect(test.receiver.state).toMatchObject({ kind: "interrupted", trouble: { kind: "full" } });
  });

  it("asks again where the server does not answer", () => {
    const test = bench();
    test.receiver.follow({ kind: "newest" });
    test.net.socket.open(["a"]);
    vi.advanceTimersByTime(8_000);
    expect(test.receiver.state).toMatchObject({ kind: "interrupted", trouble: { kind: "refused" } });
    vi.advanceTimersByTime(300);
    expect(asked(test)).toEqual(["a", "a"]);
  });

  it("asks for a gesture where the browser wants one", async () => {
    const test = bench();
    test.audio.blocked = true;
    test.receiver.follow({ kind: "newest" });
    test.net.socket.open(["a"]);
    await offered(test);
    expect(test.receiver.state).toEqual({ kind: "blocked", streamId: "a" });
    test.audio.blocked = false;
    test.receiver.unlock();
    await settle();
    expect(test.receiver.state).toEqual({ kind: "playing", streamId: "a" });
  });

  it("stops the media when nobody shall be heard", async () => {
    const test = bench();
    test.receiver.follow({ kind: "newest" });
    test.net.socket.open(["a"]);
    await offered(test);
    test.receiver.follow({ kind: "nobody" });
    expect(test.net.socket.types().at(-1)).toBe("stop_stream");
    expect([test.receiver.state.kind, test.peers[0]?.closed]).toEqual(["off", true]);
    test.net.socket.say({ type: "stream_available", stream_id: "b" });
    expect(asked(test)).toEqual(["a"]);
  });
});
