"""A TCP service that has more to send than anybody takes: to thousands of connections, from one thread.

It runs in a process of its own (`fountain()`), so that it does not share a processor lock with its clients, and keeps
little in its sockets, since what is there is not the daemons' memory.
"""

from __future__ import annotations

import contextlib
import selectors
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
SEND_BUFFER_BYTES = 16 * 1024


@contextlib.contextmanager
def fountain() -> Iterator[int]:
    """The port of one, on loopback."""
    command = [sys.executable, "-m", "tests.support.fountain"]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        try:
            yield int(process.stdout.readline())
        finally:
            process.terminate()


def _serve() -> None:
    waiting = selectors.DefaultSelector()
    with socket.create_server(("127.0.0.1", 0), backlog=4096) as listener:
        listener.setblocking(False)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)  # the accepted sockets have it, too
        waiting.register(listener, selectors.EVENT_READ)
        print(listener.getsockname()[1], flush=True)
        while True:
            for key, _ in waiting.select():
                if key.fileobj is listener:
                    sock, _ = listener.accept()
                    sock.setblocking(False)
                    waiting.register(sock, selectors.EVENT_WRITE)
                    continue
                assert isinstance(key.fileobj, socket.socket)
                try:
                    key.fileobj.send(bytes(SEND_BUFFER_BYTES))
                except BlockingIOError:
                    continue
                except OSError:
                    waiting.unregister(key.fileobj)
                    key.fileobj.close()


if __name__ == "__main__":
    _serve()
