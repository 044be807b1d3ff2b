/** For the units of the voice classes: a WebSocket, a peer connection and a microphone that a test decides. */

import { type SocketLike, VoiceSocket } from "./voice-socket";
import type { ClientMessage } from "./voice-wire";

/** A network on which every WebSocket is a test's own. */
export class FakeNet {
  sockets: FakeWebSocket[] = [];

  /** A `VoiceSocket` on this network. */
  voiceSocket(): VoiceSocket {
    return new VoiceSocket(() => "ws://host/ws", {
      newSocket: (url) => {
        const made = new FakeWebSocket(url);
        this.sockets.push(made);
        return made as unknown as SocketLike;
      },
      random: () => 0.5,
    });
  }

  get socket(): FakeWebSocket {
    const socket = this.sockets.at(-1);
    if (socket === undefined) throw new Error("no socket was opened");
    return socket;
  }
}

export class FakeWebSocket extends EventTarget {
  readyState = 0;
  sent: ClientMessage[] = [];
  closed = false;

  constructor(readonly url: string) {
    super();
  }

  open(streams: readonly string[] = []): void {
    this.readyState = 1;
    this.dispatchEvent(new Event("open"));
    this.say({ type: "available_streams", streams });
  }

  /** The server says something. */
  say(message: unknown): void {
    this.dispatchEvent(Object.assign(new Event("message"), { data: JSON.stringify(message) }));
  }

  /** The connection is over. */
  lose(code = 1006): void {
    this.readyState = 3;
    this.dispatchEvent(Object.assign(new Event("close"), { code }));
  }

  send(text: string): void {
    this.sent.push(JSON.parse(text) as ClientMessage);
  }

  close(): void {
    this.readyState = 3;
    this.closed = true;
  }

  types(): string[] {
    return this.sent.map((message) => message.type);
  }
}

export class FakePeer extends EventTarget {
  connectionState: RTCPeerConnectionState = "new";
  signalingState: RTCSignalingState = "stable";
  localDescription: RTCSessionDescriptionInit | null = null;
  remote: RTCSessionDescriptionInit | null = null;
  carried: unknown[] = [];
  closed = false;

  addTransceiver(): { sender: { replaceTrack: (track: unknown) => Promise<void> } } {
    return {
      sender: {
        replaceTrack: async (track) => {
          this.carried.push(track);
        },
      },
    };
  }

  async setLocalDescription(): Promise<void> {
    const isAnswer = this.remote?.type === "offer";
    this.signalingState = isAnswer ? "stable" : "have-local-offer";
    this.localDescription = { type: isAnswer ? "answer" : "offer", sdp: isAnswer ? "our answer" : "our offer" };
  }

  async setRemoteDescription(description: RTCSessionDescriptionInit): Promise<void> {
    this.remote = description;
    this.signalingState = description.type === "answer" ? "stable" : "have-remote-offer";
  }

  async addIceCandidate(): Promise<void> {
    // Every candidate is as good as any.
  }

  async getStats(): Promise<RTCStatsReport> {
    return new Map() as unknown as RTCStatsReport;
  }

  become(state: RTCPeerConnectionState): void {
    this.connectionState = state;
    this.dispatchEvent(new Event("connectionstatechange"));
  }

  hear(stream: unknown): void {
    this.dispatchEvent(Object.assign(new Event("track"), { track: {}, streams: [stream] }));
  }

  close(): void {
    this.closed = true;
    this.connectionState = "closed";
  }
}

export class FakeTrack extends EventTarget {
  enabled = true;
  contentHint = "";
  stopped = false;

  stop(): void {
    this.stopped = true;
  }
}

export function streamOf(track: FakeTrack): MediaStream {
  return { getAudioTracks: () => [track] } as unknown as MediaStream;
}

/** Lets all promises that can settle do so. */
export async function settle(): Promise<void> {
  for (let step = 0; step < 12; step++) await Promise.resolve();
}
