"""Somebody who speaks and shares no code with manifold or Chromium: aiortc.

Written from the relay's protocol alone: opens the WebSocket, asks to send, offers a tone, and speaks until
SIGTERM, which says stop_stream. Prints one line of JSON a change. aiortc knows no redundancy (RED).
"""

import argparse
import array
import asyncio
import fractions
import json
import math
import signal
import time

import aiohttp
import av
from aiortc import RTCPeerConnection, RTCSessionDescription
from aiortc.mediastreams import MediaStreamTrack

RATE = 48_000
FRAME = RATE // 50


def say(**what):
    print(json.dumps(what), flush=True)


class Tone(MediaStreamTrack):
    """A sine of --hertz at half of full scale, in frames of 20 ms."""

    kind = "audio"

    def __init__(self, hertz):
        super().__init__()
        self.hertz = hertz
        self.position = 0
        self.start = time.monotonic()

    async def recv(self):
        due = self.start + self.position / RATE
        await asyncio.sleep(max(0, due - time.monotonic()))
        step = 2 * math.pi * self.hertz / RATE
        samples = [round(16_383 * math.sin((self.position + i) * step)) for i in range(FRAME)]
        frame = av.AudioFrame(format="s16", layout="mono", samples=FRAME)
        frame.planes[0].update(array.array("h", samples).tobytes())
        frame.pts = self.position
        frame.sample_rate = RATE
        frame.time_base = fractions.Fraction(1, RATE)
        self.position += FRAME
        return frame


async def speak(options):
    ended = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, ended.set)
    peer = RTCPeerConnection()

    @peer.on("connectionstatechange")
    def on_state():
        say(state=peer.connectionState)

    async with aiohttp.ClientSession() as http, http.ws_connect(options.url) as socket:
        await socket.send_json({"type": "start_sending"})
        talking = asyncio.ensure_future(converse(socket, peer, options.hertz))
        ending = asyncio.ensure_future(ended.wait())
        done, _ = await asyncio.wait([talking, ending], return_when=asyncio.FIRST_COMPLETED)
        if talking in done:
            raise SystemExit(f"the server closed the WebSocket: {talking.exception()}")
        talking.cancel()
        await socket.send_json({"type": "stop_stream"})
    await peer.close()


async def converse(socket, peer, hertz):
    async for message in socket:
        told = json.loads(message.data)
        match told["type"]:
            case "sender_ready":
                say(stream=f"stream_{told['connection_id']}")
                # As web pages do it: nothing is said of a direction, which makes it sendrecv.
                peer.addTrack(Tone(hertz))
                await peer.setLocalDescription(await peer.createOffer())
                offer = {"sdp": peer.localDescription.sdp, "type": "offer"}
                await socket.send_json({"type": "webrtc_offer", "offer": offer})
            case "webrtc_answer":
                await peer.setRemoteDescription(RTCSessionDescription(**told["answer"]))
                say(state="answered")
            case "error":
                raise SystemExit(told["message"])


parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--url", required=True, help="ws://host:port/ws")
parser.add_argument("--hertz", type=int, default=440)
asyncio.run(speak(parser.parse_args()))
