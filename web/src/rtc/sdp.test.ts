import { describe, expect, it } from "vitest";
import { iceIdentity, trickleFragment } from "./sdp";

const OFFER = [
  "v=0",
  "o=- 1 2 IN IP4 127.0.0.1",
  "s=-",
  "t=0 0",
  "a=group:BUNDLE 0 1",
  "m=video 9 UDP/TLS/RTP/SAVPF 96 97",
  "c=IN IP4 0.0.0.0",
  "a=ice-ufrag:EsAw",
  "a=ice-pwd:P2uYro0UCOQ4zxjKXaWCBui1",
  "a=mid:0",
  "m=audio 9 UDP/TLS/RTP/SAVPF 111",
  "a=ice-ufrag:other",
  "a=ice-pwd:otherotherotherotherother",
  "a=mid:1",
  "",
].join("\r\n");

describe("iceIdentity", () => {
  it("reads the first media section", () => {
    expect(iceIdentity(OFFER)).toEqual({
      ufrag: "EsAw",
      pwd: "P2uYro0UCOQ4zxjKXaWCBui1",
      media: "video 9 UDP/TLS/RTP/SAVPF 96 97",
      mid: "0",
      bundle: ["0", "1"],
    });
  });

  it("takes credentials from the session where the section has none", () => {
    const sdp = "v=0\r\na=ice-ufrag:u\r\na=ice-pwd:p\r\nm=video 9 X 96\r\na=mid:v\r\n";
    expect(iceIdentity(sdp)).toEqual({ ufrag: "u", pwd: "p", media: "video 9 X 96", mid: "v", bundle: [] });
  });

  it.each(["", "v=0\r\n", "v=0\r\nm=video 9 X 96\r\na=mid:0\r\n"])("refuses %j", (sdp) => {
    expect(iceIdentity(sdp)).toBeNull();
  });
});

describe("trickleFragment", () => {
  it("is laid out as RFC 9725 shows it", () => {
    const ice = iceIdentity(OFFER);
    if (ice === null) throw new Error("the offer has an identity");
    expect(trickleFragment(ice, ["candidate:1 1 udp 1 192.0.2.1 5 typ host"], true)).toBe(
      [
        "a=group:BUNDLE 0 1",
        "m=video 9 UDP/TLS/RTP/SAVPF 96 97",
        "a=mid:0",
        "a=ice-ufrag:EsAw",
        "a=ice-pwd:P2uYro0UCOQ4zxjKXaWCBui1",
        "a=candidate:1 1 udp 1 192.0.2.1 5 typ host",
        "a=end-of-candidates",
        "",
      ].join("\r\n"),
    );
    expect(trickleFragment(ice, [], false)).not.toContain("end-of-candidates");
  });
});
