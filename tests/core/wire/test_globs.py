"""tunnel.core.wire.globs: patterns of names."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunnel.core.wire.globs import fixed_head, is_glob, matches


@pytest.mark.parametrize(
    ("glob", "head"),
    [("shop-1", "shop-1"), ("shop-*", "shop-"), ("shop-?1*", "shop-"), ("*", ""), ("a*b*", "a")],
)
def test_what_matches_begins_with_the_fixed_head(glob: str, head: str) -> None:
    assert fixed_head(glob) == head
    name = glob.replace("*", "x").replace("?", "y")
    assert matches(glob, name)
    assert name.startswith(head)


@given(name=st.text(alphabet="ab.*?[", min_size=1, max_size=8), cut=st.integers(0, 8))
def test_a_pattern_matches_what_it_was_cut_from(name: str, cut: int) -> None:
    assert matches(name, name)
    assert matches(f"{name[:cut]}*", name)
    assert matches("?" * len(name), name)
    assert not matches("?" * (len(name) + 1), name)


def test_many_stars_take_no_time_that_grows_with_them() -> None:
    assert not matches("*" * 200 + "b", "a" * 250)
    assert not matches("a*" * 100 + "b", "a" * 250)


@given(glob=st.text(alphabet="ab*?.", min_size=1, max_size=8), name=st.text(alphabet="ab.", min_size=1, max_size=8))
def test_it_matches_as_a_regular_expression_would(glob: str, name: str) -> None:
    text = "".join(".*" if sign == "*" else "." if sign == "?" else re.escape(sign) for sign in glob)
    assert matches(glob, name) == (re.fullmatch(text, name) is not None)


@pytest.mark.parametrize("text", ["", "a b", "[ab]", "{a,b}", "a" * 254])
def test_what_is_no_pattern(text: str) -> None:
    assert not is_glob(text)
