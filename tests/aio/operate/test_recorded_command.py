"""Commands as audit records hold them."""

from __future__ import annotations

import pytest

from tunnel.aio.operate.recorded_command import MAX_COMMAND_BYTES, recorded_command


@pytest.mark.parametrize("argv", [[], ["ls"], ["sh", "-c", "echo 'a b'\n\x1b[31m", ""], ["x" * MAX_COMMAND_BYTES]])
def test_what_people_type_is_kept_as_it_is(argv: list[str]) -> None:
    assert recorded_command(argv) == argv


def test_a_long_command_is_cut_and_says_so() -> None:
    assert recorded_command(["sh", "-c", "x" * 2000, "y" * 10]) == [
        "sh",
        "-c",
        "x" * (MAX_COMMAND_BYTES - 4) + "... [990 bytes more]",
    ]


def test_nothing_is_cut_within_a_character() -> None:
    (word,) = recorded_command(["\N{SNOWMAN}" * 400])
    assert word == "\N{SNOWMAN}" * 341 + "... [176 bytes more]"


@pytest.mark.parametrize("word", ["", "a", "\udcff"])
def test_many_words_are_bounded(word: str) -> None:
    recorded = recorded_command([word] * 100_000)
    assert len(str(recorded)) < 16 * MAX_COMMAND_BYTES
