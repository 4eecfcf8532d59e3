"""tunnel.core.wire.faults: one code for each cause."""

from __future__ import annotations

import re

import pytest

from tunnel.core.wire import faults
from tunnel.core.wire.faults import FAULTS, Fault, FaultError, coded, decoded, fault_of


def test_no_code_and_no_title_is_there_twice() -> None:
    named = [value for value in vars(faults).values() if isinstance(value, Fault)]
    assert len(named) == len(FAULTS) == len({fault.title for fault in named})
    assert all(re.fullmatch("LL[1-6][0-9]{3}", fault.code) for fault in named)
    assert [fault.code for fault in named] == sorted(FAULTS)


def test_an_error_names_its_cause() -> None:
    class Refused(FaultError):
        default_fault = faults.TOKEN_USED

    assert fault_of(Refused("used")) is faults.TOKEN_USED
    assert fault_of(Refused("old", faults.TOKEN_EXPIRED)) is faults.TOKEN_EXPIRED
    assert (str(Refused("old")), Refused("old").text) == ("old", "old")
    assert fault_of(PermissionError(13, "no")) is faults.SYSTEM_REFUSED
    assert fault_of(ValueError("x")) is faults.BUG


def test_a_code_before_a_text_is_read_back() -> None:
    text = coded("10.0.0.1:22: connection refused", faults.TARGET_REFUSED)
    assert text == f"{faults.TARGET_REFUSED}: 10.0.0.1:22: connection refused"
    assert decoded(text) == ("10.0.0.1:22: connection refused", faults.TARGET_REFUSED)


@pytest.mark.parametrize("text", ["", "no", "LL9999: of a later build", "LL42011: no code", "see LL4201: x"])
def test_a_text_without_a_known_code_stays_as_it_is(text: str) -> None:
    assert decoded(text) == (text, None)
