import { describe, expect, it } from "vitest";
import { type SwitchMode, TalkSwitch } from "./voice-switch";

function bench(mode: SwitchMode) {
  const log: string[] = [];
  const talk = new TalkSwitch({ start: () => log.push("start"), stop: () => log.push("stop") });
  talk.mode = mode;
  return { log, talk };
}

describe("TalkSwitch", () => {
  it("held, talks while anything is down", () => {
    const { log, talk } = bench("hold");
    talk.handleDown("pointer 1");
    talk.handleDown("key  ");
    talk.handleUp("pointer 1");
    expect(log).toEqual(["start"]);
    talk.handleUp("key  ");
    expect(log).toEqual(["start", "stop"]);
  });

  it("takes a key's repetition for one press", () => {
    const { log, talk } = bench("hold");
    for (let repeat = 0; repeat < 5; repeat++) talk.handleDown("key  ");
    talk.handleUp("key  ");
    talk.handleUp("key  ");
    expect(log).toEqual(["start", "stop"]);
  });

  it("latched, each press begins or ends", () => {
    const { log, talk } = bench("latch");
    talk.handleDown("pointer 1");
    talk.handleUp("pointer 1");
    expect(log).toEqual(["start"]);
    talk.handleDown("key Enter");
    talk.handleUp("key Enter");
    expect(log).toEqual(["start", "stop"]);
  });

  it("ends a held talk with the focus, and keeps a latched one", () => {
    const held = bench("hold");
    held.talk.handleDown("key  ");
    held.talk.handleLost();
    held.talk.handleUp("key  ");
    expect(held.log).toEqual(["start", "stop"]);
    const latched = bench("latch");
    latched.talk.handleDown("pointer 1");
    latched.talk.handleLost();
    expect(latched.log).toEqual(["start"]);
  });

  it("ends the talk when the mode changes", () => {
    const { log, talk } = bench("latch");
    talk.handleDown("pointer 1");
    talk.handleUp("pointer 1");
    talk.mode = "hold";
    expect(log).toEqual(["start", "stop"]);
  });

  it("begins anew after a talk that ended by itself", () => {
    const { log, talk } = bench("latch");
    talk.handleDown("pointer 1");
    talk.handleUp("pointer 1");
    talk.handleEnded();
    talk.handleDown("pointer 1");
    expect(log).toEqual(["start", "start"]);
  });
});
