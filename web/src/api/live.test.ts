import { afterEach, beforeEach, expect, it, vi } from "vitest";
import { LiveStats, liveAddress } from "./live";
import type { CameraNews, Totals } from "./wire";

/** A socket whose every move the test makes. */
class FakeSocket extends EventTarget {
  closes = 0;
  close(): void {
    this.closes += 1;
  }
  tell(type: string, data: unknown): void {
    this.dispatchEvent(new MessageEvent("message", { data: JSON.stringify({ type, data, timestamp: "" }) }));
  }
  end(): void {
    this.dispatchEvent(new Event("close"));
  }
}

function bench() {
  const sockets: FakeSocket[] = [];
  const totals: Totals[] = [];
  const cameras: CameraNews[] = [];
  const live = new LiveStats({
    address: () => "ws://server/ws/stream/stats",
    newSocket: () => {
      sockets.push(new FakeSocket());
      return sockets.at(-1) as unknown as WebSocket;
    },
    random: () => 0,
    onTotals: (told) => totals.push(told),
    onCamera: (told) => cameras.push(told),
  });
  live.start();
  return { live, sockets, totals, cameras };
}

beforeEach(() => void vi.useFakeTimers());
afterEach(() => void vi.useRealTimers());

it("is fresh while the server tells its figures", () => {
  const { live, sockets, totals } = bench();
  expect(live.fresh).toBe(false);
  sockets[0]?.tell("STREAM_STATS", { total_viewers: 3, total: { current: 3, limit: 9 } });
  expect(live.fresh).toBe(true);
  expect(totals).toMatchObject([{ viewers: 3, total: { current: 3, limit: 9 } }]);
  vi.advanceTimersByTime(12_000);
  expect(live.fresh).toBe(false);
});

it("tells of cameras, and passes over what it does not know", () => {
  const { sockets, cameras } = bench();
  sockets[0]?.tell("NEWS", {});
  sockets[0]?.dispatchEvent(new MessageEvent("message", { data: "no JSON" }));
  sockets[0]?.tell("CAMERA_STATUS", { camera_id: "cam", status: "ERROR", state: "lost", reason: "it went" });
  expect(cameras).toEqual([{ id: "cam", status: "ERROR", state: "lost", reason: "It went." }]);
});

it("connects again with growing waits, until it is stopped", () => {
  const { live, sockets } = bench();
  sockets[0]?.tell("STREAM_STATS", {});
  sockets[0]?.end();
  expect(live.fresh).toBe(false);
  vi.advanceTimersByTime(999);
  expect(sockets).toHaveLength(1);
  vi.advanceTimersByTime(1);
  expect(sockets).toHaveLength(2);
  sockets[1]?.end();
  vi.advanceTimersByTime(2_000);
  expect(sockets).toHaveLength(3);
  live.stop();
  expect(sockets[2]?.closes).toBe(1);
  sockets[2]?.end();
  vi.advanceTimersByTime(60_000);
  expect(sockets).toHaveLength(3);
});

it("has the key in its address, where there is one", () => {
  expect(liveAddress("https://house:8443", "p1", "a+b")).toBe("wss://house:8443/ws/stream/stats?page=p1&token=a%2Bb");
  expect(liveAddress("http://house", "p1", "")).toBe("ws://house/ws/stream/stats?page=p1");
});
