#!/usr/bin/python3
"""A WHIP publisher as GStreamer makes one: webrtcbin with an encoder and Opus, its certificate with an
RSA key.

Publishes the test camera's pictures (see cameras/rtsp_camera.py: a strip with frame number and time)
and a tone until it is told to end by SIGTERM, which says DELETE. Prints one line of JSON a change:

    {"state": "published", "location": "...", "etag": "..."}   {"state": "connected"}   {"state": "deleted"}
"""

import argparse
import json
import os
import signal
import sys
import threading
import urllib.error
import urllib.parse
import urllib.request

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "cameras"))

try:
    import gi

    gi.require_version("Gst", "1.0")
    gi.require_version("GstApp", "1.0")
    gi.require_version("GstSdp", "1.0")
    gi.require_version("GstWebRTC", "1.0")
    from gi.repository import Gst, GstApp, GstSdp, GstWebRTC  # noqa: F401
except (ImportError, ValueError) as missing:
    sys.exit(f"GStreamer's WebRTC is missing ({missing}); run: cargo xtask setup")

from rtsp_camera import Painter, feed

DEADLINE_S = 20


def say(**what):
    print(json.dumps(what), flush=True)


def encoder_of(options):
    """From raw pictures to RTP, as the wanted codec has it. Picture ids have 7 bits (mode 1)."""
    vpx = (
        "deadline=1 cpu-used=8 lag-in-frames=0 target-bitrate=1500000 "
        f"keyframe-max-dist={options.gop}"
    )
    return {
        "H264": "x264enc tune=zerolatency speed-preset=ultrafast bitrate=1500 "
        f"key-int-max={options.gop} ! video/x-h264,profile=constrained-baseline,stream-format=byte-stream "
        "! h264parse ! rtph264pay config-interval=-1 aggregate-mode=zero-latency",
        "H265": "x265enc tune=zerolatency speed-preset=ultrafast bitrate=1500 "
        f"key-int-max={options.gop} ! h265parse ! rtph265pay config-interval=-1",
        "VP8": f"vp8enc {vpx} ! rtpvp8pay picture-id-mode=1",
        "VP9": f"vp9enc {vpx} ! rtpvp9pay picture-id-mode=1",
    }[options.codec]


def pipeline_of(options):
    """Pictures from our painter, sound from a tone. Parameter sets come in the offer, and in band with
    keyframes."""
    size = f"width={options.width},height={options.height}"
    return (
        "webrtcbin name=peer bundle-policy=max-bundle "
        f"appsrc name=pictures is-live=true do-timestamp=true format=time caps=video/x-raw,format=I420,{size},framerate={options.fps}/1 "
        f"! queue ! {encoder_of(options)} mtu=1200 pt=96 "
        f"! application/x-rtp,media=video,encoding-name={options.codec},payload=96 ! peer. "
        "audiotestsrc is-live=true freq=440 volume=0.3 ! audio/x-raw,rate=48000,channels=2 ! opusenc "
        "! rtpopuspay pt=97 ! application/x-rtp,media=audio,encoding-name=OPUS,payload=97 ! peer. "
    )


class Publisher:
    def __init__(self, options):
        self.options = options
        self.ready = threading.Event()
        self.gathered = threading.Event()
        self.ended = threading.Event()
        self.resource = None
        self.pipeline = Gst.parse_launch(pipeline_of(options))
        self.peer = self.pipeline.get_by_name("peer")
        self.peer.connect("on-negotiation-needed", lambda _peer: self.ready.set())
        self.peer.connect("notify::ice-gathering-state", self.on_gathering)
        self.peer.connect("notify::connection-state", self.on_connection)

    def on_gathering(self, peer, _what):
        if peer.get_property("ice-gathering-state") == GstWebRTC.WebRTCICEGatheringState.COMPLETE:
            self.gathered.set()

    def on_connection(self, peer, _what):
        state = peer.get_property("connection-state")
        if state == GstWebRTC.WebRTCPeerConnectionState.CONNECTED:
            say(state="connected")

    def run(self):
        self.pipeline.set_state(Gst.State.PLAYING)
        painter = Painter(self.options.width, self.options.height, noise=False)
        pictures = self.pipeline.get_by_name("pictures")
        self.options.stall_after = None
        # Before the offer: webrtcbin offers what it has caps of.
        painting = threading.Thread(target=feed, args=(pictures, painter, self.options, self.ended))
        painting.start()
        try:
            self.publish()
        finally:
            self.ended.set()
            painting.join()
            self.pipeline.set_state(Gst.State.NULL)

    def publish(self):
        if not self.ready.wait(DEADLINE_S):
            sys.exit("the pipeline has nothing to offer")
        made = Gst.Promise.new()
        self.peer.emit("create-offer", None, made)
        made.wait()
        reply = made.get_reply()  # owns the offer
        self.peer.emit("set-local-description", reply.get_value("offer"), None)
        if not self.gathered.wait(DEADLINE_S):
            sys.exit("no candidates were gathered")
        sdp = self.peer.get_property("local-description").sdp.as_text()
        status, headers, text = http("POST", self.options, self.options.url, sdp)
        if status != 201:
            sys.exit(f"WHIP POST: {status} {text}")
        self.resource = urllib.parse.urljoin(self.options.url, headers["Location"])
        say(state="published", location=headers["Location"], etag=headers["ETag"])
        _, message = GstSdp.SDPMessage.new_from_text(text)
        answer = GstWebRTC.WebRTCSessionDescription.new(GstWebRTC.WebRTCSDPType.ANSWER, message)
        self.peer.emit("set-remote-description", answer, None)
        while not self.ended.wait(0.2):  # signals are handled in between
            self.check_pipeline()
        status, _, _ = http("DELETE", self.options, self.resource, None)
        say(state="deleted", status=status)

    def check_pipeline(self):
        """An element that fails stops its branch alone; the rest would publish on without it."""
        failed = self.pipeline.get_bus().pop_filtered(Gst.MessageType.ERROR)
        if failed:
            sys.exit(f"the pipeline failed: {failed.parse_error()}")


def http(method, options, url, sdp):
    headers = {"Content-Type": "application/sdp"}
    if options.bearer:
        headers["Authorization"] = f"Bearer {options.bearer}"
    request = urllib.request.Request(url, data=sdp and sdp.encode(), headers=headers, method=method)
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return answer.status, answer.headers, answer.read().decode()
    except urllib.error.HTTPError as refused:
        return refused.code, refused.headers, refused.read().decode()


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--url", required=True)
    parser.add_argument("--bearer")
    parser.add_argument("--codec", choices=["H264", "H265", "VP8", "VP9"], default="H264")
    parser.add_argument("--width", type=int, default=640)
    parser.add_argument("--height", type=int, default=360)
    parser.add_argument("--fps", type=int, default=15)
    parser.add_argument("--gop", type=int, default=300)
    Gst.init(None)
    publisher = Publisher(parser.parse_args())
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: publisher.ended.set())
    publisher.run()


main()
