"""Has certificates signed for the server, which has neither the authority's key nor the X.509 library.

Both are in a process of their own (signing.py): whoever takes over the process that faces the network has not got the
key with it, and a server at rest holds 12 MB less. That process is started when there is something to sign, and ended
when there has been nothing for a while.
"""

from __future__ import annotations

import asyncio
import base64
import json
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

from tunnel.core.wire.faults import AUTHORITY_MISSING, REQUEST_REFUSED, SIGNER_FAILED, FaultError

IDLE_S = 30.0
"""Seconds without use after which the process is ended: one serves a whole batch of boxes that join."""
ANSWER_S = 10.0
"""Seconds within which the process must answer, or it is killed. It takes 0.2 s to start on an idle core, and a
millisecond to sign.
"""

_Said = dict[str, str]


class SignerFailed(FaultError):
    """Nothing can be signed; the text is for the operator."""

    default_fault = SIGNER_FAILED


class CsrRefused(FaultError):
    """The request is not one that is signed here; the text is for the box's owner."""

    default_fault = REQUEST_REFUSED


@dataclass(frozen=True, slots=True)
class Signed:
    """A new certificate of an agent."""

    certificate_der: bytes
    ca_pem: bytes
    """The certificate of the authority that signed it."""


@dataclass(frozen=True, slots=True)
class JoinCredential:
    """The credential inside a join token: a certificate that opens nothing but Join, and its key."""

    certificate_pem: bytes
    key_pem: bytes = field(repr=False)
    ca_pem: bytes
    """The certificate of the authority that signed it, and signed the server's."""


class Signer:
    """The server's side of the signing process, which it asks one question after another. `aclose` ends the process."""

    def __init__(self, state: Path, trust_domain: str, *, idle_s: float = IDLE_S, answer_s: float = ANSWER_S) -> None:
        """Starts no process yet. `state` is the folder with the authority in it; the process is ended after `idle_s`
        seconds without use, and killed when it does not answer within `answer_s`.
        """
        self._process = _Process(state, trust_domain, answer_s)
        # A thread of its own: the process is asked in order, and a queue before it takes no thread from others.
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="signer")
        self._idle_s = idle_s
        self._idle: asyncio.TimerHandle | None = None

    async def check(self) -> None:
        """Makes sure that there is an authority to sign with.

        Raises:
            SignerFailed: there is none.
        """
        await self._ask(None)

    async def spki_sha256(self, csr_der: bytes) -> bytes:
        """Returns the SHA-256 of the public key (SubjectPublicKeyInfo) that a certificate request is for, and signed
        by.

        Raises:
            CsrRefused: the request is not in order, or its key is of a kind that is not taken.
            SignerFailed: nobody can look at it.
        """
        said = await self._ask({"csr": base64.b64encode(csr_der).decode()})
        return bytes.fromhex(said["spki_sha256"])

    async def sign(self, name: str, csr_der: bytes) -> Signed:
        """Returns a certificate of the agent `name` for the key of a request.

        Raises:
            CsrRefused: the request is not in order, or its key is of a kind that is not taken.
            SignerFailed: nothing can be signed.
        """
        said = await self._ask({"csr": base64.b64encode(csr_der).decode(), "name": name})
        return Signed(base64.b64decode(said["certificate"]), said["ca"].encode())

    async def join_credential(self, token_id: str, life: timedelta) -> JoinCredential:
        """Returns the credential that a box shows which has the token of this id; it is valid for `life`.

        Raises:
            SignerFailed: nothing can be signed.
        """
        said = await self._ask({"join": token_id, "life_s": str(life.total_seconds())})
        return JoinCredential(said["certificate"].encode(), said["key"].encode(), said["ca"].encode())

    async def renew(self, files: Sequence[str]) -> None:
        """Renews these files of the state folder (`renewal.due` names them).

        Raises:
            SignerFailed: not all of them could be renewed; the text says why.
        """
        await self._ask({"renew": " ".join(files)})

    async def aclose(self) -> None:
        """Ends the process."""
        if self._idle is not None:
            self._idle.cancel()
        await asyncio.get_running_loop().run_in_executor(self._thread, self._process.end)
        self._thread.shutdown(wait=False)

    # Internal

    async def _ask(self, question: Mapping[str, str] | None) -> _Said:
        loop = asyncio.get_running_loop()
        if self._idle is not None:
            self._idle.cancel()
        self._idle = loop.call_later(self._idle_s, self._thread.submit, self._process.end)
        # A caller that is cancelled leaves the thread to finish: the next one finds no answer of somebody else.
        said = await loop.run_in_executor(self._thread, self._process.ask, question)
        if "refused" in said:
            raise CsrRefused(said["refused"])
        if "failed" in said:
            raise SignerFailed(said["failed"])
        return said


class _Process:
    """The process, and its pipes. Everything blocks, and belongs into one thread."""

    def __init__(self, state: Path, trust_domain: str, answer_s: float) -> None:
        # -P: what lies in the current folder is not imported.
        self._command = [sys.executable, "-P", "-m", "cloud_server.trust.signing", str(state), trust_domain]
        self._answer_s = answer_s
        self._running: subprocess.Popen[bytes] | None = None
        self._too_slow = False
        """Whether the last process that was asked was killed for the time that it took."""

    def ask(self, question: Mapping[str, str] | None) -> _Said:
        """Returns the answer to a question; with None it only looks whether there would be one.

        Raises:
            SignerFailed: there is none.
        """
        try:
            at_rest = self._running is not None and self._running.poll() is None
            if not at_rest:
                self.end()  # killed by somebody while it had nothing to do
                self._start()
            if question is None:
                return {}
            try:
                return self._exchange(question)
            except SignerFailed:
                if not at_rest or self._too_slow:
                    raise
            # Killed by somebody a moment before. Should it have signed already, a second certificate does no harm.
            self.end()
            self._start()
            return self._exchange(question)
        except BaseException:
            self.end()
            raise

    def end(self) -> None:
        """Ends the process, if there is one: it ends by itself with its input."""
        process, self._running = self._running, None
        if process is not None:
            # It closes the pipes, then waits. A question that nobody reads any more need not be written.
            with self._in_time(process), suppress(BrokenPipeError), process:
                pass

    # Internal

    def _start(self) -> None:
        try:
            # vfork and exec, as nothing is asked that needs a fork: gRPC's handlers would crash in one.
            self._running = subprocess.Popen(self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        except OSError as error:
            raise SignerFailed(f"the signing process cannot be started: {error.strerror}") from error
        said = self._exchange(None)
        if "fault" in said:
            raise SignerFailed(said["fault"], AUTHORITY_MISSING)

    def _exchange(self, question: Mapping[str, str] | None) -> _Said:
        process = self._running
        assert process is not None
        assert process.stdin is not None
        assert process.stdout is not None
        with self._in_time(process):
            try:
                if question is not None:
                    process.stdin.write(json.dumps(question).encode() + b"\n")
                    process.stdin.flush()
                line = process.stdout.readline()
            except BrokenPipeError:
                line = b""
        if not line.endswith(b"\n"):
            raise SignerFailed("the signing process ended without an answer; what it wrote to standard error says why")
        said: _Said = json.loads(line)
        return said

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
