"""A WHEP viewer that shares no code with manifold or Chromium: aiortc.

Watches until it has --frames video frames, prints what it saw as one line of JSON, says DELETE.
"""

import argparse
import array
import asyncio
import json
import urllib.parse

import aiohttp
from aiortc import RTCPeerConnection, RTCRtpReceiver, RTCSessionDescription
from aiortc import rtcdtlstransport

from tone import loudest_hertz

DEADLINE_S = 45
STRIP_COLUMNS = 48
STRIP_SYNC = 0b10110010


class Seen:
    """What arrived."""

    def __init__(self, frames_wanted):
        self.frames_wanted = frames_wanted
        self.size = (0, 0)
        self.video_frames = 0
        self.numbers = []
        self.samples = array.array("h")
        self.rate = 0
        self.enough = asyncio.Event()

    def report(self):
        steps = [b - a for a, b in zip(self.numbers, self.numbers[1:])]
        return {
            "width": self.size[0],
            "height": self.size[1],
            "video_frames": self.video_frames,
            "strips": len(self.numbers),
            "first_frame": self.numbers[0] if self.numbers else 0,
            "last_frame": self.numbers[-1] if self.numbers else 0,
            "frame_gaps": sum(1 for step in steps if step != 1),
            "tone_hz": loudest_hertz(self.samples, self.rate),
        }


async def take_video(track, seen):
    while not seen.enough.is_set():
        frame = await track.recv()
        seen.video_frames += 1
        seen.size = (frame.width, frame.height)
        number = strip_frame_number(frame)
        if number is not None:
            seen.numbers.append(number)
        if seen.video_frames >= seen.frames_wanted and len(seen.samples) >= 24_000:
            seen.enough.set()


async def take_audio(track, seen):
    while not seen.enough.is_set():
        frame = await track.recv()
        samples = array.array("h", bytes(frame.planes[0])[: frame.samples * len(frame.layout.channels) * 2])
        seen.rate = frame.sample_rate
        # The last half second: past the codec's start. One channel of it.
        seen.samples = (seen.samples + samples[:: len(frame.layout.channels)])[-24_000:]


def strip_frame_number(frame):
    """The frame number in the strip of a decoded picture; None where it does not read well."""
    plane = frame.planes[0]
    luma, stride = bytes(plane), plane.line_size
    cell = frame.width // STRIP_COLUMNS
    low, high = cell // 4, max(cell // 4 + 1, -(-cell * 3 // 4))

    def bits(row, first, count):
        value = 0
        for column in range(first, first + count):
            total = 0
            for y in range(row * cell + low, row * cell + high):
                start = y * stride + column * cell
                total += sum(luma[start + low : start + high])
            value = value << 1 | (total >= 128 * (high - low) ** 2)
        return value

    number, captured_ms = bits(0, 8, 32), bits(1, 0, 48)
    crc = crc8(number.to_bytes(4, "big") + captured_ms.to_bytes(6, "big"))
    if bits(0, 0, 8) != STRIP_SYNC or bits(0, 40, 8) != crc:
        return None
    return number


def crc8(data):
    crc = 0
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = (crc << 1 ^ 0x07) & 0xFF if crc & 0x80 else crc << 1
    return crc


def restrict_srtp(name):
    """Makes aiortc offer one SRTP profile only."""
    wanted = [p for p in rtcdtlstransport.SRTP_PROFILES if p.openssl_profile.decode() == name]
    if not wanted:
        known = [p.openssl_profile.decode() for p in rtcdtlstransport.SRTP_PROFILES]
        raise SystemExit(f"aiortc has no SRTP profile {name}; it has {known}")
    rtcdtlstransport.SRTP_PROFILES[:] = wanted


async def watch(options):
    if options.srtp_profile != "any":
        restrict_srtp(options.srtp_profile)
    peer = RTCPeerConnection()
    seen = Seen(options.frames)
    takers = []

    @peer.on("track")
    def on_track(track):
        take = take_video if track.kind == "video" else take_audio
        takers.append(asyncio.ensure_future(take(track, seen)))

    video = peer.addTransceiver("video", direction="recvonly")
    h264 = [c for c in RTCRtpReceiver.getCapabilities("video").codecs if c.mimeType in ("video/H264", "video/rtx")]
    video.setCodecPreferences(h264)
    peer.addTransceiver("audio", direction="recvonly")
    await peer.setLocalDescription(await peer.createOffer())

    headers = {"Authorization": f"Bearer {options.token}"}
    async with aiohttp.ClientSession(headers=headers) as http:
        offer = peer.localDescription.sdp
        async with http.post(options.url, data=offer, headers={"Content-Type": "application/sdp"}) as answer:
            text = await answer.text()
            if answer.status != 201:
                raise SystemExit(f"WHEP POST: {answer.status} {text}")
            resource = urllib.parse.urljoin(options.url, answer.headers["Location"])
        await peer.setRemoteDescription(RTCSessionDescription(sdp=text, type="answer"))
        enough = asyncio.ensure_future(seen.enough.wait())
        done, _ = await asyncio.wait([enough], timeout=DEADLINE_S)
        report = seen.report()
        report["srtp_profile"] = srtp_profile(video.receiver.transport)
        async with http.delete(resource) as answer:
            report["delete_status"] = answer.status
    for taker in takers:
        taker.cancel()
    await asyncio.gather(*takers, return_exceptions=True)
    await peer.close()
    print(json.dumps(report), flush=True)
    if not done:
        raise SystemExit(f"not enough came in {DEADLINE_S} s")


def srtp_profile(transport):
    """The profile that DTLS agreed on."""
    name = transport._ssl.get_selected_srtp_profile()
    return name.decode()


parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--url", required=True)
parser.add_argument("--token", required=True)
parser.add_argument("--frames", type=int, default=45)
parser.add_argument("--srtp-profile", default="any")
asyncio.run(watch(parser.parse_args()))
