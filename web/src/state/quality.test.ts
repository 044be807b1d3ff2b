import { expect, it } from "vitest";
import { qualityFor } from "./quality";

it("asks for the small stream in small tiles", () => {
  expect(qualityFor(320, null)).toBe("low");
  expect(qualityFor(479, "auto")).toBe("low");
  expect(qualityFor(480, null)).toBe("auto");
  expect(qualityFor(1920, "low")).toBe("auto");
});

it("stays where it is while a tile is dragged to and fro around the limit", () => {
  expect(qualityFor(500, "low")).toBe("low");
  expect(qualityFor(500, "auto")).toBe("auto");
  expect(qualityFor(559, "low")).toBe("low");
  expect(qualityFor(560, "low")).toBe("auto");
});

it("learns nothing from a tile that is not shown", () => {
  expect(qualityFor(0, "low")).toBe("low");
  expect(qualityFor(0, "auto")).toBe("auto");
  expect(qualityFor(0, null)).toBe("auto");
});
