"""Whom a rule is for: names, patterns and groups, and those who are no users."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunnel.core.wire.audience import EVERYBODY, GROUP_OF_KIND, Audience, Closeness, groups_of
from tunnel.core.wire.principal import NOBODY, Principal, PrincipalKind


def user(name: str, *groups: str) -> Principal:
    return Principal(kind=PrincipalKind.USER, name=name, groups=groups)


@pytest.mark.parametrize(
    ("users", "groups", "who", "closeness"),
    [
        ((), (), user("ann"), Closeness.EVERYBODY),
        ((), (), NOBODY, Closeness.EVERYBODY),
        (("ann",), (), user("ann"), Closeness.USER),
        (("a*", "ann"), ("ops",), user("ann", "ops"), Closeness.USER),
        (("a?n",), ("ops",), user("ann", "ops"), Closeness.USER_GLOB),
        (("bob",), ("o*",), user("ann", "ops"), Closeness.GROUP),
        (("bob",), ("dev",), user("ann", "ops"), None),
        (("ann",), (), user("Ann"), None),
        (("a?n",), (), user("an"), None),
        # A pattern is for users only, and nobody has no name.
        (("*",), ("*",), NOBODY, None),
        (("*",), (), user(""), None),
        (("root",), ("root",), Principal(kind=PrincipalKind.LOCAL_PROCESS, name="root", groups=("root",)), None),
        ((), ("system:local-process",), Principal(kind=PrincipalKind.LOCAL_PROCESS, name="root"), Closeness.GROUP),
        # A credential cannot claim a group of ours.
        ((), ("system:*",), user("eve", "system:local-process"), None),
    ],
)
def test_who_is_meant(users: tuple[str, ...], groups: tuple[str, ...], who: Principal, closeness: int | None) -> None:
    audience = Audience(users, groups)
    assert audience.closeness(who) == closeness
    assert audience.includes(who) == (closeness is not None)


@given(kind=st.sampled_from(PrincipalKind), name=st.text(max_size=5), groups=st.lists(st.text(max_size=5), max_size=3))
def test_everybody_is_everybody_and_a_user_is_in_no_group_of_ours(
    kind: PrincipalKind, name: str, groups: list[str]
) -> None:
    who = Principal(kind=kind, name=name, groups=tuple(groups))
    assert EVERYBODY.includes(who)
    ours = set(groups_of(who)) & set(GROUP_OF_KIND.values())
    assert ours == ({GROUP_OF_KIND[kind]} if kind in GROUP_OF_KIND else set())
