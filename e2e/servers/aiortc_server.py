"""A WHIP and WHEP server that shares no code with manifold: aiortc.

POST /whip takes a publisher, POST /whep serves a viewer, DELETE ends either, GET /seen tells what the
publishers sent. Both want the token. Prints its port as one line of JSON.
"""

import argparse
import asyncio
import itertools
import json

from aiohttp import web
from aiortc import RTCPeerConnection, RTCSessionDescription, VideoStreamTrack


class Server:
    def __init__(self, token):
        self.token = token
        self.sessions = {}
        self.numbers = itertools.count(1)
        self.seen = {"publishers": 0, "ended": 0, "video_frames": 0, "audio_frames": 0, "size": None, "refused": 0}
        self.takers = []
        # Refusals that come before anything is taken: a server that is not ready yet.
        self.refusals = 0

    def routes(self):
        return [
            web.post("/whip", self.whip),
            web.post("/whep", self.whep),
            web.post("/moved", self.moved),
            web.delete("/session/{name}", self.end),
            web.get("/seen", self.tell),
        ]

    async def moved(self, request):
        """RFC 9725 4.5: ask over there."""
        await request.read()
        raise web.HTTPTemporaryRedirect("/whep")

    async def whip(self, request):
        if self.refusals > 0:
            self.refusals -= 1
            self.seen["refused"] += 1
            return web.json_response({"detail": "not ready yet"}, status=503)
        peer = RTCPeerConnection()

        @peer.on("track")
        def on_track(track):
            self.takers.append(asyncio.ensure_future(self.take(track)))

        self.seen["publishers"] += 1
        return await self.answer(request, peer)

    async def whep(self, request):
        peer = RTCPeerConnection()
        peer.addTrack(VideoStreamTrack())
        return await self.answer(request, peer)

    async def answer(self, request, peer):
        if request.headers.get("Authorization") != f"Bearer {self.token}":
            await peer.close()
            return web.json_response({"detail": "this is not the token"}, status=401)
        await peer.setRemoteDescription(RTCSessionDescription(sdp=await request.text(), type="offer"))
        await peer.setLocalDescription(await peer.createAnswer())
        name = str(next(self.numbers))
        self.sessions[name] = peer
        headers = {"Location": f"/session/{name}"}
        return web.Response(
            status=201, text=peer.localDescription.sdp, content_type="application/sdp", headers=headers
        )

    async def take(self, track):
        while True:
            frame = await track.recv()
            self.seen[f"{track.kind}_frames"] += 1
            if track.kind == "video":
                self.seen["size"] = [frame.width, frame.height]

    async def end(self, request):
        peer = self.sessions.pop(request.match_info["name"], None)
        if peer is None:
            return web.Response(status=404)
        self.seen["ended"] += 1
        await peer.close()
        return web.Response(status=200)

    async def tell(self, _request):
        return web.json_response(self.seen | {"sessions": len(self.sessions)})


async def serve(options):
    server = Server(options.token)
    server.refusals = options.refusals
    application = web.Application()
    application.add_routes(server.routes())
    runner = web.AppRunner(application)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = runner.addresses[0][1]
    print(json.dumps({"port": port}), flush=True)
    await asyncio.Event().wait()


parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--token", required=True)
parser.add_argument("--refusals", type=int, default=0)
asyncio.run(serve(parser.parse_args()))
