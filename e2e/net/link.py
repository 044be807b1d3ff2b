#!/usr/bin/python3
"""A bad network: joins a namespace of its own to the one that it was started in, through user space.

Most kernels of test machines have no netem. Each end of the link is a TUN device; between them this
program delays, loses and drops packets, each direction by itself, as it is told:

    link.py DEVICE HERE THERE

makes DEVICE with the address HERE, moves itself into a new namespace, and has a device `link0` with the
address THERE in it; `nsenter --net=/proc/<its pid>/ns/net` starts programs behind the link. All of it
goes when this program goes. It says `up` when packets pass, and then reads conditions from standard
input, one JSON object a line, of which each key replaces what was there:

    delay_ms, jitter_ms   each way; with jitter packets keep their order
    loss                  share of packets that vanish, 0 to 1
    rate_kbit, queue_ms   the bottleneck, and how much may wait before it; more is dropped. 0: none
    nat                   added to the port of UDP from the namespace, as a NAT has it; what comes
                          for another port than this one's is dropped
    no_udp                true: UDP vanishes, as in networks that let nothing but the web through
    seed                  of what is lost

It answers each with `set`. When standard input closes it ends and prints what it did as JSON, by
direction: packets and bytes passed, lost, dropped before the bottleneck, of another port than the NAT's,
and the longest wait before the bottleneck.
"""

import ctypes
import fcntl
import heapq
import json
import os
import random
import select
import struct
import subprocess
import sys
import time

TUNSETIFF = 0x400454CA
TUN_WITHOUT_HEADER = 0x1001
CLONE_NEWNET = 0x40000000
UDP = 17
# A packet of the largest size that the devices have, and some.
PACKET_MAX = 2048
# Packets read from a device before the other one gets its turn.
BURST = 64
# All that may be under way at once: at 100 ms and 20 Mbit/s some 200; more is a runaway.
UNDER_WAY_MAX = 20_000

libc = ctypes.CDLL(None, use_errno=True)


class Conditions:
    """What a packet meets."""

    def __init__(self):
        self.delay_ms = 0
        self.jitter_ms = 0
        self.loss = 0
        self.rate_kbit = 0
        self.queue_ms = 300
        self.nat = 0
        self.no_udp = False

    def change(self, **changes):
        if "seed" in changes:
            random.seed(changes.pop("seed"))
        for name, value in changes.items():
            if name not in vars(self):
                raise SystemExit(f"there is no condition {name!r}")
            setattr(self, name, value)


class Direction:
    """Packets one way."""

    def __init__(self, source, target, translate):
        self.source = source
        self.target = target
        self.translate = translate
        # When the bottleneck has sent everything that waits, and when the newest packet arrives.
        self.free_at = 0.0
        self.newest = 0.0
        self.did = dict(packets=0, bytes=0, lost=0, dropped=0, foreign=0, longest_wait_ms=0)

    def arrival(self, packet, conditions, now):
        """When the packet arrives, or None: it does not."""
        if random.random() < conditions.loss or (conditions.no_udp and udp_header(packet)):
            self.did["lost"] += 1
            return None
        leaves = now
        if conditions.rate_kbit:
            wait_ms = max(0.0, self.free_at - now) * 1000
            if wait_ms > conditions.queue_ms:
                self.did["dropped"] += 1
                return None
            self.did["longest_wait_ms"] = max(self.did["longest_wait_ms"], round(wait_ms))
            leaves = max(now, self.free_at) + len(packet) * 8 / conditions.rate_kbit / 1000
            self.free_at = leaves
        delay = conditions.delay_ms + random.uniform(-1, 1) * conditions.jitter_ms
        self.newest = max(leaves + max(0.0, delay) / 1000, self.newest)
        return self.newest


class Link:
    """Both directions, and what is under way."""

    def __init__(self, here, there):
        self.conditions = Conditions()
        self.here, self.there = here, there
        self.directions = {
            there: Direction(there, here, outwards),
            here: Direction(here, there, inwards),
        }
        self.under_way = []
        self.count = 0

    def run(self, commands):
        """Until standard input closes."""
        while True:
            now = time.monotonic()
            wait = max(0.0, self.under_way[0][0] - now) if self.under_way else None
            ready, _, _ = select.select([self.here, self.there, commands], [], [], wait)
            for device in ready:
                if device is commands:
                    line = commands.readline()
                    if not line:
                        return
                    self.conditions.change(**json.loads(line))
                    print("set", flush=True)
                else:
                    self.take(self.directions[device])
            self.deliver()

    def take(self, direction):
        for _ in range(BURST):
            try:
                packet = os.read(direction.source, PACKET_MAX)
            except BlockingIOError:
                return
            packet = direction.translate(packet, self.conditions.nat)
            if packet is None:
                direction.did["foreign"] += 1
                continue
            at = direction.arrival(packet, self.conditions, time.monotonic())
            if at is not None and len(self.under_way) < UNDER_WAY_MAX:
                self.count += 1
                heapq.heappush(self.under_way, (at, self.count, direction, packet))

    def deliver(self):
        while self.under_way and self.under_way[0][0] <= time.monotonic():
            _, _, direction, packet = heapq.heappop(self.under_way)
            try:
                os.write(direction.target, packet)
            except OSError:
                # The device's own queue is full, or its end is going down: lost on the way.
                direction.did["lost"] += 1
                continue
            direction.did["packets"] += 1
            direction.did["bytes"] += len(packet)


def outwards(packet, nat):
    """From the namespace: the source port becomes the NAT's."""
    at = udp_header(packet)
    return with_port(packet, at, at, nat) if at and nat else packet


def inwards(packet, nat):
    """To the namespace: the NAT's port becomes the browser's; None if it has none of that number."""
    at = udp_header(packet)
    if not at or not nat:
        return packet
    port = struct.unpack_from("!H", packet, at + 2)[0]
    return with_port(packet, at, at + 2, -nat) if port > nat else None


def udp_header(packet):
    """Where the UDP header of an IPv4 packet begins; 0 if it is another protocol."""
    if len(packet) < 28 or packet[0] >> 4 != 4 or packet[9] != UDP:
        return 0
    return (packet[0] & 15) * 4


def with_port(packet, header, at, change):
    """The packet with another port, and the checksum that belongs to it (RFC 1624)."""
    packet = bytearray(packet)
    old = struct.unpack_from("!H", packet, at)[0]
    new = (old + change) & 0xFFFF
    struct.pack_into("!H", packet, at, new)
    checksum = struct.unpack_from("!H", packet, header + 6)[0]
    if checksum:
        total = (~checksum & 0xFFFF) + (~old & 0xFFFF) + new
        total = (total & 0xFFFF) + (total >> 16)
        total = (total & 0xFFFF) + (total >> 16)
        struct.pack_into("!H", packet, header + 6, ~total & 0xFFFF or 0xFFFF)
    return bytes(packet)


def open_tun(name, address):
    """A TUN device with an address, in the namespace that this program is in."""
    device = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(device, TUNSETIFF, struct.pack("16sH22x", name.encode(), TUN_WITHOUT_HEADER))
    ip("addr", "add", f"{address}/30", "dev", name)
    ip("link", "set", name, "up", "mtu", "1500")
    return device


def enter_new_namespace():
    """What was opened before stays in the old one."""
    if libc.unshare(CLONE_NEWNET) != 0:
        raise OSError(ctypes.get_errno(), "unshare: a network namespace needs root")
    ip("link", "set", "lo", "up")


def ip(*words):
    subprocess.run(["ip", *words], check=True)


def main():
    name, here, there = sys.argv[1:]
    outside = open_tun(name, here)
    enter_new_namespace()
    inside = open_tun("link0", there)
    # Browsers use the interface that has the default route.
    ip("route", "add", "default", "dev", "link0")
    link = Link(outside, inside)
    print("up", flush=True)
    link.run(sys.stdin)
    out, back = link.directions[link.there].did, link.directions[link.here].did
    print(json.dumps({"from_browser": out, "to_browser": back}), flush=True)


if __name__ == "__main__":
    main()
