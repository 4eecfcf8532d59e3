"""The streams that the peer opens: what their acceptor is asked, and how it answers."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Protocol

from tunnel.aio.process.clock import Clock
from tunnel.aio.sessions.stream import Stream
from tunnel.core import events as ev
from tunnel.core.wire.errors import Code, StreamError


class AnswerTaker(Protocol):
    """What an incoming stream needs of its session."""

    now: Clock

    def accept(self, stream_id: int, resolved_address: str) -> Stream:
        """Answers that the stream is connected, and returns it."""
        ...

    def refuse(self, stream_id: int, code: Code, text: str) -> None:
        """Answers that the stream is not connected, and why."""
        ...

    def reset(self, stream_id: int, code: Code, text: str) -> None:
        """Ends a stream that was accepted."""
        ...

    def kick(self) -> None:
        """Is called when something is there to send."""
        ...


class IncomingStream:
    """A stream that the peer asks for: answer with `accept` or `refuse`, once.

    Attributes:
        target: what it is to be connected to; an UnknownTarget must be refused.
        principal: who asks, in the peer's words.
        trace_id: the peer's name for the connection behind it, for logs; may be empty.
        agent: whose target it is, when a server forwards the stream; empty: this side's.
        deadline_s: time left to answer when the request came in.
        now: the clock of its session.
    """

    def __init__(self, session: AnswerTaker, event: ev.StreamOpened) -> None:
        self.stream_id = event.stream_id
        self.target = event.target
        self.principal = event.principal
        self.trace_id = event.trace_id
        self.agent = event.agent
        self.now = session.now
        self.deadline_s = max(0.0, event.deadline_s - session.now())
        self._session = session
        self.answered = False

    def accept(self, resolved_address: str = "") -> Stream:
        """Answers that the stream is connected, and returns it; bytes may flow.

        Raises:
            StreamError: the peer gave up meanwhile, or the session ended.
        """
        self.answered = True
        return self._session.accept(self.stream_id, resolved_address)

    def refuse(self, code: Code, text: str) -> None:
        """Answers that the stream is not connected, and why. The text reaches the peer's user."""
        self.answered = True
        self._session.refuse(self.stream_id, code, text)

    async def served_by(self, acceptor: Acceptor) -> None:
        """Runs an acceptor. Whatever becomes of that, the stream gets an answer, and ends if nobody serves it."""
        try:
            await acceptor(self)
        except StreamError as error:
            self._abandon(error.code, error.told)
        except Exception:
            self._abandon(Code.INTERNAL, "internal error")
            raise
        finally:
            if not self.answered:
                self.refuse(Code.INTERNAL, "the far end could not answer")

    # Internal

    def _abandon(self, code: Code, text: str) -> None:
        """Ends the stream, accepted or not: the acceptor failed, and nobody serves it any more."""
        if self.answered:
            self._session.reset(self.stream_id, code, text)
            self._session.kick()
        else:
            self.refuse(code, text)


Acceptor = Callable[[IncomingStream], Awaitable[None]]
"""Runs in a task of its own for each stream the peer opens, until the stream's work is done; it is cancelled when the
peer gives up before an answer, and when the session ends."""
