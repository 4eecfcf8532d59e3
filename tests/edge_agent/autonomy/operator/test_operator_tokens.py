"""The operator's token is the box's own: it ends, it cannot be changed, and another box's is nobody's."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from edge_agent.autonomy.operator.operator_tokens import (
    KEY,
    KeyUnavailable,
    Operator,
    OperatorUnknown,
    is_operator_token,
    new_token,
    read_token,
    token_id,
)

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
KIM = Operator("kim", NOW + timedelta(hours=1))


def test_a_token_says_whose_it_is_until_it_ends(tmp_path: Path) -> None:
    token = new_token(tmp_path, KIM)
    assert is_operator_token(token)
    assert not is_operator_token("eyJhbGciOi.eyJ.x")
    assert not is_operator_token(None)
    assert read_token(tmp_path, token, NOW) == KIM._replace(token_id=token_id(token))
    assert (tmp_path / KEY).stat().st_mode & 0o777 == 0o600
    with pytest.raises(OperatorUnknown, match="the token of kim ended at 2026-03-01T13:00:00Z"):
        read_token(tmp_path, token, KIM.end)


def test_the_key_stays_and_ends_all_tokens_with_it(tmp_path: Path) -> None:
    tokens = [new_token(tmp_path, KIM), new_token(tmp_path, KIM._replace(name="sam"))]
    assert [read_token(tmp_path, token, NOW).name for token in tokens] == ["kim", "sam"]
    (tmp_path / KEY).unlink()
    with pytest.raises(OperatorUnknown, match="has given out no token"):
        read_token(tmp_path, tokens[0], NOW)
    new_token(tmp_path, KIM)
    with pytest.raises(OperatorUnknown, match="a key that is gone"):
        read_token(tmp_path, tokens[0], NOW)


def test_no_sign_of_a_token_can_be_changed(tmp_path: Path) -> None:
    token = new_token(tmp_path, KIM)
    for at in range(len("longline-operator-"), len(token) - 2):  # the last signs of a base64 text say less than a bit
        changed = f"{token[:at]}{'A' if token[at] != 'A' else 'B'}{token[at + 1 :]}"
        with pytest.raises(OperatorUnknown):
            read_token(tmp_path, changed, NOW)


@pytest.mark.parametrize("text", ["", ".", "x.y", "a.b.c", "é.é", "=" * 2000, "e30=.e30="])
def test_what_is_no_token_is_refused(tmp_path: Path, text: str) -> None:
    new_token(tmp_path, KIM)
    with pytest.raises(OperatorUnknown):
        read_token(tmp_path, f"longline-operator-{text}", NOW)


def test_a_key_that_is_too_short_is_none(tmp_path: Path) -> None:
    (tmp_path / KEY).write_bytes(b"")
    with pytest.raises(KeyUnavailable, match="it is no key"):
        new_token(tmp_path, KIM)
    with pytest.raises(KeyUnavailable, match="No such file"):
        new_token(tmp_path / "none", KIM)
