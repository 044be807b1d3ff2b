import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { Refusal } from "./errors";
import { CameraSession, type Heartbeat, type Reservation, retryDelayMs, type SessionApi, type SessionState, type Watching } from "./session";
import type { PeerStage, Whep } from "./whep";

function refusal(status: number, retryAfterS: number | null = null, code = ""): Refusal {
  return new Refusal({ status, code, sentence: `status ${status}`, sentenceAr: "", retryAfterS });
}

/** A client whose every answer the test decides. */
class FakeWhep implements Whep {
  readonly stream = {} as MediaStream;
  postedAtMs = 0;
  stage: PeerStage = "new";
  token = "";
  closes = 0;
  abandoned = false;

  constructor(
    readonly house: House,
    readonly onStage: (stage: PeerStage) => void,
  ) {}

  prepare(): Promise<void> {
    return Promise.resolve();
  }
  async open(url: string, token: string, iceServers: readonly RTCIceServer[] = []): Promise<void> {
    this.house.log.push(["open", url, token, ...iceServers.map((server) => server.urls)].join(" "));
    this.house.openNow += 1;
    this.house.openMax = Math.max(this.house.openMax, this.house.openNow);
    if (this.house.whepRefusal !== null) throw this.house.whepRefusal;
  }
  renew(token: string): void {
    this.token = token;
  }
  stats(): Promise<RTCStatsReport> {
    const picture = { type: "inbound-rtp", kind: "video", framesDecoded: this.house.framesDecoded };
    return Promise.resolve(new Map([["in", picture]]) as unknown as RTCStatsReport);
  }
  async close(): Promise<boolean> {
    this.closes += 1;
    this.house.openNow -= 1;
    this.house.log.push("delete");
    return this.house.deleteConfirmed;
  }
  abandon(): void {
    this.abandoned = true;
  }
  become(stage: PeerStage): void {
    this.stage = stage;
    this.onStage(stage);
  }
}

/** The server, and a record of what was asked of it. */
class House implements SessionApi {
  log: string[] = [];
  wheps: FakeWhep[] = [];
  openNow = 0;
  openMax = 0;
  deleteConfirmed = true;
  reserveRefusal: Refusal | null = null;
  whepRefusal: Refusal | null = null;
  heartbeatRefusal: Refusal | null = null;
  reserveGate: Promise<void> = Promise.resolve();
  heartbeatGate: Promise<void> = Promise.resolve();
  iceServers: RTCIceServer[] = [];
  framesDecoded = 7;
  decoded: (number | null)[] = [];
  watching: Watching = { rendition: "main", switches: 0 };
  qualities: (string | null)[] = [];
  #reservations = 0;

  async reserve(_: string, quality: string): Promise<Reservation> {
    this.log.push("reserve");
    this.qualities.push(quality);
    await this.reserveGate;
    if (this.reserveRefusal !== null) throw this.reserveRefusal;
    this.#reservations += 1;
    const [reservationId, token] = [`r${this.#reservations}`, `t${this.#reservations}`];
    return { reservationId, whepUrl: "/whep/cam", token, iceServers: this.iceServers, watching: this.watching };
  }
  async heartbeat(reservationId: string, quality: string | null, framesDecoded: number | null): Promise<Heartbeat> {
    this.log.push(`heartbeat ${reservationId}`);
    this.decoded.push(framesDecoded);
    this.qualities.push(quality);
    await this.heartbeatGate;
    if (this.heartbeatRefusal !== null) throw this.heartbeatRefusal;
    return { token: "fresh", watching: this.watching };
  }
  async release(reservationId: string): Promise<void> {
    this.log.push(`release ${reservationId}`);
  }
  abandon(reservationId: string): void {
    this.log.push(`abandon ${reservationId}`);
  }
  get whep(): FakeWhep {
    const whep = this.wheps.at(-1);
    if (whep === undefined) throw new Error("no attempt was made");
    return whep;
  }
  count(prefix: string): number {
    return this.log.filter((line) => line.startsWith(prefix)).length;
  }
}

function bench() {
  const house = new House();
  const states: SessionState[] = [];
  const told: (Watching | null)[] = [];
  const session = new CameraSession("cam", "auto", {
    api: house,
    newWhep: (onStage) => {
      const whep = new FakeWhep(house, onStage);
      house.wheps.push(whep);
      return whep;
    },
    random: () => 0,
    onState: (state) => states.push(state),
    onStream: () => undefined,
    onWatching: (watching) => told.push(watching),
  });
  return { house, session, states, told };
}

async function connected() {
  const parts = bench();
  parts.session.start();
  await vi.advanceTimersByTimeAsync(0);
  parts.house.whep.become("connected");
  return parts;
}

beforeEach(() => void vi.useFakeTimers());
afterEach(() => void vi.useRealTimers());

describe("CameraSession", () => {
  it("makes the very first offer with the reservation's ICE servers", async () => {
    const { house, session } = bench();
    house.iceServers = [{ urls: "turn:t" }];
    session.start();
    await vi.advanceTimersByTimeAsync(0);
    expect(house.log).toEqual(["reserve", "open /whep/cam t1 turn:t"]);
  });

  it("reserves, connects, and says so step by step", async () => {
    const { house, session, states } = bench();
    session.start();
    session.start();
    await vi.advanceTimersByTimeAsync(0);
    house.whep.become("ice");
    house.whep.become("dtls");
    house.whep.become("connected");
    expect(house.log).toEqual(["reserve", "open /whep/cam t1"]);
    expect(states.map((state) => state.kind)).toEqual([
      "reserving",
      "offering",
      "connecting",
      "connecting",
      "connecting",
      "connected",
    ]);
  });

  it("beats every 10 s and hands the fresh token on", async () => {
    const { house } = await connected();
    await vi.advanceTimersByTimeAsync(35_000);
    expect(house.count("heartbeat r1")).toBe(3);
    expect(house.decoded).toEqual([7, 7, 7]);
    expect(house.whep.token).toBe("fresh");
  });

  it("tells another quality at once, asks soon what came of it, and then goes on as before", async () => {
    const { house, session, told } = await connected();
    session.setQuality("low");
    await vi.advanceTimersByTimeAsync(0);
    house.watching = { rendition: "sub", switches: 1 };
    await vi.advanceTimersByTimeAsync(2_500);
    session.setQuality("low");
    await vi.advanceTimersByTimeAsync(9_000);
    expect(house.qualities).toEqual(["auto", "low", null]);
    const main = { rendition: "main", switches: 0 };
    expect(told).toEqual([null, main, main, { rendition: "sub", switches: 1 }]);
  });

  it("tells a quality again that was not heard, and the next attempt begins with it", async () => {
    const { house, session } = await connected();
    house.heartbeatRefusal = refusal(0);
    session.setQuality("low");
    await vi.advanceTimersByTimeAsync(0);
    house.heartbeatRefusal = null;
    await vi.advanceTimersByTimeAsync(2_000);
    house.whep.become("ended");
    await vi.advanceTimersByTimeAsync(500);
    // Between the two the server is asked why it ended the connection.
    expect(house.qualities).toEqual(["auto", "low", "low", null, "low"]);
  });

  it("tells a quality that changed while it connected", async () => {
    const { house, session } = bench();
    session.start();
    session.setQuality("low");
    await vi.advanceTimersByTimeAsync(0);
    house.whep.become("connected");
    await vi.advanceTimersByTimeAsync(0);
    expect(house.qualities).toEqual(["auto", "low"]);
  });

  it("keeps watching while heartbeats are not answered, and asks more often", async () => {
    const { house, session } = await connected();
    house.heartbeatRefusal = refusal(0);
    await vi.advanceTimersByTimeAsync(16_500);
    expect(house.count("heartbeat")).toBe(4);
    expect(session.state.kind).toBe("connected");
  });

  it("reconnects where the lease has ended", async () => {
    const { house, session } = await connected();
    house.heartbeatRefusal = refusal(404);
    await vi.advanceTimersByTimeAsync(10_000);
    expect(session.state.kind).toBe("pausing");
    expect(house.log.filter((line) => line.startsWith("release"))).toEqual([]);
    house.heartbeatRefusal = null;
    await vi.advanceTimersByTimeAsync(500);
    house.whep.become("connected");
    expect(session.state.kind).toBe("connected");
    expect(house.log.at(-1)).toBe("open /whep/cam t2");
  });

  it("reconnects where the peer ends, and has cleaned up before", async () => {
    const { house, session } = await connected();
    house.whep.become("ended");
    await vi.advanceTimersByTimeAsync(500);
    house.whep.become("connected");
    expect(session.state.kind).toBe("connected");
    expect(house.log).toEqual(["reserve", "open /whep/cam t1", "heartbeat r1", "delete", "reserve", "open /whep/cam t2"]);
    expect(house.openMax).toBe(1);
  });

  it("says in the server's words why its place was given away, and tries again later", async () => {
    const { house, session } = await connected();
    house.heartbeatRefusal = refusal(404, null, "PREEMPTED");
    house.whep.become("ended");
    await vi.advanceTimersByTimeAsync(0);
    expect(session.state).toMatchObject({ kind: "pausing", cause: { code: "PREEMPTED", sentence: "status 404" } });
    expect(house.count("release")).toBe(0);
    await vi.advanceTimersByTimeAsync(9_900);
    expect(house.count("reserve")).toBe(1);
    await vi.advanceTimersByTimeAsync(200);
    expect(house.count("reserve")).toBe(2);
  });

  it("does not come back by itself where somebody sent the viewer away", async () => {
    const { house, session } = await connected();
    house.heartbeatRefusal = refusal(404, null, "REMOVED");
    house.whep.become("ended");
    await vi.advanceTimersByTimeAsync(0);
    expect(session.state).toMatchObject({ kind: "refused", cause: { code: "REMOVED" } });
  });

  it("waits no longer than a moment to hear why it was ended", async () => {
    const { house, session } = await connected();
    house.heartbeatGate = new Promise(() => undefined);
    house.whep.become("ended");
    await vi.advanceTimersByTimeAsync(1_500);
    expect(session.state).toMatchObject({ kind: "pausing", cause: { code: "LOST" } });
  });

  it("lets an interruption heal, and gives up on one that does not", async () => {
    const { house, session } = await connected();
    house.whep.become("interrupted");
    await vi.advanceTimersByTimeAsync(3_900);
    house.whep.become("connected");
    await vi.advanceTimersByTimeAsync(3_900);
    expect(house.wheps).toHaveLength(1);
    house.whep.become("interrupted");
    await vi.advanceTimersByTimeAsync(4_000);
    expect(session.state.kind).toBe("pausing");
  });

  it("names the rung where no way is found or no keys are agreed", async () => {
    for (const [stage, words] of [
      ["ice", "media port"],
      ["dtls", "encryption"],
    ] as const) {
      const { house, session } = bench();
      session.start();
      await vi.advanceTimersByTimeAsync(0);
      house.whep.become(stage);
      await vi.advanceTimersByTimeAsync(12_000);
      expect(session.state).toMatchObject({ kind: "pausing", cause: { sentence: expect.stringContaining(words) } });
    }
  });

  it("backs off while the server is away, and starts over after a success", async () => {
    const { house, session } = await connected();
    await vi.advanceTimersByTimeAsync(6_000);
    house.reserveRefusal = refusal(0);
    house.whep.become("ended");
    await vi.advanceTimersByTimeAsync(500 + 1_000 + 2_000 + 4_000 + 8_000 + 8_000);
    expect(house.count("reserve")).toBe(1 + 6);
    house.reserveRefusal = null;
    session.retryNow();
    await vi.advanceTimersByTimeAsync(0);
    house.whep.become("connected");
    await vi.advanceTimersByTimeAsync(6_000);
    house.whep.become("ended");
    await vi.advanceTimersByTimeAsync(0);
    expect(session.state).toMatchObject({ kind: "pausing", retryAtMs: performance.now() + 500 });
  });

  it("waits as long as a full quota asks", async () => {
    const { house, session } = bench();
    house.reserveRefusal = refusal(429, 30, "RATE_LIMIT_EXCEEDED");
    session.start();
    await vi.advanceTimersByTimeAsync(29_000);
    expect(house.count("reserve")).toBe(1);
    await vi.advanceTimersByTimeAsync(1_000);
    expect(house.count("reserve")).toBe(2);
  });

  it("does not try again by itself where a key is missing, but on demand", async () => {
    const { house, session } = bench();
    house.reserveRefusal = refusal(401);
    session.start();
    await vi.advanceTimersByTimeAsync(600_000);
    expect(house.count("reserve")).toBe(1);
    expect(session.state.kind).toBe("refused");
    house.reserveRefusal = null;
    session.retryNow();
    await vi.advanceTimersByTimeAsync(0);
    expect(house.count("open")).toBe(1);
  });

  it("takes a fresh token where the media route refuses the old one", async () => {
    const { house, session } = bench();
    house.whepRefusal = refusal(401);
    session.start();
    await vi.advanceTimersByTimeAsync(0);
    house.whepRefusal = null;
    await vi.advanceTimersByTimeAsync(500);
    expect(house.log).toEqual(["reserve", "open /whep/cam t1", "delete", "reserve", "open /whep/cam t2"]);
  });

  it("releases what no WHEP session ended", async () => {
    const { house, session } = bench();
    house.deleteConfirmed = false;
    house.whepRefusal = refusal(500);
    session.start();
    await vi.advanceTimersByTimeAsync(0);
    expect(house.log).toEqual(["reserve", "open /whep/cam t1", "delete", "release r1"]);
  });

  it("closes once, however often it is asked, and stays closed", async () => {
    const { house, session, states } = await connected();
    await Promise.all([session.close(), session.close()]);
    await session.close();
    await vi.advanceTimersByTimeAsync(120_000);
    expect(house.log).toEqual(["reserve", "open /whep/cam t1", "delete"]);
    expect(states.at(-1)?.kind).toBe("closed");
    expect(vi.getTimerCount()).toBe(0);
  });

  it("gives a place back that was granted after the close", async () => {
    const { house, session } = bench();
    let grant: () => void = () => undefined;
    house.reserveGate = new Promise((resolve) => (grant = resolve));
    house.deleteConfirmed = false;
    session.start();
    const closed = session.close();
    grant();
    await closed;
    expect(house.log).toEqual(["reserve", "delete", "release r1"]);
  });

  it("closes in a pause at once", async () => {
    const { house, session } = bench();
    house.reserveRefusal = refusal(429, 3_600);
    session.start();
    await vi.advanceTimersByTimeAsync(0);
    await session.close();
    expect(session.state.kind).toBe("closed");
    expect(vi.getTimerCount()).toBe(0);
  });

  it("asks after the lease when told that the picture stopped, at most once a second", async () => {
    const { house, session } = await connected();
    await vi.advanceTimersByTimeAsync(2_000);
    session.check();
    session.check();
    await vi.advanceTimersByTimeAsync(999);
    session.check();
    expect(house.count("heartbeat")).toBe(1);
    await vi.advanceTimersByTimeAsync(1);
    session.check();
    expect(house.count("heartbeat")).toBe(2);
  });

  it("says goodbye without waiting when the page goes away", async () => {
    const { house, session } = await connected();
    session.abandon();
    await vi.advanceTimersByTimeAsync(60_000);
    expect(house.whep.abandoned).toBe(true);
    expect(house.count("abandon r1")).toBe(1);
    expect(house.count("reserve")).toBe(1);
  });
});

it.each([
  [0, null, 0, 500],
  [0, null, 9, 8_000],
  [401, null, 0, null],
  [403, null, 0, null],
  [404, null, 0, 30_000],
  [406, null, 0, null],
  [409, null, 1, 1_000],
  [409, 4, 0, 4_000],
  [429, null, 0, 5_000],
  [429, 0, 0, 1_000],
  [503, 2, 3, 2_000],
])("after status %d, told to wait %s s, failure %d: %s ms", (status, retryAfterS, failures, delayMs) => {
  expect(retryDelayMs(refusal(status, retryAfterS), failures, 0)).toBe(delayMs);
});
