"""Streams that the peer opens: what their acceptor is asked, and how it answers."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Protocol

from tunnel.aio.sessions.stream import Stream
from tunnel.core import events as ev
from tunnel.core.wire.errors import Code


class AnswerTaker(Protocol):
    """What an incoming stream needs of its session."""

    def now(self) -> float:
        """The session's clock."""
        ...

    def accept(self, stream_id: int, resolved_address: str) -> Stream:
        """Answer: connected."""
        ...

    def refuse(self, stream_id: int, code: Code, text: str) -> None:
        """Answer: not connected."""
        ...


class IncomingStream:
    """A stream that the peer asks for: answer with `accept` or `refuse`, once.

    Attributes:
        target: what it is to be connected to; an UnknownTarget must be refused.
        principal: who asks, in the peer's words.
        trace_id: the peer's name for the connection behind it, for logs; may be empty.
        agent: whose target it is, when a server forwards the stream; empty: this side's.
        deadline_s: time left to answer when the request came in.
    """

    def __init__(self, session: AnswerTaker, event: ev.StreamOpened) -> None:
        self.stream_id = event.stream_id
        self.target = event.target
        self.principal = event.principal
        self.trace_id = event.trace_id
        self.agent = event.agent
        self.deadline_s = max(0.0, event.deadline_s - session.now())
        self._session = session
        self.answered = False

    def accept(self, resolved_address: str = "") -> Stream:
        """Connected: bytes may flow.

        Raises:
            StreamError: the peer gave up meanwhile, or the session ended.
        """
        self.answered = True
        return self._session.accept(self.stream_id, resolved_address)

    def refuse(self, code: Code, text: str) -> None:
        """Not connected, and why: the text reaches the peer's user."""
        self.answered = True
        self._session.refuse(self.stream_id, code, text)


Acceptor = Callable[[IncomingStream], Awaitable[None]]
"""Runs in a task of its own for each stream the peer opens, until the stream's work is done; it is cancelled when the
peer gives up before an answer, and when the session ends."""
