"""Delays and loses the packets that iptables gives to a queue of the kernel's (NFQUEUE), where it has no netem.

    bad-line.py QUEUE PROBABILITY MILLISECONDS

Says "ready" when it holds the queue, and at SIGTERM how many packets passed and how many were lost.
"""
import collections
import random
import select
import signal
import socket
import struct
import sys
import time

queue, probability, delay = int(sys.argv[1]), float(sys.argv[2]), float(sys.argv[3]) / 1000
nfqueue, verdict, config, packet = 3, 1, 2, 0
link = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 12)  # NETLINK_NETFILTER
link.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
link.setsockopt(270, 5, 1)  # NETLINK_NO_ENOBUFS: what does not fit is let through, see fail open below
link.bind((0, 0))


def attribute(kind, data):
    return struct.pack("=HH", 4 + len(data), kind) + data + b"\0" * (-len(data) % 4)


def tell(kind, *attributes):
    body = struct.pack("=BB", 0, 0) + struct.pack(">H", queue) + b"".join(attributes)
    link.send(struct.pack("=IHHII", 16 + len(body), nfqueue << 8 | kind, 1, 0, 0) + body)


tell(config, attribute(1, struct.pack(">BBH", 1, 0, socket.AF_INET)))  # hold the queue
tell(config, attribute(2, struct.pack(">IB", 0, 1)))  # packets without what is in them
tell(config, attribute(3, struct.pack(">I", 65536)))  # so many at once
tell(config, attribute(4, struct.pack(">I", 5)), attribute(5, struct.pack(">I", 5)))  # fail open, large ones as they are
passed = lost = 0


def end(*_):
    print(passed, lost, flush=True)
    sys.exit()


signal.signal(signal.SIGTERM, end)
print("ready", flush=True)
waiting = collections.deque()
while True:
    rest = max(0, waiting[0][0] - time.monotonic()) if waiting else None
    if select.select([link], [], [], rest)[0]:
        data = link.recv(1 << 16)
        while len(data) >= 16:
            size, kind = struct.unpack_from("=IH", data)
            at = 20  # after the two headers
            while kind == nfqueue << 8 | packet and at < size:
                length, name = struct.unpack_from("=HH", data, at)
                if name == 1:
                    (number,) = struct.unpack_from(">I", data, at + 4)
                    waiting.append((time.monotonic() + delay, number, random.random() >= probability))
                at += length + -length % 4
            data = data[size + -size % 4 :]
    while waiting and waiting[0][0] <= time.monotonic():
        _, number, may_pass = waiting.popleft()
        passed, lost = passed + may_pass, lost + (not may_pass)
        tell(verdict, attribute(2, struct.pack(">II", may_pass, number)))
