"""Reads what a request for a command asks for, beside the command: its streams, and the server's terms."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from datetime import UTC, datetime

from edge_agent.hostkubelet.channels import Channel
from edge_agent.hostkubelet.recordings import NotRecorded, Recording, Recordings, title_of
from edge_agent.hostkubelet.status import KubeletError
from tunnel.aio.http.http1 import Request
from tunnel.aio.operate.recorded_command import recorded_command
from tunnel.core.wire.asciicast import Header
from tunnel.core.wire.exec_terms import ExecTerms
from tunnel.core.wire.faults import NOT_RECORDED
from tunnel.core.wire.principal import Principal
from tunnel.kubeapi.copy_commands import is_copy

COLUMNS, ROWS = 80, 24
"""The columns and rows of a terminal whose size is not known yet."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecRequest:
    """One command that a client wants."""

    argv: list[str]
    tty: bool
    stdin: bool
    outputs: frozenset[Channel]
    """The channels that the client wants to hear."""
    terms: ExecTerms

    @classmethod
    def read(cls, request: Request) -> ExecRequest:
        """Returns what a request asks for.

        Raises:
            KubeletError: 400, it makes no sense.
        """
        argv = command_of(request)
        if not argv or not argv[0] or any("\0" in argument for argument in argv):
            raise KubeletError(400, "a command must be given")
        wanted = {name for name, value in request.query if value in ("1", "true")}
        tty = "tty" in wanted
        outputs = {Channel.STDOUT} if "output" in wanted else set()
        if "error" in wanted and not tty:
            outputs.add(Channel.STDERR)
        if not outputs and "input" not in wanted:
            raise KubeletError(400, "at least one of stdin, stdout and stderr must be wanted")
        return cls(
            argv=argv,
            tty=tty,
            stdin="input" in wanted,
            outputs=frozenset(outputs),
            terms=ExecTerms.read(request.headers),
        )


def command_of(request: Request) -> list[str]:
    """Returns the words of the command in a request."""
    return [value for name, value in request.query if name == "command"]


async def begin_recording(recordings: Recordings, wanted: ExecRequest, principal: Principal) -> Recording | None:
    """Begins to record a command that must be recorded; returns None for one that need not be.

    Raises:
        KubeletError: it must be recorded and cannot be.
    """
    mode = recordings.settings.mode
    if not wanted.terms.record and (mode != "always" or is_copy(wanted.argv)):
        return None
    if mode == "off":
        raise KubeletError(
            403,
            'the server demands a recording of this command, and this box makes none: [host.recording] mode = "off"',
            NOT_RECORDED,
        )
    command = shlex.join(recorded_command(wanted.argv))
    header = Header(
        columns=COLUMNS,
        rows=ROWS,
        began=int(datetime.now(UTC).timestamp()),
        title=title_of(str(principal), command),
        command=command,
    )
    try:
        return await recordings.begin(str(principal), header)
    except NotRecorded as error:
        raise KubeletError(503, f"this command must be recorded, and cannot be: {error}", error.fault) from error
