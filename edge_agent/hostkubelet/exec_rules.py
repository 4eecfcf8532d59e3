"""Decides whether somebody may run a command on this box, and as which account. The box has the last word.

The closest rules count and no others: those that name the user; where there are none, those with a pattern that fits
the name; then those for a group of theirs; then those for everybody. So a rule for one person is a limit, whatever the
box grants to all. Among the closest the first of the file that allows the command decides.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

from edge_agent.hostkubelet.command_pattern import CommandPattern
from edge_agent.hostkubelet.status import KubeletError
from tunnel.core.wire.audience import EVERYBODY, Audience
from tunnel.core.wire.faults import ACCOUNT_NOT_ALLOWED, COMMAND_NOT_LISTED, RULE_FOR_OTHERS
from tunnel.core.wire.principal import Principal

MAX_TOLD = 8
"""The most command lines that a refusal lists."""
MAX_TOLD_CHARS = 600


@dataclass(frozen=True, slots=True)
class ExecRule:
    """A rule that lets some people run some commands as one account."""

    account: str
    """The account of this box that the commands run as."""
    audience: Audience = EVERYBODY
    commands: tuple[CommandPattern, ...] = ()
    """The command lines that are allowed; empty when all are, an interactive shell too."""

    def allows(self, argv: Sequence[str]) -> bool:
        """Returns whether the rule allows a command line."""
        return not self.commands or any(pattern.allows(argv) for pattern in self.commands)


class ExecRules:
    """All rules of a box, in the order of its file."""

    def __init__(self, rules: Iterable[ExecRule]) -> None:
        self._rules = tuple(rules)

    @property
    def accounts(self) -> list[str]:
        """Returns the accounts that commands may run as, each once."""
        return list(dict.fromkeys(rule.account for rule in self._rules))

    def __bool__(self) -> bool:
        return bool(self._rules)

    def account_for(self, principal: Principal, argv: Sequence[str], accounts: Collection[str] | None = None) -> str:
        """Returns the account that a command of somebody's runs as.

        Args:
            principal: who runs it.
            argv: the command line.
            accounts: the accounts that the server allows; None: any.

        Raises:
            KubeletError: 403, it may not be run.
        """
        closest = self._closest(principal)
        if not closest:
            raise KubeletError(
                403,
                f"this box runs no commands for {principal}: each [[host.exec]] of its edge-agent.toml is for others",
                RULE_FOR_OTHERS,
            )
        # By accounts first: what another account may do is not told to somebody who cannot have it.
        granted = [rule for rule in closest if accounts is None or rule.account in accounts]
        if not granted:
            theirs = ", ".join(dict.fromkeys(rule.account for rule in closest))
            raise KubeletError(
                403,
                f"this box runs commands of {principal} as {theirs} only, which the server's policy does not allow "
                f"(it allows {', '.join(sorted(accounts or ())) or 'no account'})",
                ACCOUNT_NOT_ALLOWED,
            )
        chosen = next((rule for rule in granted if rule.allows(argv)), None)
        if chosen is None:
            raise KubeletError(403, _not_listed(principal, granted), COMMAND_NOT_LISTED)
        return chosen.account

    # Internal

    def _closest(self, principal: Principal) -> list[ExecRule]:
        near = [(rule.audience.closeness(principal), rule) for rule in self._rules]
        best = min((closeness for closeness, _ in near if closeness is not None), default=None)
        return [rule for closeness, rule in near if closeness is not None and closeness is best]


def _not_listed(principal: Principal, granted: Sequence[ExecRule]) -> str:
    patterns = list(dict.fromkeys(pattern.text for rule in granted for pattern in rule.commands))
    told, chars = [], 0
    for text in patterns[:MAX_TOLD]:
        chars += len(text)
        if chars > MAX_TOLD_CHARS:
            break
        told.append(repr(text))
    more = f" and {len(patterns) - len(told)} more" if len(told) < len(patterns) else ""
    return f"this box runs other commands than this for {principal}, only: {', '.join(told)}{more}"
