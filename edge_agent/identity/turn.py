"""Which renewal of this box comes next, kept on its disk (PROTO 10.5): the server notices a copy of the disk by it."""

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
    """What the file says."""

    generation: int = 0
    """How many certificates this box was given since it joined."""
    nonce: bytes = b""
    """Of a question whose answer has not come; empty for none."""

    @property
    def message(self) -> tunnel_pb2.Turn:
        """As it is sent."""
        return tunnel_pb2.Turn(generation=self.generation, nonce=self.nonce)

    def file(self, identity: Identity) -> NewFile:
        """As it is written."""
        text = json.dumps({"generation": self.generation, "nonce": self.nonce.hex()})
        return NewFile(identity.turn_path, text.encode(), SECRET)


def begin(identity: Identity) -> Turn:
    """The turn to ask with: the one whose answer was lost, or a new one, which is on the disk before this returns.
    Blocking.

    Raises:
        OSError: it cannot be kept; nothing may be asked.
    """
    turn = _read(identity)
    if not turn.nonce:
        turn = Turn(turn.generation, os.urandom(NONCE_BYTES))
        write_together([turn.file(identity)])
    return turn


# Internal


def _read(identity: Identity) -> Turn:
    """Without a file, or with one that is none, as after a join: the server says if that is wrong."""
    try:
        values = json.loads(identity.turn_path.read_bytes())
        turn = Turn(int(values["generation"]), bytes.fromhex(values["nonce"]))
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return Turn()
    return turn if len(turn.nonce) in (0, NONCE_BYTES) and turn.generation >= 0 else Turn()
