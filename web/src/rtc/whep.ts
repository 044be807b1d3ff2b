/**
 * One WHEP session: an offer to receive one picture and its sound, answered by the server.
 *
 * A client is used once: `prepare` (in parallel with whatever yields the token), `open`, `close`.
 * It knows nothing of reservations, and never connects again by itself; `session.ts` does both.
 *
 * The POST leaves as soon as the offer exists. The server is ICE-lite and learns our address from
 * our own checks, so waiting for candidates would only cost time; they trickle after the answer.
 */

import { refusalFrom, unreachable } from "./errors";
import { iceIdentity, trickleFragment } from "./sdp";

/**
 * How far the peer connection has come.
 *
 * `interrupted` may heal by itself; `ended` will not.
 */
export type PeerStage = "new" | "ice" | "dtls" | "connected" | "interrupted" | "ended";

/** How long the server may take over one request before the attempt counts as unanswered. */
const REQUEST_MS_MAX = 10_000;

/** What a client is built from; tests hand in their own. */
export interface WhepOptions {
  readonly fetch: typeof fetch;
  readonly newPeer: (configuration: RTCConfiguration) => RTCPeerConnection;
  readonly newStream: (tracks: MediaStreamTrack[]) => MediaStream;
  /** Made once a page: generating one takes longer than the rest of the offer. */
  readonly certificate: RTCCertificate | null;
}

/** The options of a real page. */
export function browserOptions(): WhepOptions {
  return {
    fetch: (input, init) => fetch(input, init),
    newPeer: (configuration) => new RTCPeerConnection(configuration),
    newStream: (tracks) => new MediaStream(tracks),
    certificate: null,
  };
}

/** What a session needs of a client; tests bring their own. */
export type Whep = Pick<
  WhepClient,
  "stream" | "postedAtMs" | "stage" | "prepare" | "open" | "renew" | "stats" | "close" | "abandon"
>;

export class WhepClient {
  /** Picture and sound; valid from construction, so that a `<video>` can wait on it. */
  readonly stream: MediaStream;
  /** When the POST left, on the `performance.now()` clock; 0 before. */
  postedAtMs = 0;

  readonly #options: WhepOptions;
  readonly #peer: RTCPeerConnection;
  readonly #onStage: (stage: PeerStage) => void;
  #stage: PeerStage = "new";
  #prepared: Promise<void> | null = null;
  #opened: Promise<void> | null = null;
  #token = "";
  #resource: string | null = null;
  #etag: string | null = null;
  #candidates: string[] = [];
  #candidatesComplete = false;
  #trickling = false;
  #trickleDone = false;
  #closed = false;

  constructor(options: WhepOptions, onStage: (stage: PeerStage) => void) {
    this.#options = options;
    this.#onStage = onStage;
    this.#peer = options.newPeer({
      bundlePolicy: "max-bundle",
      ...(options.certificate === null ? {} : { certificates: [options.certificate] }),
    });
    const video = this.#peer.addTransceiver("video", { direction: "recvonly" });
    const audio = this.#peer.addTransceiver("audio", { direction: "recvonly" });
    this.stream = options.newStream([video.receiver.track, audio.receiver.track]);
    this.#peer.addEventListener("icecandidate", (event) => this.#handleCandidate(event.candidate));
    for (const event of ["iceconnectionstatechange", "connectionstatechange"]) {
      this.#peer.addEventListener(event, () => this.#handleState());
    }
  }

  get stage(): PeerStage {
    return this.#stage;
  }

  /** Makes the offer. Calling it again waits for the same one. */
  prepare(): Promise<void> {
    this.#prepared ??= this.#peer.setLocalDescription();
    return this.#prepared;
  }

  /**
   * Sends the offer to `url` and applies the answer. With `iceServers` the offer is made again first,
   * so that it can be reached through them.
   *
   * Rejects with a `Refusal` where the server says no or nothing.
   */
  open(url: string, token: string, iceServers: readonly RTCIceServer[] = []): Promise<void> {
    this.#token = token;
    this.#opened ??= this.#open(url, iceServers);
    return this.#opened;
  }

  /** Takes a fresher token for the requests still to come; an empty one changes nothing. */
  renew(token: string): void {
    if (token !== "") this.#token = token;
  }

  /** The browser's counters of this connection. */
  stats(): Promise<RTCStatsReport> {
    return this.#peer.getStats();
  }

  /**
   * Ends the session here and at the server. Says whether the server confirmed it.
   *
   * Never rejects. An offer still in flight is waited for, so that its answer is not left behind.
   */
  async close(): Promise<boolean> {
    if (this.#closed) return false;
    this.#closed = true;
    this.#peer.close();
    await this.#opened?.catch(() => undefined);
    if (this.#resource === null) return false;
    const answer = await this.#send(this.#resource, { method: "DELETE" }).catch(() => null);
    return answer !== null && (answer.ok || answer.status === 404);
  }

  /** The page is going away: the last word, sent without waiting for an answer. */
  abandon(): void {
    this.#closed = true;
    if (this.#resource !== null) {
      void this.#send(this.#resource, { method: "DELETE", keepalive: true }).catch(() => undefined);
    }
    this.#peer.close();
  }

  async #open(url: string, iceServers: readonly RTCIceServer[]): Promise<void> {
    await this.prepare();
    if (iceServers.length > 0) await this.#gatherThrough(iceServers);
    // Candidates found so far are part of the description that is sent.
    this.#candidates = [];
    const offer = this.#peer.localDescription?.sdp ?? "";
    const complete = this.#candidatesComplete;
    this.postedAtMs = performance.now();
    const answer = await this.#send(url, {
      method: "POST",
      headers: { "Content-Type": "application/sdp", Accept: "application/sdp" },
      body: offer,
      priority: "high",
    }).catch(() => {
      throw unreachable();
    });
    if (!answer.ok) throw await refusalFrom(answer);
    const location = answer.headers.get("Location");
    this.#resource = location === null ? null : ownAddress(location, url);
    this.#etag = answer.headers.get("ETag");
    await this.#applyAnswer(await answer.text());
    if (!complete) void this.#trickle();
  }

  /** Gathers from the beginning: candidates of the servers belong to an offer made with them. */
  async #gatherThrough(iceServers: readonly RTCIceServer[]): Promise<void> {
    if (this.#closed) return;
    try {
      this.#peer.setConfiguration({ ...this.#peer.getConfiguration(), iceServers: [...iceServers] });
    } catch {
      // What this browser does not take as a server, it does without.
      return;
    }
    this.#peer.restartIce();
    this.#candidatesComplete = false;
    await this.#peer.setLocalDescription();
  }

  async #applyAnswer(sdp: string): Promise<void> {
    if (this.#closed) return;
    await this.#peer.setRemoteDescription({ type: "answer", sdp });
    for (const receiver of this.#peer.getReceivers()) {
      receiver.transport?.addEventListener("statechange", () => this.#handleState());
    }
    this.#handleState();
  }

  #handleCandidate(candidate: RTCIceCandidate | null): void {
    if (candidate === null) this.#candidatesComplete = true;
    else if (candidate.candidate !== "") this.#candidates.push(candidate.candidate);
    void this.#trickle();
  }

  /** Sends what has been found since the last fragment; one request at a time keeps their order. */
  async #trickle(): Promise<void> {
    if (this.#resource === null || this.#trickling || this.#trickleDone) return;
    this.#trickling = true;
    try {
      let finished = false;
      while (!this.#closed && !finished && (this.#candidates.length > 0 || this.#candidatesComplete)) {
        finished = this.#candidatesComplete;
        await this.#sendCandidates(this.#candidates.splice(0), finished);
      }
      this.#trickleDone ||= finished;
    } catch {
      // A helping hand, not a need: the server sees our address in the first check.
      this.#trickleDone = true;
    } finally {
      this.#trickling = false;
    }
  }

  async #sendCandidates(candidates: readonly string[], complete: boolean): Promise<void> {
    const ice = iceIdentity(this.#peer.localDescription?.sdp ?? "");
    if (ice === null || this.#resource === null) return;
    const answer = await this.#send(this.#resource, {
      method: "PATCH",
      headers: {
        "Content-Type": "application/trickle-ice-sdpfrag",
        ...(this.#etag === null ? {} : { "If-Match": this.#etag }),
      },
      body: trickleFragment(ice, candidates, complete),
    });
    if (!answer.ok) throw await refusalFrom(answer);
  }

  #handleState(): void {
    if (this.#closed) return;
    const stage = stageOf(this.#peer);
    if (stage === this.#stage) return;
    this.#stage = stage;
    this.#onStage(stage);
  }

  #send(url: string, init: RequestInit): Promise<Response> {
    return this.#options.fetch(url, {
      ...init,
      headers: { ...init.headers, Authorization: `Bearer ${this.#token}` },
      cache: "no-store",
      ...(init.keepalive === true ? {} : { signal: AbortSignal.timeout(REQUEST_MS_MAX) }),
    });
  }
}

/**
 * An address that the server gave, as a path on the page's own origin.
 *
 * Every listener serves every route, and the page's policy lets it speak to its own origin alone;
 * a host name that only the server knows itself by would otherwise be refused.
 */
export function ownAddress(address: string, base: string): string {
  const url = new URL(address, new URL(base, "http://page.invalid"));
  return url.pathname + url.search;
}

function stageOf(peer: RTCPeerConnection): PeerStage {
  // The server's close_notify shows on the transport long before ICE notices the silence.
  const transports = peer.getReceivers().map((receiver) => receiver.transport?.state);
  if (transports.includes("closed") || transports.includes("failed")) return "ended";
  switch (peer.connectionState) {
    case "failed":
    case "closed":
      return "ended";
    case "disconnected":
      return "interrupted";
    case "connected":
      return "connected";
    case "new":
    case "connecting":
      return unconnectedStage(peer.iceConnectionState);
  }
}

function unconnectedStage(ice: RTCIceConnectionState): PeerStage {
  if (ice === "connected" || ice === "completed") return "dtls";
  return ice === "new" ? "new" : "ice";
}
