"""Keeps on the disk which renewal of this box comes next (PROTO 10.5). The server notices a copy of the disk by it."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass

from edge_agent.identity.identity import Identity
from protos import tunnel_pb2
from tunnel.aio.process.files import SECRET, NewFile, write_together
from tunnel.core.wire.limits import NONCE_BYTES


@dataclass(frozen=True, slots=True)
class Turn:
    """The content of the file: the count of renewals, and the request that has no answer yet."""

    generation: int = 0
    """The number of certificates that this box was given since it joined."""
    nonce: bytes = b""
    """The nonce of a request whose answer has not come; empty when there is none."""

    @property
    def message(self) -> tunnel_pb2.Turn:
        """Returns the turn as it is sent."""
        return tunnel_pb2.Turn(generation=self.generation, nonce=self.nonce)

    def file(self, identity: Identity) -> NewFile:
        """Returns the file that the turn is written to."""
        text = json.dumps({"generation": self.generation, "nonce": self.nonce.hex()})
        return NewFile(identity.turn_path, text.encode(), SECRET)


def begin(identity: Identity) -> Turn:
    """Returns the turn to ask with: the one whose answer was lost, or a new one, which is on the disk before this
    returns. Blocking.

    Raises:
        OSError: it cannot be written; nothing may be asked.
    """
    turn = _read(identity)
    if not turn.nonce:
        turn = Turn(turn.generation, os.urandom(NONCE_BYTES))
        write_together([turn.file(identity)])
    return turn


# Internal


def _read(identity: Identity) -> Turn:
    """Returns the turn in the file.

    Without a usable file, as after a join, it is the first turn: the server says if that is wrong.
    """
    try:
        values = json.loads(identity.turn_path.read_bytes())
        turn = Turn(int(values["generation"]), bytes.fromhex(values["nonce"]))
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return Turn()
    return turn if len(turn.nonce) in (0, NONCE_BYTES) and turn.generation >= 0 else Turn()
