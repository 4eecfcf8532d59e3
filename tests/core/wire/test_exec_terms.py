"""The server's terms for an exec, over the headers of its request."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tunnel.core.wire.exec_terms import ANY_TERMS, HEADERS, ExecTerms

ACCOUNTS = st.none() | st.frozensets(st.text(alphabet="abc-_.", min_size=1, max_size=6), max_size=4)


@given(accounts=ACCOUNTS, record=st.booleans())
def test_there_and_back(accounts: frozenset[str] | None, record: bool) -> None:
    terms = ExecTerms(accounts, record)
    headers = terms.headers()
    assert {name for name, _ in headers} <= set(HEADERS)
    assert ExecTerms.read([("host", "kubelet"), *headers]) == terms


def test_without_them_anything_goes() -> None:
    assert ExecTerms.read([("host", "kubelet")]) == ANY_TERMS == ExecTerms(None, False)
    assert ANY_TERMS.headers() == []


def test_an_empty_list_is_no_account_and_two_lists_are_what_both_have() -> None:
    assert ExecTerms.read([("longline-accounts", "")]).accounts == frozenset()
    both = [("longline-accounts", "root, deploy"), ("longline-accounts", "deploy,www")]
    assert ExecTerms.read(both).accounts == frozenset({"deploy"})


def test_a_demand_that_is_not_understood_is_one() -> None:
    assert ExecTerms.read([("longline-record", "maybe")]).record
