"""Hands a camera's H.264 on as RTP over UDP, for servers that cannot pull."""

import argparse

import gi

gi.require_version("Gst", "1.0")
from gi.repository import GLib, Gst  # noqa: E402

# Payloads of 1160 bytes and the header: what Manifold sends.
MTU = 1172

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--camera", required=True)
parser.add_argument("--port", required=True)
parser.add_argument("--payload-type", required=True)
options = parser.parse_args()

Gst.init(None)
pipeline = Gst.parse_launch(
    f"rtspsrc location={options.camera} protocols=tcp latency=0 ! rtph264depay ! h264parse"
    f" ! rtph264pay mtu={MTU} pt={options.payload_type} config-interval=-1"
    f" ! udpsink host=127.0.0.1 port={options.port} sync=false"
)
loop = GLib.MainLoop()
bus = pipeline.get_bus()
bus.add_signal_watch()
bus.connect("message::error", lambda _bus, message: (print(message.parse_error()), loop.quit()))
pipeline.set_state(Gst.State.PLAYING)
loop.run()
