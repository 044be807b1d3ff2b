"""A web radio of little memory: plain HTTP/1.0, and a receive buffer of 4 KiB. Writes the sound to file
descriptor 3. While it is stopped (SIGSTOP) its connection takes next to nothing, whatever the kernel's own
tuning of buffers is.
"""

import os
import socket
import sys

host, port, path = sys.argv[1:]
radio = socket.socket()
# Before it connects: the window is settled then.
radio.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
radio.connect((host, int(port)))
radio.sendall(f"GET {path} HTTP/1.0\r\nHost: {host}:{port}\r\n\r\n".encode())
head, sound = b"", b""
while b"\r\n\r\n" not in head:
    head += radio.recv(1024)
head, sound = head.split(b"\r\n\r\n", 1)
if b" 200 " not in head.splitlines()[0]:
    raise SystemExit(head.decode())
while True:
    os.write(3, sound)
    sound = radio.recv(4096)
    if not sound:
        break
