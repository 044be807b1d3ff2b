"""Somebody who listens to a voice and shares no code with manifold or Chromium: aiortc.

Written from the relay's protocol alone: opens the WebSocket, asks for a voice until there is one, answers
the server's offer, and prints one line of JSON once it has heard --seconds of sound.
"""

import argparse
import array
import asyncio
import json

import aiohttp
from aiortc import RTCPeerConnection, RTCSessionDescription

from tone import loudest_hertz

DEADLINE_S = 45
RETRY_S = 0.5


class Ear:
    """What arrived, and the last half second of it."""

    def __init__(self, seconds):
        self.seconds = seconds
        self.heard = 0.0
        self.rate = 0
        self.samples = array.array("h")
        self.enough = asyncio.Event()

    async def take(self, track):
        while not self.enough.is_set():
            frame = await track.recv()
            channels = len(frame.layout.channels)
            samples = array.array("h", bytes(frame.planes[0])[: frame.samples * channels * 2])[::channels]
            self.rate = frame.sample_rate
            self.samples = (self.samples + samples)[-self.rate // 2 :]
            self.heard += frame.samples / frame.sample_rate
            if self.heard >= self.seconds:
                self.enough.set()


async def listen(options):
    ear = Ear(options.seconds)
    messages = []
    async with aiohttp.ClientSession() as http, http.ws_connect(options.url) as socket:
        talking = asyncio.ensure_future(converse(socket, ear, messages, options.stream))
        enough = asyncio.ensure_future(ear.enough.wait())
        done, _ = await asyncio.wait([enough, talking], timeout=DEADLINE_S, return_when=asyncio.FIRST_COMPLETED)
        if talking in done:
            talking.result()
        talking.cancel()
        await asyncio.gather(talking, return_exceptions=True)
        print(json.dumps({"tone_hz": loudest_hertz(ear.samples, ear.rate), "heard_s": ear.heard, "messages": messages}))
    if enough not in done:
        raise SystemExit(f"not enough came in {DEADLINE_S} s: {messages[-5:]}")


async def converse(socket, ear, messages, stream):
    ask = {"type": "start_receiving"} | ({"stream_id": stream} if stream else {})
    peer = None
    try:
        await socket.send_json(ask)
        async for message in socket:
            told = json.loads(message.data)
            messages.append(told["type"])
            if told["type"] == "webrtc_offer":
                if peer is not None:
                    await peer.close()
                peer = RTCPeerConnection()
                peer.on("track", lambda track: asyncio.ensure_future(ear.take(track)))
                await peer.setRemoteDescription(RTCSessionDescription(**told["offer"]))
                await peer.setLocalDescription(await peer.createAnswer())
                answer = {"sdp": peer.localDescription.sdp, "type": "answer"}
                await socket.send_json({"type": "webrtc_answer", "answer": answer})
            elif told["type"] == "error" and "No audio stream" in told["message"]:
                await asyncio.sleep(RETRY_S)
                await socket.send_json(ask)
        raise SystemExit("the server closed the WebSocket")
    finally:
        if peer is not None:
            await peer.close()


parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--url", required=True, help="ws://host:port/ws")
parser.add_argument("--stream")
parser.add_argument("--seconds", type=float, default=3)
asyncio.run(listen(parser.parse_args()))
