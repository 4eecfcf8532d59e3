"""Tells the box's kubelet what the server demands of an exec, in headers of the request.

The server sets them from its policy's decision, and passes on none that a client sent. They can only narrow what the
box itself allows: a box that has no such account, or records nothing, refuses.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

ACCOUNTS_HEADER: Final = "longline-accounts"
"""The header with the accounts that the command may run as, separated by commas. Without it the command may run as any
account."""
RECORD_HEADER: Final = "longline-record"
REQUIRED: Final = "required"
"""The only value of RECORD_HEADER. Any other value means the same."""
HEADERS: Final = (ACCOUNTS_HEADER, RECORD_HEADER)
"""The headers that no client may send: whoever passes a request on takes them out."""


@dataclass(frozen=True, slots=True)
class ExecTerms:
    """The server's terms for one exec."""

    accounts: frozenset[str] | None = None
    """The accounts that the command may run as; None when it may run as any."""
    record: bool = False
    """Whether its output must be recorded."""

    @classmethod
    def read(cls, headers: Iterable[tuple[str, str]]) -> ExecTerms:
        """Returns the terms in the headers of a request. Names of headers must be in lower case.

        An account must be in each list of accounts, should there be more than one.
        """
        accounts: frozenset[str] | None = None
        record = False
        for name, value in headers:
            if name == ACCOUNTS_HEADER:
                named = frozenset(account for word in value.split(",") if (account := word.strip()))
                accounts = named if accounts is None else accounts & named
            elif name == RECORD_HEADER:
                record = True
        return cls(accounts, record)

    def headers(self) -> list[tuple[str, str]]:
        """Returns the headers that tell a kubelet of the terms; empty when there are none."""
        told = [] if self.accounts is None else [(ACCOUNTS_HEADER, ",".join(sorted(self.accounts)))]
        return [*told, (RECORD_HEADER, REQUIRED)] if self.record else told


ANY_TERMS: Final = ExecTerms()
