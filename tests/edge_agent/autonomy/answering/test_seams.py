"""Where what is kept is shown to several who read different parts of it, at moments that rarely fall together."""

from __future__ import annotations

import json
from pathlib import Path
from typing import cast

import pytest

from edge_agent.autonomy.answering import callers
from edge_agent.autonomy.answering.answers import _Watch, answer
from edge_agent.autonomy.answering.callers import MAX_PROOFS, Callers
from edge_agent.autonomy.asks import NODE, SHARED, Ask, Scope, read_ask
from edge_agent.autonomy.kept.feed import Feed
from edge_agent.autonomy.kept.keeper import Keeper
from edge_agent.autonomy.upward.uplink import Uplink
from edge_agent.autonomy.upward.upstream import Upstream
from tunnel.aio.http.exchange import Exchange
from tunnel.aio.http.http1 import Headers, Request
from tunnel.kubeapi.codecs import JSON
from tunnel.kubeapi.replica import Item
from tunnel.kubeapi.request_info import request_info
from tunnel.kubeapi.status import ApiError, Json

PATH = "/apis/discovery.k8s.io/v1/endpointslices"
SLICES = Scope(who=SHARED, group="discovery.k8s.io", version="v1", resource="endpointslices", namespace="",
               label_selector="", field_selector="", encoding="json")  # fmt: skip
MOVED = b"10.0.0.2"


def slice_at(version: int, address: str) -> Item:
    metadata = {"name": "s", "namespace": "ns", "uid": "u", "resourceVersion": str(version)}
    return JSON.read_item(json.dumps({"metadata": metadata, "endpoints": [{"addresses": [address]}]}).encode())


def ask(who: str = "p", **query: str) -> Ask:
    items = list(query.items())
    found = read_ask(request_info("GET", PATH, items), items, "application/json", who, is_node=False)
    assert found is not None
    return found


@pytest.fixture
async def feed(tmp_path: Path) -> Feed:
    made = Feed(SLICES, cast("Upstream", None), Keeper(tmp_path), 1 << 20)
    made.api_version, made.list_kind = "discovery.k8s.io/v1", "EndpointSliceList"
    return made


def move(feed: Feed) -> None:
    """A pod of the node has another address than the cloud knows."""
    feed.view = lambda item: item._replace(raw=item.raw.replace(b"10.0.0.1", MOVED))
    feed.show_anew()


async def test_what_one_component_was_shown_is_not_what_another_was(feed: Feed) -> None:
    feed._fill(100, [slice_at(90, "10.0.0.1")])
    move(feed)
    feed.note_list("192.0.2.1:1 coredns  ")
    with pytest.raises(ApiError, match="too old"):
        _Watch(ask(watch="1", resourceVersion="100"), feed, "192.0.2.1:2 kube-proxy  ", is_away=True)
    _Watch(ask(watch="1", resourceVersion="100"), feed, "192.0.2.1:3 coredns  ", is_away=True)


@pytest.mark.parametrize("end", ["changed", "gone"])
async def test_who_was_told_of_an_older_object_hears_the_rest_of_it(feed: Feed, end: str) -> None:
    """A client that listed at the API server knows more than has come here, until an altered object is shown to it."""
    feed._fill(90, [slice_at(80, "10.0.0.1")])
    watch = _Watch(ask(watch="1", resourceVersion="100"), feed, "x", is_away=False)
    move(feed)
    assert MOVED in watch.next()
    if end == "changed":
        feed.replica.put(feed._seen(slice_at(95, "10.0.0.9")), 0.0)
        assert b"10.0.0.9" in watch.next()
    else:
        feed.replica.remove(("ns", "s"), 95, 0.0)
        assert b"DELETED" in watch.next()


async def test_a_list_that_was_closed_just_now_is_not_an_empty_one(feed: Feed) -> None:
    feed._fill(100, [slice_at(90, "10.0.0.1")])
    feed.close()
    asked = ask(watch="1", sendInitialEvents="true", allowWatchBookmarks="true", resourceVersionMatch="NotOlderThan")
    with pytest.raises(ApiError) as refused:
        await answer(cast("Exchange", None), Request("GET", PATH, Headers()), asked, feed, "away")
    assert refused.value.code == 503


# Rights


class Answers:
    """An API server that answers questions one after the other."""

    def __init__(self, *answers: tuple[int, Json]) -> None:
        self.left = list(answers)

    async def ask(self, _token: str, _path: str, _content: Json) -> tuple[int, Json]:
        return self.left.pop(0)


class Up:
    is_up = True


YES: tuple[int, Json] = (201, {"status": {"allowed": True}})
NO: tuple[int, Json] = (201, {"status": {"allowed": False}})


async def made(folder: Path, monkeypatch: pytest.MonkeyPatch, *answers: tuple[int, Json]) -> Callers:
    monkeypatch.setattr(callers, "RECHECK_S", 0.0)
    asked = Answers(*answers).ask
    return Callers(Keeper(folder), cast("Uplink", Up()), asked, lambda _token: None, lambda _uid: True)


@pytest.mark.parametrize("silence", [(429, {}), (500, {}), (503, {})])
async def test_what_was_refused_is_not_allowed_by_silence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, silence: tuple[int, Json]
) -> None:
    one = await made(tmp_path, monkeypatch, YES, YES, silence, NO, silence, YES, YES)
    assert [await one.may("t", "u", SLICES) for _ in range(5)] == [True, True, False, False, True]


async def test_nor_is_a_token(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    good = (201, {"status": {"userInfo": {"username": "u"}}})
    one = await made(tmp_path, monkeypatch, good, (503, {}), (401, {}), (503, {}), good)
    assert [await one.who("t") for _ in range(5)] == ["u", "u", None, None, "u"]


async def test_strangers_do_not_push_out_that_a_token_was_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(callers, "MAX_PROOFS", 32)
    good = (201, {"status": {"userInfo": {"username": "u"}}})
    one = await made(tmp_path, monkeypatch, good, *[(401, {})] * 101, (503, {}))
    assert await one.who("t") == "u"
    assert await one.who("t") is None
    for number in range(100):
        assert await one.who(f"stranger {number}") is None
    assert await one.who("t") is None


async def test_nobody_pushes_out_what_the_node_may(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(callers, "MAX_PROOFS", 32)
    one = await made(tmp_path, monkeypatch, *[YES] * 500)
    assert await one.may("", NODE, SLICES)
    assert await one.may("t", "other", SLICES)
    for number in range(100):
        await one.may("t", "u", ask("u", labelSelector=f"a={number}").scope)
    users = [user for user, _ in one._proofs]
    assert (users.count(NODE), users.count("other"), users.count("u")) == (1, 1, 32 // 8)
    assert MAX_PROOFS > 100
