import { describe, expect, it } from "vitest";
import { Api } from "./client";
import { cameraFrom, iceServersFrom, totalsFrom } from "./wire";

interface Call {
  url: string;
  init: RequestInit | undefined;
}

function bench(answers: (url: string) => unknown, key = "") {
  const calls: Call[] = [];
  const api = new Api({
    fetch: async (url, init) => {
      calls.push({ url: String(url), init });
      const answer = answers(String(url));
      return answer instanceof Response ? answer : new Response(JSON.stringify(answer));
    },
    key: () => key,
    userId: () => "browser-1",
    page: "page-1",
  });
  return { api, calls };
}

describe("Api", () => {
  it("reserves by name, and keeps the media address on the page's own origin", async () => {
    const { api, calls } = bench(() => ({ reservation_id: "r1", whep_url: "http://10.0.0.7:8086/whep/cam", token: "t", rendition: "sub" }));
    expect(await api.reserve("cam", "low")).toEqual({
      reservationId: "r1",
      whepUrl: "/whep/cam",
      token: "t",
      iceServers: [],
      watching: { rendition: "sub", switches: 0 },
    });
    expect(calls[0]?.url).toBe("/api/v1/stream/reserve");
    expect(JSON.parse(String(calls[0]?.init?.body))).toEqual({ camera_id: "cam", user_id: "browser-1", quality: "low", page: "page-1" });
  });

  it("asks for another quality with a heartbeat, and hears what is sent", async () => {
    const { api, calls } = bench(() => ({ token: "fresh", rendition: "sub", switches: 3 }));
    const watching = { rendition: "sub", switches: 3 };
    expect(await api.heartbeat("r 1", "low")).toEqual({ token: "fresh", watching });
    await api.heartbeat("r 1", null);
    await api.heartbeat("r 1", null, 250);
    expect(calls[0]?.url).toBe("/api/v1/stream/heartbeat/r%201");
    const bodies = calls.map((call) => call.init?.body);
    expect(bodies).toEqual(['{"quality":"low"}', "{}", '{"frames_decoded":250}']);
  });

  it("asks for a large park piece by piece", async () => {
    const ids = Array.from({ length: 2_450 }, (_, at) => ({ id: `cam-${at}` }));
    const { api, calls } = bench((url) => {
      const query = new URL(url, "http://x").searchParams;
      const [offset, limit] = [Number(query.get("offset")), Number(query.get("limit"))];
      return { cameras: ids.slice(offset, offset + limit), total: ids.length };
    });
    expect(await api.cameras()).toHaveLength(2_450);
    expect(calls).toHaveLength(3);
  });

  it("stops where the server's total promises more than it gives", async () => {
    const { api, calls } = bench(() => ({ cameras: [], total: 1e9 }));
    expect(await api.cameras()).toEqual([]);
    expect(calls).toHaveLength(1);
  });

  it("escapes ids in addresses, and sends the key where there is one", async () => {
    const { api, calls } = bench(() => ({ id: "x" }), "secret");
    await api.camera("../a?b");
    expect(calls[0]?.url).toBe("/api/v1/cameras/..%2Fa%3Fb");
    expect(calls[0]?.init?.headers).toMatchObject({ Authorization: "Bearer secret" });
  });

  it("rejects with what the server said", async () => {
    const { api } = bench(() => new Response('{"detail":"no key"}', { status: 401 }));
    await expect(api.totals()).rejects.toMatchObject({ status: 401, sentence: "No key." });
  });
});

describe("wire", () => {
  it("takes ICE servers with their passwords, at most four, and nothing else of that kind", () => {
    const turn = { urls: ["turn:t"], username: "u", credential: "c" };
    expect(iceServersFrom([turn, { urls: ["stun:s", "https://x", 7] }, { urls: "stun:s" }, null])).toEqual([
      turn,
      { urls: ["stun:s"] },
    ]);
    expect(iceServersFrom(Array.from({ length: 9 }, () => turn))).toHaveLength(4);
    expect(iceServersFrom({})).toEqual([]);
  });

  it("survives an answer that is nothing like it should be", () => {
    expect(cameraFrom(null)).toMatchObject({ id: "", viewerCount: 0, retryInS: null, reason: "" });
    expect(cameraFrom({ id: "c", name: 7, viewer_count: -3, reason: null })).toMatchObject({ name: "c", viewerCount: 0 });
    expect(totalsFrom("x")).toMatchObject({ viewers: 0, streams: 0, sources: [] });
  });

  it("counts a stream for each watched camera", () => {
    const totals = totalsFrom({
      total_viewers: 5,
      camera_stats: [
        { camera_id: "a", viewer_count: 4 },
        { camera_id: "b", viewer_count: 1 },
        { camera_id: "c", viewer_count: 0 },
      ],
      stats: [{ source: "METRO", current: 5, limit: 30 }],
      total: { current: 5, limit: 500 },
    });
    expect(totals).toMatchObject({ viewers: 5, streams: 2, sources: [{ source: "METRO", current: 5, limit: 30 }] });
    expect(totals.viewersByCamera.get("a")).toBe(4);
  });
});
