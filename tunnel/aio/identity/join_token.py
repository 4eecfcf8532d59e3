"""A join token: one line that lets one box join once, and pins the authority that the box is to trust.

It holds the authority's certificate and a client certificate with its key that opens nothing but Join, so that also the
first connection of a box is mutually authenticated.
"""

from __future__ import annotations

import base64
import binascii
import json
from dataclasses import dataclass, field
from datetime import datetime

import orjson

from tunnel.aio.identity.certificate import as_pem, pem_blocks
from tunnel.aio.process.moments import moment
from tunnel.core.wire.faults import TOKEN_DAMAGED, FaultError

PREFIX = "longline-join-1."


class TokenUnusable(FaultError):
    """The text is no token of ours; the message says what to do, and nothing of what the text held."""

    default_fault = TOKEN_DAMAGED


@dataclass(frozen=True, slots=True, kw_only=True)
class JoinToken:
    """The content of a join token."""

    agent: str
    expires: datetime
    ca_pem: bytes
    """The authorities that the box is to trust."""
    certificate_pem: bytes
    key_pem: bytes = field(repr=False)

    def encode(self) -> str:
        """Returns the token as one line of text."""
        values = {
            "agent": self.agent,
            "expires": int(self.expires.timestamp()),
            "ca": self.ca_pem.decode(),
            "certificate": self.certificate_pem.decode(),
            "key": self.key_pem.decode(),
        }
        return PREFIX + base64.urlsafe_b64encode(json.dumps(values).encode()).decode().rstrip("=")

    @classmethod
    def decode(cls, text: str) -> JoinToken:
        """Reads a token from its line of text.

        Raises:
            TokenUnusable: the text is no token, or a damaged one.
        """
        line = text.strip()
        if not line.startswith(PREFIX):
            raise TokenUnusable("this is no join token; make one with: cloud-server token create")
        body = line.removeprefix(PREFIX)
        try:
            values = orjson.loads(base64.b64decode(body + "=" * (-len(body) % 4), altchars=b"-_", validate=True))
            return cls(
                agent=str(values["agent"]),
                expires=moment(int(values["expires"])),
                ca_pem=as_pem(pem_blocks(values["ca"].encode())),
                certificate_pem=values["certificate"].encode(),
                key_pem=values["key"].encode(),
            )
        except (binascii.Error, ValueError, KeyError, TypeError, AttributeError):
            raise TokenUnusable("the join token is damaged: was all of its line copied?") from None
