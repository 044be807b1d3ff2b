"""A WHIP publisher that shares no code with manifold, Chromium or GStreamer: aiortc.

Publishes a picture whose brightness changes and a tone until SIGTERM, which says DELETE. Prints one
line of JSON a change, as gst_publisher.py does.
"""

import argparse
import asyncio
import fractions
import json
import signal
import time
import urllib.parse

import aiohttp
import av
from aiortc import RTCPeerConnection, RTCRtpSender, RTCSessionDescription
from aiortc.mediastreams import AudioStreamTrack, MediaStreamTrack


def say(**what):
    print(json.dumps(what), flush=True)


class Pictures(MediaStreamTrack):
    """15 pictures a second of one grey each."""

    kind = "video"

    def __init__(self, width, height):
        super().__init__()
        self.size = (width, height)
        self.number = 0
        self.start = time.monotonic()

    async def recv(self):
        due = self.start + self.number / 15
        await asyncio.sleep(max(0, due - time.monotonic()))
        width, height = self.size
        frame = av.VideoFrame(width, height, "yuv420p")
        grey = 40 + self.number % 160
        for index, plane in enumerate(frame.planes):
            plane.update(bytes([grey if index == 0 else 128]) * plane.buffer_size)
        frame.pts = self.number * 6000
        frame.time_base = fractions.Fraction(1, 90000)
        self.number += 1
        return frame


async def publish(options):
    peer = RTCPeerConnection()
    ended = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, ended.set)

    @peer.on("connectionstatechange")
    def on_state():
        if peer.connectionState == "connected":
            say(state="connected")

    transceiver = peer.addTransceiver(Pictures(options.width, options.height), direction="sendonly")
    names = [f"video/{codec}" for codec in options.codec.split(",")]
    codecs = RTCRtpSender.getCapabilities("video").codecs
    transceiver.setCodecPreferences([c for c in codecs if c.mimeType in names or c.mimeType == "video/rtx"])
    peer.addTransceiver(AudioStreamTrack(), direction="sendonly")
    await peer.setLocalDescription(await peer.createOffer())

    headers = {"Authorization": f"Bearer {options.bearer}"} if options.bearer else {}
    async with aiohttp.ClientSession(headers=headers) as http:
        offer = peer.localDescription.sdp
        async with http.post(options.url, data=offer, headers={"Content-Type": "application/sdp"}) as answer:
            text = await answer.text()
            if answer.status != 201:
                raise SystemExit(f"WHIP POST: {answer.status} {text}")
            resource = urllib.parse.urljoin(options.url, answer.headers["Location"])
            say(state="published", location=answer.headers["Location"], etag=answer.headers["ETag"])
        await peer.setRemoteDescription(RTCSessionDescription(sdp=text, type="answer"))
        await ended.wait()
        async with http.delete(resource) as answer:
            say(state="deleted", status=answer.status)
    await peer.close()


parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--url", required=True)
parser.add_argument("--bearer")
parser.add_argument("--width", type=int, default=320)
parser.add_argument("--height", type=int, default=240)
parser.add_argument("--codec", default="H264", help="VP8 or H264, or both with a comma")
asyncio.run(publish(parser.parse_args()))
