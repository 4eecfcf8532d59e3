"""Runs the `[[test]]` cases of a policy file. A file that fails one of its own cases is not used."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Protocol

from cloud_server.rights.engine import Rights
from cloud_server.rights.explain import AskUnclear, build_ask
from tunnel.aio.process.config import Fault


class CaseText(Protocol):
    """A test case as the file has it; see `TestConfig`."""

    @property
    def name(self) -> str | None: ...  # noqa: D102
    @property
    def user(self) -> str: ...  # noqa: D102
    @property
    def groups(self) -> Sequence[str]: ...  # noqa: D102
    @property
    def agent(self) -> str: ...  # noqa: D102
    @property
    def labels(self) -> Mapping[str, str]: ...  # noqa: D102
    @property
    def target(self) -> str: ...  # noqa: D102
    @property
    def verb(self) -> str | None: ...  # noqa: D102
    @property
    def unit(self) -> str: ...  # noqa: D102
    @property
    def whom(self) -> str: ...  # noqa: D102
    @property
    def frontend(self) -> str | None: ...  # noqa: D102
    @property
    def expect(self) -> str: ...  # noqa: D102


def run_cases(rights: Rights, cases: Sequence[CaseText]) -> Iterator[Fault]:
    """Yields a fault for each case that fails, which names the case and the rule that decided otherwise."""
    for index, case in enumerate(cases):
        key = f"test[{index}]"
        try:
            ask = build_ask(
                user=case.user, groups=case.groups, frontend=case.frontend or "", verb=case.verb or "",
                agent=case.agent, labels=dict(case.labels), target=case.target, unit=case.unit, whom=case.whom,
            )  # fmt: skip
        except AskUnclear as error:
            yield Fault(key, str(error))
            continue
        decision = rights.decide(ask)
        if decision.allowed != (case.expect == "allow"):
            name = f" ({case.name})" if case.name else ""
            word = "allowed" if decision.allowed else "denied"
            why = f": {decision.reason}" if decision.reason else ""
            yield Fault(key, f"the test{name} expects {case.expect}, but it is {word} by {decision.rule}{why}")
