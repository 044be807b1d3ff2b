#!/usr/bin/python3
"""An RTSP camera without hardware: GStreamer's RTSP server with pictures that tests can read.

Every picture carries a strip in its top left corner: frame number and capture time, 2 rows of 48
square cells (see `strip_rows`). Below it runs a block, and a clock for people.

    rtsp_camera.py 8554 --auth digest --user admin --password secret --size 640x360 --fps 15 --gop 30

Port 0 takes a free one. One line is printed once clients may connect:

    ready rtsp://127.0.0.1:8554 auth=digest

and after that a line for each request that matters to a test, `play /h264` and `teardown /h264`, and
`connected` and `closed` for each connection.
SIGTERM and SIGINT end it. Paths:

    /h264         H.264 baseline, nothing else
    /h264aac      with AAC at 48 kHz, mono, 440 Hz      /h264aac44  at 44.1 kHz, stereo
    /h264pcmu     with G.711 mu-law, 440 Hz             /h264pcma   with G.711 A-law
    /h264hi       High profile with B-frames            /small      H.264 at 320x180
    /nokeyframe   H.264 whose IDR pictures are lost on the way
    /h265 /mjpeg  other codecs
"""

import argparse
import os
import signal
import sys
import threading
import time

try:
    import gi

    gi.require_version("Gst", "1.0")
    gi.require_version("GstApp", "1.0")
    gi.require_version("GstRtsp", "1.0")
    gi.require_version("GstRtspServer", "1.0")
    from gi.repository import GLib, Gst, GstApp, GstRtsp, GstRtspServer  # noqa: F401
except (ImportError, ValueError) as missing:
    sys.exit(f"GStreamer's RTSP server is missing ({missing}); run: cargo xtask setup")

WHITE, BLACK, GREY = 235, 16, 128
# What the encoders are given, and need a tenth of.
KBIT = 1200
SMALL = 320, 180
SYNC = 0b10110010
COLUMNS = 48


def crc8(data):
    """CRC-8, polynomial 0x07, initial value 0."""
    crc = 0
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = (crc << 1 ^ 0x07) & 0xFF if crc & 0x80 else crc << 1
    return crc


def strip_rows(number, time_ms):
    """The two rows of the strip, 48 bits each, as integers.

    Row 0: sync byte, 32 bits frame number, CRC-8 over frame number and time. Row 1: 48 bits
    capture time in milliseconds since the Unix epoch. All with the most significant bit first.
    """
    number &= 0xFFFFFFFF
    crc = crc8(number.to_bytes(4, "big") + time_ms.to_bytes(6, "big"))
    return SYNC << 40 | number << 8 | crc, time_ms


class Painter:
    """Paints I420 pictures of one size, with noise that no encoder saves on, or without."""

    def __init__(self, width, height, noise):
        self.width, self.height, self.noise = width, height, noise
        self.cell = width // COLUMNS
        luma = bytearray()
        for row in range(height):
            luma += bytes([60 + row * 100 // height]) * width
        self.blank = bytes(luma) + bytes([GREY]) * (width * height // 2)

    def paint(self, number, time_ms):
        """One picture as bytes: Y plane, then U and V at half size."""
        picture = bytearray(self.blank)
        if self.noise:
            half = self.width * (self.height // 2)
            picture[half : 2 * half] = os.urandom(half)
        self.paint_block(picture, number)
        for row, bits in enumerate(strip_rows(number, time_ms)):
            line = b"".join(
                bytes([WHITE if bits >> (COLUMNS - 1 - column) & 1 else BLACK]) * self.cell
                for column in range(COLUMNS)
            )
            for y in range(row * self.cell, (row + 1) * self.cell):
                picture[y * self.width : y * self.width + len(line)] = line
        return bytes(picture)

    def paint_block(self, picture, number):
        """A block that runs from left to right, so that motion is seen."""
        side = self.height // 6
        left = number * 8 % (self.width - side)
        for y in range(self.height // 2, self.height // 2 + side):
            start = y * self.width + left
            picture[start : start + side] = bytes([WHITE]) * side


def feed(source, painter, args, ended):
    """Pushes pictures at their time until the pipeline is taken down.

    Where the encoder is behind, because the machine is busy, a picture is left out before it has a
    number: the numbers of those that are sent have no hole. So are those before the pipeline plays,
    which all would have the same timestamp.
    """
    start = time.monotonic()
    room = source.get_property("max-buffers")
    moment = number = 0
    while args.stall_after is None or moment < args.stall_after * args.fps:
        if ended.wait(max(0, start + moment / args.fps - time.monotonic())):
            return
        moment += 1
        is_full = room and source.get_property("current-level-buffers") >= room
        if is_full or source.get_state(0).state != Gst.State.PLAYING:
            continue
        picture = painter.paint(number, int(time.time() * 1000))
        source.emit("push-buffer", Gst.Buffer.new_wrapped(picture))
        number += 1


def drop_keyframes(_pad, info):
    """A pad probe that lets pass only what cannot be decoded alone."""
    if info.get_buffer().has_flags(Gst.BufferFlags.DELTA_UNIT):
        return Gst.PadProbeReturn.OK
    return Gst.PadProbeReturn.DROP


def refuse_seek(_pad, info):
    """A pad probe that leaves "are you seekable?" unanswered.

    Else the server would seek at PLAY, because a tone is seekable, and flush the first keyframe.
    """
    if info.get_query().type == Gst.QueryType.SEEKING:
        return Gst.PadProbeReturn.DROP
    return Gst.PadProbeReturn.OK


class Factory(GstRtspServer.RTSPMediaFactory):
    """One path: its launch line, and the size of its pictures."""

    def __init__(self, launch, width, height, args):
        super().__init__()
        noise = args.kbit > KBIT and (width, height) != SMALL
        self.painter = Painter(width, height, noise)
        self.args = args
        self.set_launch(launch)
        self.set_shared(True)
        if args.auth != "none":
            # A role's permissions are set by a variadic C function, which Python reaches this way.
            self.add_role_from_structure(
                structure("viewer,media.factory.access=(boolean)true,media.factory.construct=(boolean)true")
            )
        self.connect("media-configure", self.configure)

    def configure(self, _factory, media):
        """Starts the pictures of one run of the pipeline, and loses its keyframes if asked."""
        source = media.get_element().get_by_name("picture")
        ended = threading.Event()
        media.connect("unprepared", lambda _media: ended.set())
        parameters = (source, self.painter, self.args, ended)
        threading.Thread(target=feed, args=parameters, daemon=True).start()
        tone = media.get_element().get_by_name("tone")
        if tone is not None:
            tone.get_static_pad("src").add_probe(Gst.PadProbeType.QUERY_UPSTREAM, refuse_seek)
        lossy = media.get_element().get_by_name("lossy")
        if lossy is not None:
            lossy.get_static_pad("src").add_probe(Gst.PadProbeType.BUFFER, drop_keyframes)


def structure(text):
    """`Gst.Structure` from text; some bindings answer with a tuple."""
    parsed = Gst.Structure.new_from_string(text)
    return parsed[0] if isinstance(parsed, tuple) else parsed


def picture(width, height, fps):
    """The launch line from the painted picture to the encoder's input."""
    return (
        "appsrc name=picture is-live=true do-timestamp=true format=time max-buffers=4 "
        f"caps=video/x-raw,format=I420,width={width},height={height},"
        f"framerate={fps}/1,colorimetry=bt709,pixel-aspect-ratio=1/1 ! "
        'clockoverlay time-format="%H:%M:%S" font-desc="Sans 24" halignment=right valignment=bottom'
    )


def sound(rate, channels):
    """The launch line of a 440 Hz tone."""
    return (
        "audiotestsrc name=tone is-live=true freq=440 volume=0.3 ! audioconvert ! audioresample ! "
        f"audio/x-raw,rate={rate},channels={channels}"
    )


def launches(args):
    """Path -> (launch line, width, height)."""
    width, height = (int(side) for side in args.size.split("x"))
    big, small = picture(width, height, args.fps), picture(*SMALL, args.fps)
    x264 = (
        f"x264enc tune=zerolatency speed-preset=ultrafast bitrate={args.kbit} "
        f"key-int-max={args.gop} ! video/x-h264,profile=baseline"
    )
    high = f"x264enc speed-preset=veryfast bitrate={KBIT} key-int-max={args.gop} bframes=2 b-adapt=false"
    # Not the payloader's own config-interval: it repeats the parameter sets before each slice.
    rtp = "h264parse config-interval=-1 ! rtph264pay name=pay0 pt=96"
    h264 = f"{big} ! {x264} ! {rtp}"
    vpx = (
        f"deadline=1 cpu-used=8 lag-in-frames=0 target-bitrate={KBIT}000 keyframe-max-dist={args.gop}"
    )
    x265 = f"x265enc speed-preset=ultrafast bitrate={KBIT} key-int-max={args.gop}"
    rtp265 = "h265parse config-interval=-1 ! rtph265pay name=pay0 pt=96"
    aac = "avenc_aac bitrate=64000 ! aacparse ! rtpmp4gpay name=pay1 pt=97"
    lines = {
        "/h264": h264,
        "/h264aac": f"{h264} {sound(48000, 1)} ! {aac}",
        "/h264aac44": f"{h264} {sound(44100, 2)} ! {aac}",
        "/h264pcmu": f"{h264} {sound(8000, 1)} ! mulawenc ! rtppcmupay name=pay1 pt=0",
        "/h264pcma": f"{h264} {sound(8000, 1)} ! alawenc ! rtppcmapay name=pay1 pt=8",
        "/h264pcmalong": f"{h264} {sound(8000, 1)} ! alawenc ! rtppcmapay name=pay1 pt=8 mtu=1800 "
        "min-ptime=200000000 max-ptime=200000000",
        "/h264opus": f"{h264} {sound(48000, 1)} ! opusenc bitrate=64000 ! rtpopuspay name=pay1 pt=97",
        "/h264hi": f"{big} ! {high} ! video/x-h264,profile=high ! {rtp}",
        "/nokeyframe": f"{big} ! {x264} ! identity name=lossy ! {rtp}",
        "/h265": f"{big} ! {x265} tune=zerolatency ! {rtp265}",
        "/h265hi": f"{big} ! {x265} option-string=bframes=2:b-adapt=0 ! {rtp265}",
        "/vp8": f"{big} ! vp8enc {vpx} ! rtpvp8pay name=pay0 pt=96 picture-id-mode=2",
        "/vp9": f"{big} ! vp9enc {vpx} ! rtpvp9pay name=pay0 pt=96 picture-id-mode=2",
        "/mjpeg": f"{big} ! jpegenc ! rtpjpegpay name=pay0 pt=26",
    }
    sized = {path: (f"( {line} )", width, height) for path, line in lines.items()}
    sized["/small"] = (f"( {small} ! {x264} ! {rtp} )", *SMALL)
    return sized


def report(_server, client):
    """Prints that a client is there, what it asks for, and that it is gone."""

    def say(verb):
        return lambda _client, context: print(verb, context.uri.abspath, flush=True)

    print("connected", flush=True)
    client.connect("closed", lambda _client: print("closed", flush=True))
    client.connect("play-request", say("play"))
    client.connect("teardown-request", say("teardown"))


def authentication(args):
    """Who may play: one user with one password."""
    auth = GstRtspServer.RTSPAuth()
    token = GstRtspServer.RTSPToken()
    token.set_string("media.factory.role", "viewer")
    if args.auth == "digest":
        auth.set_supported_methods(GstRtsp.RTSPAuthMethod.DIGEST)
        auth.add_digest(args.user, args.password, token)
    else:
        auth.add_basic(GstRtspServer.RTSPAuth.make_basic(args.user, args.password), token)
    return auth


def parse_arguments():
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("port", type=int, help="0 takes a free one")
    parser.add_argument("--auth", choices=["none", "basic", "digest"], default="none")
    parser.add_argument("--user", default="admin")
    parser.add_argument("--password", default="secret")
    parser.add_argument("--size", default="640x360", help="WIDTHxHEIGHT, even numbers")
    parser.add_argument("--fps", type=int, default=15)
    parser.add_argument("--gop", type=int, default=30, help="frames between keyframes")
    parser.add_argument(
        "--kbit",
        type=int,
        default=KBIT,
        help="bitrate at most; above %(default)s the main stream has noise, so that it is reached",
    )
    parser.add_argument("--stall-after", type=float, help="seconds until the picture stops")
    return parser.parse_args()


def main():
    """Serves until a signal comes."""
    args = parse_arguments()
    Gst.init(None)
    server = GstRtspServer.RTSPServer()
    server.set_address("127.0.0.1")
    server.set_service(str(args.port))
    if args.auth != "none":
        server.set_auth(authentication(args))
    mounts = server.get_mount_points()
    for path, (launch, width, height) in launches(args).items():
        mounts.add_factory(path, Factory(launch, width, height, args))
    server.connect("client-connected", report)
    if server.attach(None) == 0:
        sys.exit(f"port {args.port} is busy")

    loop = GLib.MainLoop()
    for number in (signal.SIGTERM, signal.SIGINT):
        GLib.unix_signal_add(GLib.PRIORITY_HIGH, number, loop.quit)
    print(f"ready rtsp://127.0.0.1:{server.get_bound_port()} auth={args.auth}", flush=True)
    loop.run()


if __name__ == "__main__":
    main()
