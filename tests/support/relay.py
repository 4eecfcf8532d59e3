"""A TCP relay that plays the network between two processes: delay, rate, router queue, cuts, black holes.

`Relay` runs in a thread of this process; `relay_process.RelayProcess` is the same in a process of its own. One relay
is one link: all its connections share each direction's rate and queue, first come first served. A TCP relay cannot drop
packets, so a full queue holds the sender back, and what a black hole swallowed is lost for good: a connection that lost
bytes in one stays silent for ever, as behind a NAT that forgot it.

`python -m tests.support.relay --target HOST:PORT` reads one JSON command a line, answers each with a line of JSON, and
ends with its standard input.
"""

from __future__ import annotations

import argparse
import enum
import errno
import json
import os
import select
import socket
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any, Literal, Self, TypeVar

from tests.support.relay_pipe import LinkDirection, Pipe, Shape, reset_socket

T = TypeVar("T")
Address = tuple[str, int]
Cut = Literal["rst", "fin"]

MAX_WAIT_S = 1.0
IN, OUT = select.EPOLLIN, select.EPOLLOUT


class Mode(enum.Enum):
    """What the link does with bytes."""

    FLOWING = "flowing"
    FROZEN = "frozen"
    """Nothing moves, nothing is lost."""
    BLACK_HOLE = "black hole"
    """Everything is accepted and swallowed, new connections too; nothing is answered."""


class _Connection:
    """A client, its connection to the target, and the two pipes between them."""

    def __init__(self, relay: Relay, client: socket.socket, target: Address | None) -> None:
        self.relay = relay
        self.client = client
        self.target: socket.socket | None = None
        self.connecting = False
        self.pipes: list[Pipe] = []
        self.last_read_s = 0.0
        self.draining = False
        """After a cut by FIN: what still comes is thrown away until both ends have closed."""
        if target is not None:
            family = socket.AF_INET6 if ":" in target[0] else socket.AF_INET
            self.target = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
            self.target.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self.connecting = self.target.connect_ex(target) == errno.EINPROGRESS
            self.pipes = [Pipe(client, self.target, relay.up), Pipe(self.target, client, relay.down)]

    @property
    def sockets(self) -> list[socket.socket]:
        return [self.client] if self.target is None else [self.client, self.target]

    @property
    def doomed(self) -> bool:
        """It lost bytes in a black hole, or was never connected to anything."""
        return self.target is None or any(pipe.lost for pipe in self.pipes)

    def interest(self, fd: int, now: float) -> int:
        """The epoll events that this socket must be watched for now; 0 for none."""
        relay = self.relay
        if self.target is None:
            return 0
        if self.connecting:
            return OUT if fd == self.target.fileno() else 0
        up, down = self.pipes
        pipe, other = (up, down) if fd == self.client.fileno() else (down, up)
        swallowing = relay.mode is Mode.BLACK_HOLE or self.doomed or self.draining
        if relay.mode is Mode.FROZEN and not swallowing:
            return 0
        events = IN if not pipe.source_ended and (swallowing or pipe.wants_read(now)) else 0
        return events | (OUT if other.blocked and not swallowing else 0)

    def ready(self, fd: int, now: float) -> bool:
        """Move what can be moved from this socket. Returns whether the connection lives on."""
        if self.target is None:
            return True
        try:
            if self.connecting:
                return self._connected()
            pipe = self.pipes[0 if fd == self.client.fileno() else 1]
            if self.draining:
                pipe.discard()
                return not all(each.source_ended for each in self.pipes)
            if self.relay.mode is Mode.BLACK_HOLE or self.doomed:
                pipe.swallow()
                return True
            if pipe.wants_read(now):
                self.last_read_s = now
                pipe.receive(now)
        except OSError:
            return self._failed()
        return True

    def flush(self, now: float) -> bool:
        """Deliver what is due. Returns whether the connection lives on."""
        if self.connecting or self.draining or self.doomed or self.relay.mode is not Mode.FLOWING:
            return True
        try:
            for pipe in self.pipes:
                pipe.deliver(now)
        except OSError:
            return self._failed()
        return not all(pipe.finished for pipe in self.pipes)

    def next_due(self, now: float) -> float | None:
        """When there is something to do though no socket says so."""
        if self.connecting or self.draining or self.doomed or self.relay.mode is not Mode.FLOWING:
            return None
        times = [at for pipe in self.pipes if (at := pipe.next_due(now)) is not None]
        return min(times) if times else None

    def cut(self, how: Cut) -> bool:
        """End it from the middle. Returns whether it still has to be drained."""
        if how == "fin" and self.target is not None and not self.connecting:
            self.draining = True
            for pipe in self.pipes:
                pipe.queue.clear()
                pipe.finish()
            return True
        self.reset()
        return False

    def reset(self) -> None:
        for each in self.sockets:
            reset_socket(each)

    def close(self) -> None:
        for each in self.sockets:
            each.close()

    def _connected(self) -> bool:
        assert self.target is not None
        self.connecting = False
        if self.target.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            self.reset()
            return False
        return True

    def _failed(self) -> bool:
        """An end was reset: the other must see a reset too, unless nothing may pass."""
        if self.relay.mode is Mode.BLACK_HOLE or self.doomed:
            for pipe in self.pipes:
                pipe.lost = pipe.source_ended = True
            return True
        self.reset()
        return False


class Relay:
    """The link, in a thread of this process. Use as a context manager."""

    def __init__(
        self, target: Address, *, listen: Address = ("127.0.0.1", 0), up: Shape | None = None, down: Shape | None = None
    ) -> None:
        """`up` is from whoever connects to the target, `down` is back; None is a link without limits."""
        self.target = target
        self.up = LinkDirection(up or Shape())
        self.down = LinkDirection(down or Shape())
        self.mode = Mode.FLOWING
        self._listen = listen
        self._listener: socket.socket | None = None
        self._connections: dict[int, _Connection] = {}
        self._watched: dict[int, int] = {}
        self._epoll = select.epoll()
        self._commands: deque[tuple[Callable[[], Any], Future[Any]]] = deque()
        self._wake = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._stopping = False
        self._accepted = self._cut = 0
        self._cuts_ahead: deque[int] = deque()
        """After how many carried bytes, counted both ways from the relay's start, all is cut once more."""
        self._how_ahead: Cut = "rst"
        self._open_listener()
        self._epoll.register(self._wake, IN)
        self._thread = threading.Thread(target=self._run, name="relay", daemon=True)
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.stop()

    @property
    def port(self) -> int:
        return self._listen[1]

    @property
    def address(self) -> str:
        return f"{self._listen[0]}:{self._listen[1]}"

    def shape(self, *, up: Shape | None = None, down: Shape | None = None) -> None:
        """Change the limits of a direction; None leaves it as it is."""
        self._call(lambda: self._shape(up, down))

    def aim(self, target: Address) -> None:
        """Lead connections that are accepted from now on to another target, over the same link."""
        self._call(lambda: setattr(self, "target", target))

    def cut(self, how: Cut = "rst") -> int:
        """End all connections, with a reset or a FIN at both ends. Returns how many there were."""
        return self._call(lambda: self._cut_all(how))

    def cut_after(self, marks_bytes: Sequence[int], how: Cut = "rst") -> None:
        """Cut all connections each time that so many bytes more were carried, both ways, from now.

        It is done here and not by whoever watches the counters: on a busy machine the bytes are faster than that one.
        """
        self._call(lambda: self._plan_cuts(marks_bytes, how))

    def freeze(self) -> None:
        """Nothing moves any more until `heal`; then everything arrives."""
        self._call(lambda: self._enter(Mode.FROZEN))

    def black_hole(self) -> None:
        """From now on everything is swallowed, in both directions."""
        self._call(lambda: self._enter(Mode.BLACK_HOLE))

    def refuse(self) -> None:
        """Refuse new connections; those that are open go on."""
        self._call(self._close_listener)

    def heal(self) -> None:
        """Let bytes flow and connections in again."""
        self._call(lambda: self._enter(Mode.FLOWING))

    def counters(self) -> dict[str, int]:
        """Connections accepted, open and cut so far, and bytes carried each way."""
        return self._call(self._counters)

    def stop(self) -> None:
        """Reset what is open and close everything."""
        if self._stopping:
            return
        self._call(lambda: setattr(self, "_stopping", True))
        self._thread.join()

    # Internal: all of it runs in the relay's thread.

    def _call(self, action: Callable[[], T]) -> T:
        if self._stopping:
            raise RuntimeError("the relay is stopped")
        result: Future[T] = Future()
        self._commands.append((action, result))
        os.eventfd_write(self._wake, 1)
        return result.result(10)

    def _shape(self, up: Shape | None, down: Shape | None) -> None:
        for direction, shape in ((self.up, up), (self.down, down)):
            if shape is not None:
                direction.shape = shape
        for connection in set(self._connections.values()):
            for pipe in connection.pipes:
                pipe.bound_kernel_buffer()

    def _enter(self, mode: Mode) -> None:
        self.mode = mode
        if mode is Mode.FLOWING and self._listener is None:
            self._open_listener()
        if mode is Mode.BLACK_HOLE:
            for connection in set(self._connections.values()):
                for pipe in connection.pipes:
                    pipe.lost = pipe.lost or bool(pipe.queue)

    def _cut_all(self, how: Cut) -> int:
        connections = {each for each in self._connections.values() if not each.draining}
        self._cut += len(connections)
        for connection in connections:
            self._unwatch(connection)
            if not connection.cut(how):
                self._forget(connection)
        return len(connections)

    def _plan_cuts(self, marks_bytes: Sequence[int], how: Cut) -> None:
        begin = self._carried_bytes()
        self._cuts_ahead = deque(begin + mark for mark in marks_bytes)
        self._how_ahead = how

    def _carried_bytes(self) -> int:
        return self.up.carried_bytes + self.down.carried_bytes

    def _cut_if_due(self) -> None:
        # With nothing to cut, the cut stays ahead until there is.
        if self._cuts_ahead and self._carried_bytes() >= self._cuts_ahead[0] and self._cut_all(self._how_ahead):
            self._cuts_ahead.popleft()

    def _counters(self) -> dict[str, int]:
        return {
            "accepted": self._accepted,
            "open": len({each for each in self._connections.values() if not each.draining}),
            "cut": self._cut,
            "cuts_ahead": len(self._cuts_ahead),
            "up_bytes": self.up.carried_bytes,
            "down_bytes": self.down.carried_bytes,
        }

    def _open_listener(self) -> None:
        family = socket.AF_INET6 if ":" in self._listen[0] else socket.AF_INET
        listener = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(self._listen)
        listener.listen(512)
        self._listen = listener.getsockname()[:2]
        self._listener = listener

    def _close_listener(self) -> None:
        if self._listener is not None:
            self._watch(self._listener.fileno(), 0)
            self._listener.close()
            self._listener = None

    def _accept(self) -> None:
        assert self._listener is not None
        try:
            client, _ = self._listener.accept()
        except OSError:
            return
        client.setblocking(False)
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._accepted += 1
        connection = _Connection(self, client, None if self.mode is Mode.BLACK_HOLE else self.target)
        for each in connection.sockets:
            self._connections[each.fileno()] = connection

    def _run(self) -> None:
        while not self._stopping:
            now = time.monotonic()
            for fd, _events in sorted(self._epoll.poll(self._timeout(now)), key=self._turn):
                self._event(fd, time.monotonic())
            now = time.monotonic()
            for connection in set(self._connections.values()):
                if not connection.flush(now):
                    self._drop(connection)
            self._cut_if_due()
        for connection in set(self._connections.values()):
            connection.reset()
        self._close_listener()
        self._epoll.close()
        os.close(self._wake)

    def _turn(self, event: tuple[int, int]) -> float:
        """Who waited longest comes first, else the first one would get all the room of a full queue. The listener comes
        last: a new connection must not get the number of one that ended in the same batch.
        """
        if self._listener is not None and event[0] == self._listener.fileno():
            return float("inf")
        connection = self._connections.get(event[0])
        return connection.last_read_s if connection is not None else 0.0

    def _event(self, fd: int, now: float) -> None:
        if fd == self._wake:
            os.eventfd_read(self._wake)
            while self._commands:
                action, result = self._commands.popleft()
                try:
                    result.set_result(action())
                except Exception as error:  # noqa: BLE001 - it is raised again in the caller's thread
                    result.set_exception(error)
        elif self._listener is not None and fd == self._listener.fileno():
            self._accept()
        elif (connection := self._connections.get(fd)) is not None and not connection.ready(fd, now):
            self._drop(connection)

    def _timeout(self, now: float) -> float:
        """Bring what is watched up to date, and tell how long nothing will happen by itself."""
        due = now + MAX_WAIT_S
        for fd, connection in self._connections.items():
            self._watch(fd, connection.interest(fd, now))
            if (at := connection.next_due(now)) is not None:
                due = min(due, at)
        if self._listener is not None:
            self._watch(self._listener.fileno(), 0 if self.mode is Mode.FROZEN else IN)
        return max(0.0, due - now)

    def _watch(self, fd: int, events: int) -> None:
        # A socket watched for nothing would still report its hang-up, over and over.
        watched = self._watched.get(fd, 0)
        if events == watched:
            return
        if not events:
            self._epoll.unregister(fd)
            del self._watched[fd]
            return
        if watched:
            self._epoll.modify(fd, events)
        else:
            self._epoll.register(fd, events)
        self._watched[fd] = events

    def _unwatch(self, connection: _Connection) -> None:
        for each in connection.sockets:
            if each.fileno() >= 0:
                self._watch(each.fileno(), 0)

    def _drop(self, connection: _Connection) -> None:
        self._forget(connection)
        connection.close()

    def _forget(self, connection: _Connection) -> None:
        for fd in [fd for fd, owner in self._connections.items() if owner is connection]:
            if self._watched.pop(fd, 0) and any(each.fileno() == fd for each in connection.sockets):
                self._epoll.unregister(fd)
            del self._connections[fd]


def _address(text: str) -> Address:
    host, _, port = text.rpartition(":")
    return host.strip("[]"), int(port)


def main() -> None:
    """Serve one relay by commands on standard input."""
    parser = argparse.ArgumentParser(prog="relay")
    parser.add_argument("--listen", type=_address, default=("127.0.0.1", 0))
    parser.add_argument("--target", type=_address, required=True)
    options = parser.parse_args()
    with Relay(options.target, listen=options.listen) as relay:
        print(json.dumps(relay.address), flush=True)
        for line in sys.stdin:
            method, arguments = json.loads(line)
            if method == "shape":
                arguments = {way: Shape(**shape) for way, shape in arguments.items() if shape}
            if method == "aim":
                arguments = {"target": tuple(arguments["target"])}
            print(json.dumps(getattr(relay, method)(**arguments)), flush=True)


if __name__ == "__main__":
    main()
