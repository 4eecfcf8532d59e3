"""The signer as a service of an account of its own, which alone can read the authority's key.

A service manager listens for it (sd_listen_fds(3)), and starts it with the first connection. The kernel says who
connects: the account of the server is answered within the rules, root without limits, and nobody else at all. Each
certificate is written to the log of this process before it is handed out; what cannot be written is not handed out.
"""

from __future__ import annotations

import json
import os
import socket
import struct
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator, MutableMapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from cloud_server.trust.ca import CaMissing
from cloud_server.trust.signing import DENIED, Asker, Signing
from tunnel.aio.process.handed import take_listen_fds
from tunnel.core.path.rate import TokenBucket
from tunnel.core.wire.faults import SIGNER_FAILED, FaultError

MAX_LINE_BYTES = 64 * 1024
"""The longest question: a request and a certificate in base64, of 8 KiB at most and of 2 KiB."""
MAX_CONNECTIONS = 8
"""The most connections of one account at a time: a server has one, as has the one that takes over, and a command."""
SILENT_S = 60.0
"""Seconds after which a connection without a question is closed: the server closes its own after 30 s."""
IDLE_S = 60.0
"""Seconds without a connection after which the process ends, if no rate is in use: what it counts ends with it."""
DENIED_PER_S, DENIED_AT_ONCE = 1.0, 100
"""The lines of the log about what was denied; the rest are counted in the next one."""


class ServiceFailed(FaultError):
    """The service cannot be started; the text is for the operator."""

    default_fault = SIGNER_FAILED


def serve(
    folder: Path, trust_domain: str, uid: int, environ: MutableMapping[str, str], *, idle_s: float = IDLE_S
) -> None:
    """Answers at the socket that the service manager hands over, until nobody has asked for a while.

    Args:
        folder: of the authority.
        trust_domain: the only one that certificates are made for.
        uid: of the server, which is asked for no more than the rules allow; root may ask, too.
        environ: variables with what the service manager hands over.
        idle_s: as IDLE_S.

    Raises:
        ServiceFailed: no socket was handed over.
    """
    handed = take_listen_fds(environ)
    if len(handed) != 1:
        raise ServiceFailed("one socket is expected of the service manager: start cloud-server-signer.socket")
    with socket.socket(fileno=handed[0].descriptor) as listener:
        if listener.family != socket.AF_UNIX or listener.type != socket.SOCK_STREAM:
            raise ServiceFailed("the socket of the service manager is no unix stream socket")
        _Service(folder, trust_domain, {uid, 0}).run(listener, idle_s)


class _Service:
    def __init__(self, folder: Path, trust_domain: str, uids: set[int]) -> None:
        self._folder = folder
        self._trust_domain = trust_domain
        self._uids = uids
        self._signing: Signing | None = None
        self._one_at_a_time = threading.Lock()
        self._counting = threading.Lock()
        self._connections: Counter[int] = Counter()
        self._askers = {uid: Asker(limited=uid != 0, noted=partial(self._note, uid)) for uid in uids}
        self._told = TokenBucket(DENIED_PER_S, DENIED_AT_ONCE, time.monotonic())
        self._untold = 0
        """How many lines were left out since the last one."""

    def run(self, listener: socket.socket, idle_s: float) -> None:
        """Accepts connections until there has been none for `idle_s` seconds and no rate is in use."""
        listener.settimeout(idle_s)
        while True:
            try:
                connection, _ = listener.accept()
            except TimeoutError:
                now_s = time.monotonic()
                if not self._connections.total() and all(one.pace.at_rest(now_s) for one in self._askers.values()):
                    return
                continue
            except OSError as error:  # of a connection that is gone, or for want of descriptors
                self._deny(os.getuid(), "accept failed", text=str(error))
                time.sleep(0.1)
                continue
            self._accept(connection)

    # Internal

    def _accept(self, connection: socket.socket) -> None:
        pid, uid, _ = struct.unpack("3i", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
        if uid not in self._uids or self._connections[uid] >= MAX_CONNECTIONS:
            with connection:
                why = "too many connections" if uid in self._uids else "this account is not answered here"
                self._deny(uid, "turned away", pid=pid, text=why)
            return
        with self._counting:
            self._connections[uid] += 1
        threading.Thread(target=self._serve, args=(connection, uid), name="connection", daemon=True).start()

    def _serve(self, connection: socket.socket, uid: int) -> None:
        try:
            with connection, suppress(OSError):  # they have gone, or said nothing for too long
                connection.settimeout(SILENT_S)
                for answer in self._answers(connection, self._askers[uid]):
                    connection.sendall(json.dumps(answer).encode() + b"\n")
        finally:
            with self._counting:
                self._connections[uid] -= 1

    def _answers(self, connection: socket.socket, asker: Asker) -> Iterator[dict[str, str]]:
        with self._one_at_a_time:
            try:
                self._signing = self._signing or Signing(self._folder, self._trust_domain)
            except CaMissing as missing:
                greeting = {"fault": str(missing)}
            else:
                greeting = {"trust_domain": self._trust_domain}
        yield greeting
        with _lines(connection) as lines:
            for line in lines:
                with self._one_at_a_time:
                    if self._signing is None:
                        return
                    answer = self._signing.answer(line, asker)
                yield answer

    def _note(self, uid: int, event: str, **about: object) -> None:
        """Writes a line to the log of this process, which nobody but root and this account can change.

        Raises:
            OSError: a certificate cannot be recorded.
        """
        if event == DENIED:
            self._deny(uid, event, **about)
        else:
            _write(uid, event, about)

    def _deny(self, uid: int, event: str, **about: object) -> None:
        """Writes a line about something that is not done, unless there were too many of them."""
        if not self._told.take(time.monotonic()):
            self._untold += 1
            return
        if self._untold:
            about["left_out_before"], self._untold = self._untold, 0
        with suppress(OSError):  # nothing was handed out
            _write(uid, event, about)


@contextmanager
def _lines(connection: socket.socket) -> Iterator[Iterator[bytes]]:
    """Reads lines; one that is too long, or not whole, is the end."""
    with connection.makefile("rb") as file:

        def read() -> Iterator[bytes]:
            while (line := file.readline(MAX_LINE_BYTES)).endswith(b"\n"):
                yield line

        yield read()


def _write(uid: int, event: str, about: dict[str, object]) -> None:
    said = {"time": datetime.now(UTC).isoformat(), "event": event, "uid": uid, **about}
    sys.stdout.write(json.dumps(said, default=str) + "\n")
    sys.stdout.flush()
