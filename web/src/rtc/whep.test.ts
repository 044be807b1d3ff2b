import { describe, expect, it } from "vitest";
import { Refusal } from "./errors";
import { ownAddress, type PeerStage, WhepClient } from "./whep";

const SDP = "v=0\r\na=group:BUNDLE 0 1\r\nm=video 9 X 96\r\na=ice-ufrag:u\r\na=ice-pwd:p\r\na=mid:0\r\n";

/** A peer connection that does nothing by itself. */
class FakePeer extends EventTarget {
  connectionState: RTCPeerConnectionState = "new";
  iceConnectionState: RTCIceConnectionState = "new";
  localDescription: { sdp: string } | null = null;
  remote: RTCSessionDescriptionInit | null = null;
  configuration: RTCConfiguration = {};
  closed = false;
  offers = 0;
  restarts = 0;
  readonly dtls = Object.assign(new EventTarget(), { state: "new" });

  addTransceiver(): unknown {
    return { receiver: { track: {} } };
  }
  getReceivers(): unknown[] {
    return [{ transport: this.dtls }];
  }
  restartIce(): void {
    this.restarts += 1;
  }
  async setLocalDescription(): Promise<void> {
    this.offers += 1;
    this.localDescription = { sdp: SDP };
  }
  async setRemoteDescription(description: RTCSessionDescriptionInit): Promise<void> {
    this.remote = description;
  }
  getConfiguration(): RTCConfiguration {
    return {};
  }
  setConfiguration(configuration: RTCConfiguration): void {
    this.configuration = configuration;
  }
  close(): void {
    this.closed = true;
  }
  emitCandidate(candidate: string | null): void {
    const event = Object.assign(new Event("icecandidate"), { candidate: candidate === null ? null : { candidate } });
    this.dispatchEvent(event);
  }
  become(connection: RTCPeerConnectionState, ice: RTCIceConnectionState): void {
    this.connectionState = connection;
    this.iceConnectionState = ice;
    this.dispatchEvent(new Event("connectionstatechange"));
  }
}

interface Call {
  url: string;
  method: string;
  headers: Record<string, string>;
  body: string;
  keepalive: boolean;
}

function bench(answers: Record<string, () => Response | Promise<Response>>) {
  const calls: Call[] = [];
  const peer = new FakePeer();
  const stages: PeerStage[] = [];
  const client = new WhepClient(
    {
      fetch: async (url, init) => {
        const method = init?.method ?? "GET";
        calls.push({
          url: String(url),
          method,
          headers: init?.headers as Record<string, string>,
          body: String(init?.body ?? ""),
          keepalive: init?.keepalive ?? false,
        });
        const answer = answers[method];
        if (answer === undefined) throw new TypeError("Failed to fetch");
        return answer();
      },
      newPeer: () => peer as unknown as RTCPeerConnection,
      newStream: () => ({}) as MediaStream,
      certificate: null,
    },
    (stage) => stages.push(stage),
  );
  return { client, peer, calls, stages, made: (method: string) => calls.filter((call) => call.method === method) };
}

function created(headers: Record<string, string> = {}): Response {
  return new Response("v=0 answer", { status: 201, headers: { Location: "/whep/cam-1/r1", ETag: '"e1"', ...headers } });
}

const noContent = () => new Response(null, { status: 204 });

/** Lets everything that is already due happen. */
async function settle(): Promise<void> {
  for (let turn = 0; turn < 20; turn += 1) await Promise.resolve();
}

describe("WhepClient", () => {
  it("posts the offer at once, with the token, and applies the answer", async () => {
    const { client, peer, calls } = bench({ POST: () => created() });
    await client.open("/whep/cam-1", "t1");
    expect(calls).toHaveLength(1);
    expect(calls[0]).toMatchObject({
      url: "/whep/cam-1",
      method: "POST",
      body: SDP,
      headers: { "Content-Type": "application/sdp", Authorization: "Bearer t1" },
    });
    expect(peer.remote).toEqual({ type: "answer", sdp: "v=0 answer" });
  });

  it("keeps candidates until the location is known, then sends them in one fragment with the entity tag", async () => {
    let answer: (response: Response) => void = () => undefined;
    const { client, peer, made } = bench({
      POST: () => new Promise((resolve) => (answer = resolve)),
      PATCH: noContent,
    });
    const opened = client.open("/whep/cam-1", "t1");
    await settle();
    peer.emitCandidate("candidate:1");
    peer.emitCandidate("candidate:2");
    expect(made("PATCH")).toHaveLength(0);
    answer(created());
    await opened;
    await settle();
    peer.emitCandidate(null);
    await settle();
    const patches = made("PATCH");
    expect(patches).toHaveLength(2);
    expect(patches[0]).toMatchObject({ url: "/whep/cam-1/r1", headers: { "If-Match": '"e1"' } });
    expect(patches[0]?.body).toContain("a=candidate:1\r\na=candidate:2\r\n");
    expect(patches[1]?.body).toContain("a=end-of-candidates");
  });

  it("sends no fragment where the offer already carried everything", async () => {
    const { client, peer, made } = bench({ POST: () => created(), PATCH: noContent });
    await client.prepare();
    peer.emitCandidate("candidate:1");
    peer.emitCandidate(null);
    await client.open("/whep/cam-1", "t1");
    await settle();
    expect(made("PATCH")).toHaveLength(0);
  });

  it("stops trickling, and nothing else, where the server refuses a fragment", async () => {
    const { client, peer, made, stages } = bench({
      POST: () => created(),
      PATCH: () => new Response("", { status: 412 }),
    });
    await client.open("/whep/cam-1", "t1");
    peer.emitCandidate("candidate:1");
    await settle();
    peer.emitCandidate("candidate:2");
    await settle();
    expect(made("PATCH")).toHaveLength(1);
    expect(stages).toEqual([]);
  });

  it("offers again with the ICE servers, and posts only that offer", async () => {
    const { client, peer, calls, made } = bench({ POST: () => created(), PATCH: noContent });
    await client.prepare();
    peer.emitCandidate("candidate:old");
    peer.emitCandidate(null);
    await client.open("/whep/cam-1", "t1", [{ urls: ["turn:t"], username: "u", credential: "c" }]);
    expect(peer.configuration.iceServers).toEqual([{ urls: ["turn:t"], username: "u", credential: "c" }]);
    expect([peer.offers, peer.restarts]).toEqual([2, 1]);
    expect(calls.map(({ method }) => method)).toEqual(["POST"]);
    peer.emitCandidate("candidate:relay");
    peer.emitCandidate(null);
    await settle();
    const trickled = made("PATCH").map(({ body }) => body).join("");
    expect(trickled).toContain("a=candidate:relay");
    expect(trickled).toContain("a=end-of-candidates");
    expect(trickled).not.toContain("old");
  });

  it("keeps its first offer without ICE servers, and where the browser takes none of them", async () => {
    const { client, peer } = bench({ POST: () => created() });
    await client.open("/whep/cam-1", "t1", []);
    expect([peer.offers, peer.restarts]).toEqual([1, 0]);
    const other = bench({ POST: () => created() });
    other.peer.setConfiguration = () => {
      throw new DOMException("no such scheme", "SyntaxError");
    };
    await other.client.open("/whep/cam-1", "t1", [{ urls: "turn:t" }]);
    expect([other.peer.offers, other.made("POST").length]).toEqual([1, 1]);
  });

  it("turns problem+json into a refusal", async () => {
    const problem = { type: "about:blank", title: "Quota", detail: "All 25 places are taken.", status: 429 };
    const { client } = bench({
      POST: () => new Response(JSON.stringify(problem), { status: 429, headers: { "Retry-After": "7" } }),
    });
    const refused = await client.open("/whep/cam-1", "t1").catch((thrown: unknown) => thrown);
    expect(refused).toBeInstanceOf(Refusal);
    expect(refused).toMatchObject({ status: 429, sentence: "All 25 places are taken.", retryAfterS: 7 });
  });

  it("says that the server cannot be reached where it does not answer", async () => {
    const { client } = bench({});
    await expect(client.open("/whep/cam-1", "t1")).rejects.toMatchObject({ status: 0, code: "NETWORK" });
  });

  it("deletes the session once, with the latest token", async () => {
    const { client, peer, made } = bench({ POST: () => created(), DELETE: noContent });
    await client.open("/whep/cam-1", "t1");
    client.renew("t2");
    client.renew("");
    expect(await client.close()).toBe(true);
    expect(await client.close()).toBe(false);
    expect(peer.closed).toBe(true);
    expect(made("DELETE")).toHaveLength(1);
    expect(made("DELETE")[0]).toMatchObject({ url: "/whep/cam-1/r1", headers: { Authorization: "Bearer t2" } });
  });

  it("waits for an offer in flight, and deletes what it created", async () => {
    let answer: (response: Response) => void = () => undefined;
    const { client, made } = bench({ POST: () => new Promise((resolve) => (answer = resolve)), DELETE: noContent });
    const opened = client.open("/whep/cam-1", "t1");
    await settle();
    const closed = client.close();
    await settle();
    expect(made("DELETE")).toHaveLength(0);
    answer(created());
    await opened;
    expect(await closed).toBe(true);
    expect(made("DELETE")).toHaveLength(1);
  });

  it("leaves a page that goes away by a request that outlives it", async () => {
    const { client, made } = bench({ POST: () => created(), DELETE: noContent });
    await client.open("/whep/cam-1", "t1");
    client.abandon();
    expect(made("DELETE")[0]).toMatchObject({ keepalive: true, url: "/whep/cam-1/r1" });
  });

  it("names the stages of the connection, and the server's goodbye", async () => {
    const { client, peer, stages } = bench({ POST: () => created() });
    await client.open("/whep/cam-1", "t1");
    peer.become("connecting", "checking");
    peer.become("connecting", "connected");
    peer.become("connected", "connected");
    peer.become("disconnected", "disconnected");
    peer.become("connected", "connected");
    peer.dtls.state = "closed";
    peer.dtls.dispatchEvent(new Event("statechange"));
    expect(stages).toEqual(["ice", "dtls", "connected", "interrupted", "connected", "ended"]);
  });
});

it.each([
  ["http://10.0.0.1:8080/whep/cam-1?x=1", "/", "/whep/cam-1?x=1"],
  ["r1", "/whep/cam-1/", "/whep/cam-1/r1"],
  ["/whep/s/1", "/whep/cam-1", "/whep/s/1"],
])("the address %s is %s on the page's own origin", (address, base, own) => {
  expect(ownAddress(address, base)).toBe(own);
});
