"""Which of its renewals a box asks for: a disk that was copied is noticed when its second copy asks (PROTO 10.5).

Each certificate that a box is given counts up its generation, here and on its disk. Two boxes that began as copies of
one disk count from the same number: the one that asks first goes on, and the other asks with a number that is over. An
answer that was lost looks the same, but for the nonce: the box put it on its disk before it asked, and asks again with
it. Once the box comes with the certificate, its answer was not lost, and the nonce is forgotten.

A number that is not reached yet is no copy's: the server's own records were brought back from an earlier day. It can
also be made up, by somebody who has the key and wants the box's own number to be over; so people are told of each, and
only a small lead is taken.
"""

from __future__ import annotations

from dataclasses import dataclass

from cloud_server.trust.records import AgentRecord
from protos import tunnel_pb2
from tunnel.aio.carriers.carrier_errors import EnrollmentRefused
from tunnel.core.wire.faults import COPIED_DISK, RENEWAL_AHEAD, REQUEST_REFUSED
from tunnel.core.wire.limits import NONCE_BYTES

MAX_LEAD = 20
"""By how many renewals a box may be ahead: at one in five days (two thirds of a certificate's life) the server's
records may be 90 days old. It also keeps the number within the uint64 of the wire."""


class CopiedDisk(EnrollmentRefused):
    """A box asks with a number that is over: another box with the same key had its turn."""

    default_fault = COPIED_DISK


class TooFarAhead(EnrollmentRefused):
    """The number is further ahead than records that were brought back explain."""

    default_fault = RENEWAL_AHEAD


@dataclass(frozen=True, slots=True)
class Turn:
    """What a box says of its renewals with a request."""

    generation: int
    nonce: str
    """The random bytes of the request, in hexadecimal."""

    @classmethod
    def of(cls, request: tunnel_pb2.RenewRequest) -> Turn | None:
        """Returns the turn of a request; None for a box that does not count.

        Raises:
            EnrollmentRefused: its nonce has not the right length.
        """
        if not request.HasField("turn"):
            return None
        if len(request.turn.nonce) != NONCE_BYTES:
            raise EnrollmentRefused(f"the nonce of a request has {NONCE_BYTES} bytes", REQUEST_REFUSED)
        return cls(request.turn.generation, request.turn.nonce.hex())

    def taken(self, record: AgentRecord) -> int:
        """The generation that this request leads to: the next one, or once more the one that it led to before.

        Raises:
            CopiedDisk: neither.
            TooFarAhead: it is not reached for long.
        """
        if self.repeats(record):
            return record.generation
        if self.generation < record.generation:
            raise CopiedDisk(
                f"{record.name} has had {record.generation} renewals, and this disk knows of {self.generation}: it is "
                "a copy, or an old state that was brought back; a second box needs its own name, and the same box a "
                "new token (edge-agent join)"
            )
        if (lead := self.lead(record)) > MAX_LEAD:
            raise TooFarAhead(
                f"{record.name} says that it had {lead} renewals more than the server has kept, and {MAX_LEAD} more "
                "are taken: the server's records are too old, or somebody else has the box's key; a new token helps "
                "(edge-agent join)"
            )
        return self.generation + 1

    def lead(self, record: AgentRecord) -> int:
        """Returns by how many renewals the box is ahead of what is kept of it; 0 when it is not."""
        return max(0, self.generation - record.generation)

    def repeats(self, record: AgentRecord) -> bool:
        """Returns whether this is the last request once more, because its answer was lost."""
        return bool(record.nonce) and self.nonce == record.nonce and self.generation + 1 == record.generation


def check_uncounted(record: AgentRecord) -> None:
    """Refuses a request that does not say which renewal it is, from a box that has counted: it would never be over.

    Raises:
        CopiedDisk: it has.
    """
    if record.generation:
        raise CopiedDisk(
            f"{record.name} has had {record.generation} renewals, and this request does not say which it is: it is of "
            "a copy of the disk, or of an older program; a second box needs its own name, and the same box a new token "
            "(edge-agent join)"
        )
