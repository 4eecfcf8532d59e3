"""The box's own audit records of what is done through its kubelet: a start and an end of each exec, log and forwarded
port.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from edge_agent.hostkubelet.log_request import ClientGone
from edge_agent.hostkubelet.status import KubeletError
from tunnel.aio.operate.audit import Audit, AuditUnavailable
from tunnel.aio.operate.recorded_command import recorded_command, recorded_principal
from tunnel.core.wire.errors import Code, StreamError
from tunnel.core.wire.faults import FaultError
from tunnel.core.wire.principal import Principal

TAKEN_AWAY = (Code.STANDING_LOST, Code.KILLED, Code.SESSION_LOST)
"""The codes of ends that the server or the link makes: whoever serves the request only sees that its client is gone."""
MAX_NAME_CHARS = 253
"""The most characters of a container's name in a record: the name is what the client wrote."""


@dataclass(slots=True, kw_only=True)
class RequestRecord:
    """The audit record of one request, filled while the request goes on."""

    audit: Audit
    action: str
    principal: Principal
    container: str
    trace_id: str = ""
    command: list[str] | None = None
    """The command that is run; None: the action runs none."""
    target: str = ""
    """Where a forwarded port leads; "": the action forwards none."""
    account: str = ""
    """The account that the command runs as; "": the action runs none, or none was found yet."""
    recording: str = ""
    """The id of the recording that is made of it, or read; "": there is none."""
    exit_code: int | None = None
    """The command's exit code; None: there was none, or nobody was left to be told."""
    bytes_in: int = 0
    """Bytes that came from the client."""
    bytes_out: int = 0
    """Bytes that went to the client."""
    ended: str = "closed"
    """How the request ended; where an error of the tunnel ended it, the label of its wire code."""
    text: str = ""
    """That error in words; empty when none ended it."""
    code: str = ""
    """The error code of its cause, as in LL4101; empty where none ended it."""
    begun: bool = False
    why_ended: Callable[[], StreamError | None] = lambda: None
    """Returns why the request's connection ended; None while it goes on, after an end in order, and when that is not
    known."""

    def begin(self) -> None:
        """Writes the record that the action begins. It must be called before the first byte moves."""
        self.begun = True
        self.audit.record("open", **self.about())

    def failed(self, error: BaseException) -> None:
        """Notes the error that ended the request."""
        match error:
            case KubeletError():
                self.ended, self.code = f"refused: {error.text}", error.fault.code
            case ClientGone():
                self.ended = "client gone"
            case StreamError():
                self.ended, self.text, self.code = error.code.label, str(error), error.fault.code
            case asyncio.CancelledError():
                self.ended = "agent stopped, or client gone"
            case FaultError():
                self.ended, self.code = f"failed: {error}", error.fault.code
            case _:
                self.ended = f"failed: {error}"

    def ended_from_afar(self) -> None:
        """Notes that the request was taken away, whatever that looked like to whoever served it."""
        error = self.why_ended()
        if error is not None and error.code in TAKEN_AWAY:
            self.failed(error)

    def about(self) -> dict[str, object]:
        """Returns the fields that all records of the request have."""
        forwarded = {"target": self.target} if self.target else {}
        ran = {} if self.command is None else {"command": recorded_command(self.command)}
        account = {"account": self.account} if self.account else {}
        recording = {"recording": self.recording} if self.recording else {}
        return {
            "trace_id": self.trace_id,
            "frontend": "kubelet",
            **recorded_principal(self.principal),
            "action": self.action,
            "container": self.container[:MAX_NAME_CHARS],
            **ran,
            **forwarded,
            **account,
            **recording,
        }


@contextmanager
def audited(record: RequestRecord) -> Iterator[RequestRecord]:
    """Writes the last record of a request when the block ends, however it does.

    Raises:
        KubeletError: 503, it cannot be recorded, and nothing may be done that is not.
    """
    loop = asyncio.get_running_loop()
    started_s = loop.time()
    try:
        record.audit.admit()
        yield record
    except AuditUnavailable as error:
        record.ended = str(error)
        raise KubeletError(503, str(error)) from error
    except BaseException as error:
        record.failed(error)
        raise
    finally:
        seconds = round(loop.time() - started_s, 3)
        record.ended_from_afar()
        if record.begun:
            record.audit.record(
                "end",
                **record.about(),
                exit_code=record.exit_code,
                bytes_to_agent=record.bytes_in,
                bytes_from_agent=record.bytes_out,
                seconds=seconds,
                reason=record.ended,
                **({"text": record.text, "code": record.code} if record.text else {}),
            )
        else:
            why = {"code": record.code} if record.code else {}
            why |= {"outcome": record.ended} if record.text else {}
            record.audit.record("refused", **record.about(), seconds=seconds, **why, reason=record.text or record.ended)
