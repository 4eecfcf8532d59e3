"""A joined box in a process of its own, whose kubelet answers whatever a test wants.

`python -m tests.attacks.lying_box SERVER STATE` reads a command from each line of standard input, as JSON:

- `{"answers": {PATH: FILE}}`: what its kubelet answers from now on to paths that begin so; `%d` in a file becomes
  another number in each answer. `{}` for other paths.
- `{"hello": {FIELD: VALUE}}`: what it says of its box from now on; `version`, and the fields of Node.
- `{"connect": N}`: makes N links, each with a new session, one after the other, and keeps the last. It writes
  `connected` for each.

It writes each request that its kubelet gets.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import sys
from pathlib import Path
from typing import Any

from protos import tunnel_pb2 as pb
from tests.support.hostile_agent import stolen_tls
from tunnel.aio.carriers.carrier import Carrier, DialOptions, dial_carrier
from tunnel.aio.http.http1 import ServerConnection
from tunnel.aio.process.clock import MONOTONIC
from tunnel.aio.process.tasks import TaskOwner
from tunnel.aio.sessions.incoming import IncomingStream
from tunnel.aio.sessions.session import TunnelSession
from tunnel.core.session import Session
from tunnel.core.wire.handshake import decode_answer, encode_hello
from tunnel.core.wire.limits import SESSION_ID_BYTES, Limits
from tunnel.core.wire.names import KUBELET


class LyingBox:
    """The box. It keeps one link at a time."""

    def __init__(self, server: str, state: Path) -> None:
        self._server = server
        self._tls = stolen_tls(state)
        self._instance = os.urandom(SESSION_ID_BYTES)
        self._answers: dict[str, bytes] = {}
        self._hello: dict[str, Any] = {}
        self._numbers = itertools.count()
        self._links = TaskOwner("links")
        self._run: asyncio.Task[None] | None = None

    async def obey(self, command: dict[str, Any]) -> None:
        if "answers" in command:
            self._answers = {path: Path(file).read_bytes() for path, file in command["answers"].items()}
        self._hello = command.get("hello", self._hello)
        for _ in range(command.get("connect", 0)):
            await self._connect()
            print("connected", flush=True)

    async def _connect(self) -> None:
        if self._run is not None:
            self._run.cancel()
            await asyncio.wait({self._run})
        carrier = await dial_carrier(self._server, self._tls, DialOptions())
        said = dict(self._hello)
        hello = encode_hello(
            version=said.pop("version", "1"),
            instance_id=self._instance,
            node=pb.Node(services=[KUBELET], **said),
            limits=Limits(),
        )
        await carrier.write(hello)
        answer = await carrier.read()
        assert answer is not None
        welcome = decode_answer(answer)
        core = Session(
            session_id=welcome.session_id,
            dialler=True,
            now=MONOTONIC(),
            timing=welcome.timing,
            features=welcome.features,
        )
        core.set_peer_limits(welcome.limits.max_streams, welcome.limits.max_data_bytes, welcome.limits.max_packet_bytes)
        session = TunnelSession(core, self._serve, "server", on_going_away=lambda *_: None, clock=MONOTONIC)
        self._run = self._links.spawn("link", self._carry(session, carrier))

    async def _carry(self, session: TunnelSession, carrier: Carrier) -> None:
        await session.run_carrier(carrier, 0)

    async def _serve(self, incoming: IncomingStream) -> None:
        duplex = incoming.accept()
        http = ServerConnection(duplex)
        while (request := await http.next_request()) is not None:
            print(request.target, flush=True)
            found = next((body for path, body in self._answers.items() if request.target.startswith(path)), b"{}")
            await http.respond(200, (), found.replace(b"%d", b"%d" % next(self._numbers)))
        await duplex.aclose()


async def main(server: str, state: Path) -> None:
    box = LyingBox(server, state)
    lines = asyncio.StreamReader(limit=1 << 20)
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    while line := await lines.readline():
        await box.obey(json.loads(line))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], Path(sys.argv[2])))
