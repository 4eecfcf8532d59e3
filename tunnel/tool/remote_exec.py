"""Runs one command on one box over `v5.channel.k8s.io` of the fleet API: channels of a WebSocket, in one thread.

What the command is fed comes from a `Source`, where its output goes is a function's business. The loop waits for socket
and source with select(), as relay.py does, and on Windows, where only sockets can be waited for, through a thread.
"""

from __future__ import annotations

import base64
import json
import os
import select
import socket
from collections.abc import Callable, Iterator, Sequence
from enum import IntEnum
from typing import Protocol
from urllib.parse import quote, urlencode

import orjson
from wsproto.connection import Connection, ConnectionType
from wsproto.events import BytesMessage, CloseConnection, Ping, TextMessage
from wsproto.frame_protocol import CloseReason, ParseFailed

from tunnel.core.wire.faults import COMMAND_LOST
from tunnel.core.wire.spoken import spoken_s
from tunnel.tool.api import Answer, Api, ApiFailed
from tunnel.tool.connect import CHUNK_BYTES, failure

PROTOCOL = "v5.channel.k8s.io"
NAMESPACE = "default"
HOST = "host"
"""The name of the container that stands for the box itself."""
SEND_BYTES = 32 * 1024
"""The most bytes of input in one message."""
MAX_UNSENT_BYTES = 256 * 1024
"""The bytes of input that may wait for the socket before the source is asked for more."""
MAX_STATUS_BYTES = 64 * 1024
SILENCE_S = 90.0
"""The seconds of silence after which the connection is taken for lost: the box sends a ping each 30 s, and after three
that did not come nobody is there any more."""


class Channel(IntEnum):
    """The channels; their number is the first byte of every message."""

    STDIN = 0
    STDOUT = 1
    STDERR = 2
    ERROR = 3
    RESIZE = 4
    CLOSE = 255


class CommandLost(ApiFailed):
    """The connection ended before the command was known to have ended."""

    default_fault = COMMAND_LOST


class Source(Protocol):
    """The source of what a command is fed."""

    def waits_for(self) -> int | socket.socket | None:
        """Returns what becomes readable when there is something; None: there is always something."""
        ...

    def read(self) -> bytes | None:
        """Returns some bytes; b"" at the end; None when there is nothing now."""
        ...


class Chunks:
    """A source that never waits, such as the parts of a file."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks = chunks

    def waits_for(self) -> None:
        """Returns None, since there is always something."""

    def read(self) -> bytes:
        """Returns the next chunk; b"" at the end."""
        return next(self._chunks, b"")


class Descriptor:
    """A source behind a file descriptor, such as standard input."""

    def __init__(self, descriptor: int) -> None:
        from tunnel.tool.relay import SELECTS_FILES, pumped

        self._source: int | socket.socket = descriptor if SELECTS_FILES else pumped(descriptor)

    def waits_for(self) -> int | socket.socket:
        """Returns the descriptor, or the socket that stands for it: see `Source`."""
        return self._source

    def read(self) -> bytes | None:
        """Returns some bytes: see `Source`."""
        try:
            if isinstance(self._source, socket.socket):
                return self._source.recv(SEND_BYTES)
            return os.read(self._source, SEND_BYTES)
        except BlockingIOError:  # shared with a program that wants it so, and that was quicker
            return None


Output = Callable[[Channel, bytes], None]


class Resizes(Protocol):
    """The source of a terminal's size and of its changes."""

    def waits_for(self) -> socket.socket | None:
        """Returns what becomes readable when the size has changed."""
        ...

    def size(self) -> tuple[int, int]:
        """Returns columns and rows as they are now."""
        ...


def run_command(
    api: Api,
    box: str,
    command: Sequence[str],
    output: Output,
    *,
    source: Source | None = None,
    terminal: Resizes | None = None,
    container: str = "",
) -> int:
    """Runs a command on a box; returns its exit code.

    Args:
        api: the fleet API.
        box: name of the box.
        command: program and arguments.
        output: called with what the command writes; may raise, which ends the command.
        source: what it is fed; None: nothing.
        terminal: gives it a terminal of this one's size; None: pipes.
        container: where it runs; "": on the box itself.

    Raises:
        ApiFailed: it cannot be run, or was lost (`CommandLost`).
    """
    wanted = {"stdin": source is not None, "stdout": True, "stderr": terminal is None, "tty": terminal is not None}
    query = [(name, "true") for name, value in wanted.items() if value] + [("command", word) for word in command]
    path = f"/api/v1/namespaces/{NAMESPACE}/pods/{quote(box, safe='')}/exec?" + urlencode(
        [("container", container or HOST), *query]
    )
    headers = {
        "Connection": "Upgrade",
        "Upgrade": "websocket",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": base64.b64encode(os.urandom(16)).decode(),
        "Sec-WebSocket-Protocol": PROTOCOL,
    }
    with api.request("GET", path, headers=headers) as answer:
        if answer.status != 101:
            raise ApiFailed(f"{api.name}: exec was answered with {answer.status} and no upgrade")
        return _Session(answer, box, output, source, terminal).run()


class _Session:
    """The loop that carries one command."""

    def __init__(
        self, answer: Answer, box: str, output: Output, source: Source | None, terminal: Resizes | None
    ) -> None:
        self._sock = answer.server.sock
        self._wire = answer.server.wire
        self._server = answer.server
        self._early = answer.upgraded()
        self._box = box
        self._output = output
        self._source = source
        self._terminal = terminal
        self._websocket = Connection(ConnectionType.CLIENT)
        self._unsent = bytearray()
        self._channel: int | None = None
        self._status = bytearray()
        self._ended = False

    def run(self) -> int:
        self._sock.setblocking(False)
        if self._terminal is not None:
            self._say_size()
        self._take(self._early)
        try:
            while not self._ended:
                self._step()
        except OSError as error:
            raise CommandLost(f"{self._box}: {failure(self._server, error, None)}") from error
        return self._exit_code()

    # Internal

    def _step(self) -> None:
        room = len(self._unsent) < MAX_UNSENT_BYTES
        waited = self._source.waits_for() if self._source is not None and room else None
        resized = self._terminal.waits_for() if self._terminal is not None else None
        always = self._source is not None and room and waited is None
        readers = [one for one in (self._sock, waited, resized) if one is not None]
        writers = [self._sock] if self._unsent else []
        readable, writable, _ = select.select(readers, writers, [], 0 if always else SILENCE_S)
        if not (readable or writable or always):
            text = f"{self._box}: nothing was heard for {spoken_s(SILENCE_S)}: the connection is taken for lost"
            raise CommandLost(text)
        if resized is not None and resized in readable:
            resized.recv(4096)
            self._say_size()
        if self._sock in readable:
            self._receive()
        if always or (waited is not None and waited in readable):
            self._feed()
        self._send()

    def _feed(self) -> None:
        assert self._source is not None
        data = self._source.read()
        if data is None:
            return
        if data:
            self._say(Channel.STDIN, data)
        else:
            self._say(Channel.CLOSE, bytes((Channel.STDIN,)))
            self._source = None

    def _say_size(self) -> None:
        assert self._terminal is not None
        columns, rows = self._terminal.size()
        self._say(Channel.RESIZE, json.dumps({"Width": columns, "Height": rows}).encode())

    def _say(self, channel: Channel, data: bytes) -> None:
        if not self._ended:
            self._unsent += self._wire.seal(self._websocket.send(BytesMessage(data=bytes((channel,)) + data)))

    def _send(self) -> None:
        if self._unsent:
            try:
                del self._unsent[: self._sock.send(self._unsent)]
            except BlockingIOError:
                return
            except (BrokenPipeError, ConnectionResetError):  # what it said before tells more
                self._unsent.clear()

    def _receive(self) -> None:
        try:
            received = self._sock.recv(CHUNK_BYTES)
        except BlockingIOError:
            return
        data, ended = self._wire.open(received)
        self._unsent += self._wire.pending()
        self._take(data)
        if ended or not received:
            self._ended = True

    def _take(self, data: bytes) -> None:
        if not data:
            return
        try:
            self._websocket.receive_data(data)
            for event in self._websocket.events():
                match event:
                    case BytesMessage() | TextMessage():
                        content = event.data.encode() if isinstance(event.data, str) else bytes(event.data)
                        self._message(content, event.message_finished)
                    case Ping() if len(self._unsent) < MAX_UNSENT_BYTES:  # one who pings and reads nothing waits
                        self._unsent += self._wire.seal(self._websocket.send(event.response()))
                    case CloseConnection():
                        close = CloseConnection(code=CloseReason.NORMAL_CLOSURE)
                        self._unsent += self._wire.seal(self._websocket.send(close))
                        self._ended = True
                        self._send()
                        return
        except ParseFailed as error:
            raise CommandLost(f"{self._box}: the server broke the WebSocket protocol: {error}") from error

    def _message(self, data: bytes, finished: bool) -> None:
        """Takes a part of a message; the first byte of a message says where all its parts belong."""
        if self._channel is None and data:
            self._channel, data = data[0], data[1:]
        channel = self._channel
        if finished:
            self._channel = None
        if channel in (Channel.STDOUT, Channel.STDERR) and data:
            self._output(Channel(channel), data)
        elif channel == Channel.ERROR and len(self._status) < MAX_STATUS_BYTES:
            self._status += data

    def _exit_code(self) -> int:
        if not self._status:
            raise CommandLost(f"{self._box}: the connection was lost before the command had ended")
        try:
            status = orjson.loads(self._status)
            if status.get("status") == "Success":
                return 0
            causes = (status.get("details") or {}).get("causes") or ()
            codes = [cause["message"] for cause in causes if cause.get("reason") == "ExitCode"]
            if codes:
                return int(codes[0])
            raise ApiFailed(f"{self._box}: {status.get('message') or 'the command failed'}")
        except (ValueError, TypeError, AttributeError, KeyError) as error:
            raise CommandLost(f"{self._box}: how the command ended cannot be read") from error
