"""Units as container states, from what systemctl says."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from edge_agent.hostkubelet import units
from edge_agent.hostkubelet.running import Running
from edge_agent.hostkubelet.units import UNKNOWN, Units, parse_states

BOOT = datetime(2026, 1, 31, 12, tzinfo=UTC)


def block(**properties: str) -> str:
    return "\n".join(f"{name}={value}" for name, value in ({"LoadState": "loaded"} | properties).items())


def state(**properties: str) -> dict[str, Any]:
    return parse_states(["a.service"], block(**properties) + "\n", BOOT)["a.service"].state


def test_running() -> None:
    found = parse_states(
        ["a.service"],
        block(ActiveState="active", SubState="running", ActiveEnterTimestampMonotonic="61000000", NRestarts="3"),
        BOOT,
    )["a.service"]
    assert found.state == {"running": {"startedAt": "2026-01-31T12:01:01Z"}}
    assert (found.running, found.restarts) == (True, 3)


def test_starting() -> None:
    assert state(ActiveState="activating", SubState="auto-restart") == {
        "waiting": {"reason": "Activating", "message": "the unit is auto-restart"}
    }


@pytest.mark.parametrize(
    ("code", "status", "expected"),
    [
        ("1", "3", {"exitCode": 3, "reason": "Error"}),
        ("2", "11", {"exitCode": 139, "signal": 11, "reason": "Error"}),
        ("3", "6", {"exitCode": 134, "signal": 6, "reason": "Error"}),
        ("0", "0", {"exitCode": 1, "reason": "Error"}),
    ],
)
def test_failed(code: str, status: str, expected: dict[str, Any]) -> None:
    assert state(ActiveState="failed", ExecMainCode=code, ExecMainStatus=status) == {"terminated": expected}


def test_ended_well() -> None:
    assert state(
        ActiveState="inactive",
        ExecMainCode="2",
        ExecMainStatus="15",
        ActiveEnterTimestampMonotonic="1000000",
        InactiveEnterTimestampMonotonic="2000000",
    ) == {
        "terminated": {
            "exitCode": 0,
            "signal": 15,
            "reason": "Completed",
            "startedAt": "2026-01-31T12:00:01Z",
            "finishedAt": "2026-01-31T12:00:02Z",
        }
    }


def test_never_started_and_unknown_units() -> None:
    assert state(ActiveState="inactive")["waiting"]["reason"] == "Inactive"
    assert state(LoadState="not-found", ActiveState="inactive")["waiting"]["reason"] == "UnitNotFound"


def test_several_units_in_their_order() -> None:
    answer = f"{block(ActiveState='active')}\n\n{block(ActiveState='failed')}\n"
    found = parse_states(["a.service", "b.service"], answer, BOOT)
    assert [found[name].running for name in ("a.service", "b.service")] == [True, False]


@pytest.mark.parametrize("answer", ["", "System has not been booted with systemd", block() + "\n\n" + block()])
def test_an_answer_that_does_not_fit(answer: str) -> None:
    assert parse_states(["a.service"], answer, BOOT) == {"a.service": UNKNOWN}


# ------------------------------------------------------------------------------------------------------------ systemctl


def systemctl(folder: Path, script: str) -> str:
    program = folder / "systemctl"
    program.write_text(f'#!/bin/sh\necho "$*" >>{folder}/calls\n{script}\n')
    program.chmod(0o755)
    return str(program)


@pytest.mark.may_block("the test itself writes the stand-in for systemctl")
async def test_systemctl_is_asked_once_for_all_and_not_too_often(tmp_path: Path) -> None:
    program = systemctl(
        tmp_path, "printf 'LoadState=loaded\\nActiveState=active\\n\\nLoadState=loaded\\nActiveState=failed\\n'"
    )
    running = Running()
    asked = Units(running, ["a.service", "b.service"], program)
    for _ in range(3):
        found = await asked.states()
        assert [unit.running for unit in found.values()] == [True, False]
    await running.aclose()
    (call,) = (tmp_path / "calls").read_text().splitlines()
    assert call.endswith(" -- a.service b.service")
    assert call.startswith("show --property=LoadState,ActiveState,")


@pytest.mark.may_block("the test itself writes the stand-in for systemctl")
async def test_a_box_without_systemd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(units, "ANSWER_WAIT_S", 0.1)
    for program in (
        systemctl(tmp_path, "echo no systemd >&2; exit 1"),
        "/no/systemctl",
        systemctl(tmp_path, "sleep 60"),
    ):
        running = Running()
        assert await Units(running, ["a.service"], program).states() == {"a.service": UNKNOWN}
        await running.aclose()


async def test_without_units_nobody_is_asked() -> None:
    assert await Units(Running(), [], "/no/systemctl").states() == {}
