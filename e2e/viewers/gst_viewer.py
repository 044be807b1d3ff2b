#!/usr/bin/python3
"""A WHEP viewer that shares no code with manifold, Chromium or aiortc: GStreamer's webrtcbin.

Its DTLS certificate has an RSA key (GStreamer 1.22), and it plays H.265, which browsers on Linux do
not. Watches until --frames pictures were decoded, reads the number in each one's strip (see
rtsp_camera.py), prints what it saw as one line of JSON, says DELETE.
"""

import argparse
import json
import os
import sys
import threading
import urllib.parse
import urllib.request

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "cameras"))

try:
    import gi

    gi.require_version("Gst", "1.0")
    gi.require_version("GstSdp", "1.0")
    gi.require_version("GstWebRTC", "1.0")
    from gi.repository import Gst, GstSdp, GstWebRTC
except (ImportError, ValueError) as missing:
    sys.exit(f"GStreamer's WebRTC is missing ({missing}); run: cargo xtask setup")

from rtsp_camera import COLUMNS, strip_rows

DEADLINE_S = 30
# What is offered, and what becomes of it.
CODECS = {
    "H264": (",packetization-mode=(string)1", "rtph264depay ! avdec_h264"),
    "H265": ("", "rtph265depay ! avdec_h265"),
    "VP8": ("", "rtpvp8depay ! vp8dec"),
    "VP9": ("", "rtpvp9depay ! vp9dec"),
}


def strip_number(luma, stride, width):
    """The frame number in the strip; None where there is none, or where it reads badly."""
    cell = width // COLUMNS
    rows = []
    for row in range(2):
        line = luma[stride * (cell * row + cell // 2) :]
        bits = (line[column * cell + cell // 2] > 127 for column in range(COLUMNS))
        rows.append(sum(bit << (COLUMNS - 1 - column) for column, bit in enumerate(bits)))
    number = rows[0] >> 8 & 0xFFFFFFFF
    return number if strip_rows(number, rows[1]) == tuple(rows) else None


class Viewer:
    def __init__(self, options):
        self.options = options
        self.frames = 0
        self.numbers = []
        self.size = None
        self.enough = threading.Event()
        self.gathered = threading.Event()
        self.pipeline = Gst.Pipeline.new()
        self.peer = Gst.ElementFactory.make("webrtcbin")
        self.peer.set_property("bundle-policy", GstWebRTC.WebRTCBundlePolicy.MAX_BUNDLE)
        self.pipeline.add(self.peer)
        receive = GstWebRTC.WebRTCRTPTransceiverDirection.RECVONLY
        format_of, self.decoder = CODECS[options.codec]
        caps = f"application/x-rtp,media=video,encoding-name={options.codec},payload=96,clock-rate=90000"
        self.peer.emit("add-transceiver", receive, Gst.Caps.from_string(caps + format_of))
        self.peer.connect("pad-added", self.on_pad)
        self.peer.connect("notify::ice-gathering-state", self.on_gathering)

    def on_gathering(self, peer, _what):
        if peer.get_property("ice-gathering-state") == GstWebRTC.WebRTCICEGatheringState.COMPLETE:
            self.gathered.set()

    def on_pad(self, _peer, pad):
        if pad.get_direction() != Gst.PadDirection.SRC:
            return
        decode = (
            f"{self.decoder} ! videoconvert ! video/x-raw,format=GRAY8 ! "
            "fakesink name=eye signal-handoffs=true sync=false"
        )
        chain = Gst.parse_bin_from_description(decode, True)
        chain.get_by_name("eye").connect("handoff", self.on_frame)
        self.pipeline.add(chain)
        chain.sync_state_with_parent()
        pad.link(chain.get_static_pad("sink"))

    def on_frame(self, _eye, buffer, pad):
        self.frames += 1
        caps = pad.get_current_caps().get_structure(0)
        self.size = caps.get_int("width").value, caps.get_int("height").value
        known, view = buffer.map(Gst.MapFlags.READ)
        if known:
            number = strip_number(view.data, view.size // self.size[1], self.size[0])
            buffer.unmap(view)
            if number is not None:
                self.numbers.append(number)
        if self.frames >= self.options.frames:
            self.enough.set()

    def run(self):
        self.pipeline.set_state(Gst.State.PLAYING)
        made = Gst.Promise.new()
        self.peer.emit("create-offer", None, made)
        made.wait()
        reply = made.get_reply()  # owns the offer
        offer = reply.get_value("offer")
        self.peer.emit("set-local-description", offer, None)
        if not self.gathered.wait(DEADLINE_S):
            sys.exit("no candidates were gathered")
        sdp = self.peer.get_property("local-description").sdp.as_text()
        status, headers, text = http("POST", self.options.url, self.options.token, sdp)
        if status != 201:
            sys.exit(f"WHEP POST: {status} {text}")
        _, message = GstSdp.SDPMessage.new_from_text(text)
        answer = GstWebRTC.WebRTCSessionDescription.new(GstWebRTC.WebRTCSDPType.ANSWER, message)
        self.peer.emit("set-remote-description", answer, None)
        seen = self.enough.wait(DEADLINE_S)
        resource = urllib.parse.urljoin(self.options.url, headers["Location"])
        deleted, _, _ = http("DELETE", resource, self.options.token, None)
        width, height = self.size or (0, 0)
        steps = [after - before for before, after in zip(self.numbers, self.numbers[1:])]
        report = {
            "video_frames": self.frames,
            "width": width,
            "height": height,
            "strips": len(self.numbers),
            "frame_gaps": sum(1 for step in steps if step != 1),
            "delete_status": deleted,
        }
        print(json.dumps(report), flush=True)
        self.pipeline.set_state(Gst.State.NULL)
        if not seen:
            sys.exit(f"not enough came in {DEADLINE_S} s")


def http(method, url, token, sdp):
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/sdp"}
    request = urllib.request.Request(url, data=sdp and sdp.encode(), headers=headers, method=method)
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return answer.status, answer.headers, answer.read().decode()
    except urllib.error.HTTPError as refused:
        return refused.code, refused.headers, refused.read().decode()


parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--url", required=True)
parser.add_argument("--token", required=True)
parser.add_argument("--frames", type=int, default=30)
parser.add_argument("--codec", choices=CODECS, default="H264")
Gst.init(None)
Viewer(parser.parse_args()).run()
