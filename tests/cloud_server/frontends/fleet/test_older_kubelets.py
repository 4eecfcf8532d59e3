from __future__ import annotations

import pytest

from cloud_server.frontends.fleet.older_kubelets import OlderKubelets
from tests.support.fleet import START, box
from tunnel.aio.http.http1 import Headers, Response

V5 = ["v5.channel.k8s.io"]
FORWARD = ["SPDY/3.1+portforward.k8s.io"]


def refusal(status: int, content_type: str = "") -> Response:
    headers = Headers([("content-type", content_type)] if content_type else [])
    return Response(status=status, reason="no", headers=headers)


def test_what_was_turned_down_is_expected_to_be_again() -> None:
    older = OlderKubelets()
    assert not older.turn_down(box("a"), V5)
    older.note(box("a"), V5, refusal(403))
    assert older.turn_down(box("a"), V5)
    assert not older.turn_down(box("a"), FORWARD)
    older.note(box("a"), FORWARD, refusal(400, "text/plain; charset=utf-8"))
    assert older.turn_down(box("a"), V5)
    assert older.turn_down(box("a"), FORWARD)
    assert not older.turn_down(box("b"), V5)


def test_it_is_forgotten_when_the_agent_connects_anew() -> None:
    older = OlderKubelets()
    older.note(box("a"), V5, refusal(403))
    later = box("a", since=START.replace(hour=23))
    assert not older.turn_down(later, V5)
    older.note(later, FORWARD, refusal(400))
    assert not older.turn_down(later, V5)


@pytest.mark.parametrize(
    ("offered", "answer"),
    [
        (V5, refusal(403, "application/json")),
        (V5, refusal(404)),
        (V5, refusal(500)),
        (["v4.channel.k8s.io"], refusal(403)),
        ([*V5, "v4.channel.k8s.io"], refusal(403)),
    ],
    ids=["a Status", "no such pod", "a fault", "an older protocol", "an older one too"],
)
def test_other_refusals_tell_nothing(offered: list[str], answer: Response) -> None:
    older = OlderKubelets()
    older.note(box("a"), offered, answer)
    assert not older.turn_down(box("a"), offered)


def test_who_offers_nothing_or_more_is_passed_on() -> None:
    older = OlderKubelets()
    older.note(box("a"), V5, refusal(403))
    assert not older.turn_down(box("a"), [])
    assert not older.turn_down(box("a"), [*V5, "v4.channel.k8s.io"])
