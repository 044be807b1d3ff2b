import { describe, expect, it } from "vitest";
import { cameraFrom } from "../api/wire";
import { Refusal } from "../rtc/errors";
import type { SessionState } from "../rtc/session";
import { type HealthFacts, health } from "./health";

function facts(session: SessionState, more: Partial<HealthFacts> = {}): HealthFacts {
  return {
    session,
    camera: null,
    cameraAtMs: 0,
    cameraState: "live",
    cameraReason: "",
    packetsReceived: 0,
    framesDecoded: 0,
    advancing: false,
    arriving: false,
    everPlayed: false,
    ...more,
  };
}

function pausing(status: number, code = "", sentence = "Because."): SessionState {
  const cause = new Refusal({ status, code, sentence, sentenceAr: "لأن.", retryAfterS: null });
  return { kind: "pausing", cause, retryAtMs: 9_000 };
}

const connected: SessionState = { kind: "connected" };

describe("health", () => {
  it("climbs the ladder from the reservation to the picture", () => {
    const ladder: [HealthFacts, string, string][] = [
      [facts({ kind: "idle" }), "idle", "server"],
      [facts({ kind: "reserving" }), "connecting", "server"],
      [facts({ kind: "offering" }), "connecting", "offer"],
      [facts({ kind: "connecting", stage: "ice" }), "connecting", "ice"],
      [facts({ kind: "connecting", stage: "dtls" }), "connecting", "dtls"],
      [facts(connected, { cameraState: "connecting" }), "connecting", "camera"],
      [facts(connected), "connecting", "first_packet"],
      [facts(connected, { arriving: true, packetsReceived: 5 }), "connecting", "first_keyframe"],
      [facts(connected, { arriving: true, framesDecoded: 5, everPlayed: true }), "waiting", "decode"],
      [facts(connected, { advancing: true, arriving: true, everPlayed: true }), "playing", "playing"],
      [facts({ kind: "interrupted" }, { everPlayed: true }), "waiting", "ice"],
    ];
    for (const [given, condition, rung] of ladder) expect(health(given)).toMatchObject({ condition, rung });
  });

  it("says nothing but gives a sentence for everything else", () => {
    expect(health(facts(connected, { advancing: true })).reason).toBe("");
    expect(health(facts(connected, { arriving: true })).reason).toMatch(/\.$/);
  });

  it("gives the camera's reason, and when the server calls it again", () => {
    const camera = cameraFrom({ id: "c", state: "lost", reason: "the camera closed the connection", retry_in_s: 4 });
    const told = health(
      facts(connected, { camera, cameraAtMs: 1_000, cameraState: "lost", cameraReason: camera.reason, everPlayed: true }),
    );
    expect(told).toMatchObject({
      condition: "waiting",
      rung: "camera",
      headline: "Signal lost",
      reason: "The camera closed the connection.",
      next: { what: "camera", atMs: 5_000 },
    });
  });

  it.each([
    [401, "", "error", "token", "Key needed"],
    [403, "", "error", "token", "Not allowed"],
    [404, "", "error", "camera", "Unknown camera"],
    [406, "", "error", "offer", "No common codec"],
    [409, "", "waiting", "camera", "No picture"],
    [410, "PREEMPTED", "waiting", "quota", "Place given away"],
    [410, "EXPIRED", "waiting", "token", "Reconnecting"],
    [429, "RATE_LIMIT_EXCEEDED", "waiting", "quota", "All places taken"],
    [0, "NETWORK", "waiting", "server", "Server unreachable"],
    [0, "LOST", "waiting", "ice", "Reconnecting"],
    [500, "", "waiting", "server", "Refused by the server"],
  ])("names status %d %s: %s at %s, “%s”", (status, code, condition, rung, headline) => {
    expect(health(facts(pausing(status, code)))).toMatchObject({
      condition,
      rung,
      headline,
      reason: "Because.",
      reasonAr: "لأن.",
      next: { what: "retry", atMs: 9_000 },
    });
  });

  it("prefers the camera's fresh reason over the refusal that quoted an older one", () => {
    const camera = cameraFrom({ id: "c", state: "unauthorized" });
    const told = health(
      facts(pausing(409), { camera, cameraState: "unauthorized", cameraReason: "The camera refuses the password." }),
    );
    expect(told).toMatchObject({ headline: "Password refused", reason: "The camera refuses the password." });
  });
});
