"""Reaches the process that signs: a child over pipes, or a service of another account over its unix socket. Both are
asked line by line, in JSON, and the first line that they say tells whether there is an authority.
"""

from __future__ import annotations

import json
import socket
import struct
import subprocess
import sys
import threading
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from tunnel.core.wire.faults import AUTHORITY_MISSING, CREDENTIALS_UNUSABLE, SIGNER_FAILED, FaultError

MAX_ANSWER_BYTES = 256 * 1024
"""The longest answer: it has a dozen certificates, of up to 2 KiB each, in base64."""

Said = dict[str, str]


class SignerFailed(FaultError):
    """Nothing can be signed; the text is for the operator."""

    default_fault = SIGNER_FAILED


@dataclass(frozen=True, slots=True)
class AuthorityPlace:
    """Where the authority is when it belongs to another account."""

    folder: Path
    """The folder with its certificate, its key and `hosts`."""
    socket: Path
    """The unix socket of the service that signs."""


class SigningLink(ABC):
    """The process that signs, as it is reached. Everything blocks, and belongs into one thread."""

    def __init__(self, trust_domain: str) -> None:
        self._trust_domain = trust_domain
        self._too_slow = False
        """Whether the last question was given up for the time that its answer took."""

    def ask(self, question: Mapping[str, str] | None) -> Said:
        """Returns the answer to a question; with None it only looks whether there would be one.

        Raises:
            SignerFailed: there is none.
        """
        try:
            at_rest = self._is_open()
            if not at_rest:
                self.end()  # killed by somebody while it had nothing to do
                self._begin()
            if question is None:
                return {}
            try:
                return self._exchange(question)
            except SignerFailed:
                if not at_rest or self._too_slow:
                    raise
            # Gone a moment before. Should it have signed already, a second certificate does no harm.
            self.end()
            self._begin()
            return self._exchange(question)
        except BaseException:
            self.end()
            raise

    @abstractmethod
    def end(self) -> None:
        """Ends the process, or the connection to it, if there is one."""

    # Internal

    @abstractmethod
    def _is_open(self) -> bool: ...

    @abstractmethod
    def _open(self) -> None: ...

    @abstractmethod
    def _line(self, question: bytes) -> bytes:
        """Writes a question, unless it is empty, and returns the next line; one that is not whole when there is none.

        Raises:
            OSError: it cannot be read or written.
        """

    def _begin(self) -> None:
        self._open()
        said = self._exchange(None)
        if "fault" in said:
            raise SignerFailed(said["fault"], AUTHORITY_MISSING)
        if (domain := said["trust_domain"]) != self._trust_domain:
            text = f"the signer is of trust domain {domain!r}; [tunnel] trust_domain is {self._trust_domain!r}"
            raise SignerFailed(text, CREDENTIALS_UNUSABLE)

    def _exchange(self, question: Mapping[str, str] | None) -> Said:
        try:
            line = self._line(json.dumps(question).encode() + b"\n" if question is not None else b"")
        except OSError:
            line = b""
        if not line.endswith(b"\n"):
            raise SignerFailed("the signing process ended without an answer; what it wrote to standard error says why")
        said: Said = json.loads(line)
        return said


class ChildLink(SigningLink):
    """A child of this process, and its pipes."""

    def __init__(self, state: Path, trust_domain: str, answer_s: float) -> None:
        super().__init__(trust_domain)
        # -P: what lies in the current folder is not imported.
        module = ["-P", "-m", "cloud_server.trust.signing"]
        self._command = [sys.executable, *module, str(state), trust_domain, str(state)]
        self._answer_s = answer_s
        self._running: subprocess.Popen[bytes] | None = None

    def end(self) -> None:
        """Closes the pipes, and waits for the end of the child."""
        process, self._running = self._running, None
        if process is not None:
            # It closes the pipes, then waits: the process ends with its input. A question that nobody reads any more
            # need not be written.
            with self._in_time(process), suppress(BrokenPipeError), process:
                pass

    # Internal

    def _is_open(self) -> bool:
        return self._running is not None and self._running.poll() is None

    def _open(self) -> None:
        try:
            # vfork and exec, as nothing is asked that needs a fork: gRPC's handlers would crash in one.
            self._running = subprocess.Popen(self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        except OSError as error:
            raise SignerFailed(f"the signing process cannot be started: {error.strerror}") from error

    def _line(self, question: bytes) -> bytes:
        process = self._running
        assert process is not None
        assert process.stdin is not None
        assert process.stdout is not None
        with self._in_time(process):
            if question:
                process.stdin.write(question)
                process.stdin.flush()
            return process.stdout.readline()

    @contextmanager
    def _in_time(self, process: subprocess.Popen[bytes]) -> Iterator[None]:
        """Kills the process when what is done inside the block takes too long."""

        def kill() -> None:
            self._too_slow = True
            process.kill()

        self._too_slow = False
        timer = threading.Timer(self._answer_s, kill)
        timer.start()
        try:
            yield
        finally:
            timer.cancel()


class ServiceLink(SigningLink):
    """A service of another account, and the connection to it."""

    def __init__(self, place: AuthorityPlace, trust_domain: str, answer_s: float) -> None:
        super().__init__(trust_domain)
        self._place = place
        self._answer_s = answer_s
        self._connection: socket.socket | None = None
        self._file: BinaryIO | None = None

    def end(self) -> None:
        """Closes the connection."""
        for one in (self._file, self._connection):
            if one is not None:
                with suppress(OSError):
                    one.close()
        self._file = self._connection = None

    # Internal

    def _is_open(self) -> bool:
        return self._connection is not None

    def _open(self) -> None:
        path = self._place.socket
        self._connection = connection = socket.socket(socket.AF_UNIX)
        connection.settimeout(self._answer_s)
        try:
            connection.connect(str(path))
            owner = self._place.folder.stat().st_uid
            _, uid, _ = struct.unpack("3i", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
        except OSError as error:
            text = f"the signer at {path} cannot be reached: {error.strerror or error}; see cloud-server-signer.socket"
            raise SignerFailed(text) from error
        # The socket is listened at by the service manager, or by the account of the authority itself.
        if uid not in (0, owner):
            raise SignerFailed(f"the account {uid} listens at {path}, which the authority does not belong to")
        self._file = connection.makefile("rb")

    def _line(self, question: bytes) -> bytes:
        assert self._connection is not None
        assert self._file is not None
        self._too_slow = False
        try:
            if question:
                self._connection.sendall(question)
            return self._file.readline(MAX_ANSWER_BYTES)
        except TimeoutError:
            self._too_slow = True
            raise
