import { expect, it } from "vitest";
import * as format from "./format";

it("writes figures as people read them", () => {
  expect(format.resolution(640, 360)).toBe("640×360");
  expect(format.framesPerSecond(14.96)).toBe("15");
  expect(format.framesPerSecond(0.96)).toBe("1.0");
  expect(format.bitrate(819_600)).toBe("820 kbit/s");
  expect(format.bitrate(2_049_000)).toBe("2.0 Mbit/s");
  expect(format.percent(0.04)).toBe("0.0 %");
  expect(format.percent(33.3)).toBe("33 %");
  expect(format.milliseconds(2.04)).toBe("2.0 ms");
  expect(format.milliseconds(62.5)).toBe("63 ms");
  expect(format.repairs(12, 14)).toBe("12 / 14");
  expect(format.repairs(null, 3)).toBe("3");
  expect(format.repairs(0, 0)).toBe("0");
  expect(format.stream("sub", 3)).toBe("sub · 3×");
  expect(format.stream("main", 0)).toBe("main");
  expect(format.count(0)).toBe("0");
  expect(format.sourceName("DUBAI_POLICE")).toBe("DUBAI POLICE");
  expect(format.counted(1, "viewer", "viewers")).toBe("1 viewer");
});

it("writes a dash for what is not known", () => {
  const unknown = [format.resolution(null, 1), format.bitrate(null), format.percent(null), format.milliseconds(null)];
  unknown.push(format.repairs(1, null), format.stream("", 0), format.count(null));
  expect(new Set(unknown)).toEqual(new Set(["–"]));
});
