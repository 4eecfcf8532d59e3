"""What is said of two configurations that differ, and that no secret is."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from tunnel.aio.process.differences import MAX_TEXT_CHARS, Difference, differences


@dataclass(frozen=True, kw_only=True)
class Rule:
    target: str
    service: str | None = None
    password: str = field(default="", repr=False)


@dataclass(frozen=True, kw_only=True)
class Cloud:
    servers: list[str] = field(default_factory=list)
    proxy: str | None = field(default=None, repr=False)


@dataclass(frozen=True, kw_only=True)
class Config:
    cloud: Cloud = field(default_factory=Cloud)
    allow: list[Rule] = field(default_factory=list)
    labels: dict[str, str] = field(default_factory=dict)
    kubelet: Rule | None = None
    state: Path | None = None
    drain_s: float = 30.0


ONE, TWO = Rule(target="10.0.0.1:22"), Rule(target="10.0.0.2:80", service="web", password="hunter2")
OLD = Config(cloud=Cloud(servers=["a:1", "b:2"]), allow=[ONE], labels={"site": "lyon", "floor": "1"})


@pytest.mark.parametrize(
    ("new", "said"),
    [
        (OLD, []),
        (replace(OLD, drain_s=5.0), ["drain_s: 30.0 -> 5.0"]),
        (replace(OLD, state=Path("/x")), ['state: none -> "/x"']),
        (replace(OLD, labels={"site": "paris", "floor": "1"}), ['labels.site: "lyon" -> "paris"']),
        (replace(OLD, labels={"site": "lyon"}), ['labels.floor: "1" -> none']),
        (replace(OLD, allow=[ONE, ONE]), ['allow: + target = "10.0.0.1:22"']),
        (
            replace(OLD, allow=[TWO]),
            [
                'allow: - target = "10.0.0.1:22"',
                'allow: + target = "10.0.0.2:80", service = "web", password = (secret)',
            ],
        ),
        (replace(OLD, cloud=Cloud(servers=["b:2", "a:1"])), ["cloud.servers: in another order"]),
        (replace(OLD, cloud=Cloud(servers=["a:1"])), ['cloud.servers: - "b:2"']),
        (replace(OLD, kubelet=ONE), ['kubelet: none -> target = "10.0.0.1:22"']),
    ],
)
def test_each_key_that_is_not_as_it_was(new: Config, said: list[str]) -> None:
    assert [str(one) for one in differences(OLD, new)] == said


def test_of_a_secret_only_that_it_is_another() -> None:
    old = replace(OLD, cloud=Cloud(servers=["a:1", "b:2"], proxy="http://me:hunter1@p:1"))
    new = replace(OLD, cloud=Cloud(servers=["a:1", "b:2"], proxy="http://me:hunter2@p:1"))
    assert [str(one) for one in differences(old, new)] == ["cloud.proxy: (secret) -> (secret)"]
    assert [str(one) for one in differences(OLD, new)] == ["cloud.proxy: none -> (secret)"]


def test_a_difference_is_of_a_key_or_of_its_section() -> None:
    one = Difference("tunnel.listen", "")
    assert one.is_of(["tunnel"])
    assert one.is_of(["tunnel.listen"])
    assert not one.is_of(["tunnel.listen_too", "tun"])


def test_a_long_value_is_cut() -> None:
    (one,) = differences(OLD, replace(OLD, labels={**OLD.labels, "x": "y" * 1000}))
    assert len(str(one)) == MAX_TEXT_CHARS
