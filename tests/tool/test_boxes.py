"""Boxes as nodes say them: labels with and without their prefix, close names, logs by unit and path; and tables."""

from __future__ import annotations

import tracemalloc
from datetime import UTC, datetime
from typing import Any

import pytest

from tunnel.tool.api import Api, ApiFailed
from tunnel.tool.boxes import HINT_BYTES, TABLE, did_you_mean, list_boxes, log_container, offers_of, unknown_box
from tunnel.tool.commands_boxes import Duration
from tunnel.tool.copy_progress import duration_text, size_text
from tunnel.tool.many_boxes import Ran, results_table
from tunnel.tool.remote_exec import Channel
from tunnel.tool.shapes import ANY, Shape, mismatch
from tunnel.tool.tables import age, table


def node(name: str, ready: str = "True", **labels: str) -> dict[str, Any]:
    labels = {f"longline/{label}": value for label, value in labels.items()}
    return {
        "metadata": {"name": name, "labels": {"kubernetes.io/hostname": name, **labels}},
        "status": {
            "conditions": [{"type": "Ready", "status": ready, "lastTransitionTime": "2026-01-02T03:04:05Z"}],
            "nodeInfo": {"osImage": "Debian\x1b[2J", "kubeletVersion": "0.1.0", "architecture": "arm64"},
            "addresses": [{"type": "Hostname", "address": name}, {"type": "InternalIP", "address": "10.0.0.1"}],
        },
    }


def pod(*images: str) -> dict[str, Any]:
    containers = [{"name": image.rpartition("/")[2].rpartition(":")[2], "image": image} for image in images]
    state = {"waiting": {"reason": "FileNotFound"}}
    return {
        "spec": {"containers": containers},
        "status": {"containerStatuses": [{"name": one["name"], "state": state} for one in containers]},
    }


class Answers(Api):
    """A fleet API of what a test gives it."""

    def __init__(self, *nodes: dict[str, Any], pod: dict[str, Any] | None = None) -> None:
        self.nodes = nodes
        self.pod = pod

    def get(self, path: str, shape: Shape = ANY, *, accept: str = "", limit_bytes: int = 0) -> Any:
        found = self._found(path, accept, limit_bytes)
        assert not mismatch(found, shape)
        return found

    def _found(self, path: str, accept: str, limit_bytes: int) -> Any:
        if accept == TABLE:
            assert path == "/api/v1/nodes?includeObject=None"
            if limit_bytes and len(self.nodes) * 200 > limit_bytes:
                raise ApiFailed("longer than that")
            return {"rows": [{"cells": [node["metadata"]["name"], "Ready"]} for node in self.nodes]}
        if path == "/api/v1/nodes":
            return {"items": list(self.nodes)}
        if self.pod is None:
            raise ApiFailed('pods "x" not found', 404)
        return self.pod


FLEET = Answers(node("box-2", site="lyon"), node("box-1", "Unknown", site="paris", lte="1"), node("box-3"))


@pytest.mark.parametrize(
    ("selector", "names"),
    [
        ("", ["box-1", "box-2", "box-3"]),
        ("site=lyon", ["box-2"]),
        ("longline/site=lyon", ["box-2"]),
        ("site in (lyon, paris),!lte", ["box-2"]),
        ("!site", ["box-3"]),
        ("kubernetes.io/hostname=box-1", ["box-1"]),
    ],
)
def test_labels(selector: str, names: list[str]) -> None:
    assert [box.name for box in list_boxes(FLEET, selector)] == names


def test_a_box_is_shown_without_what_moves_a_cursor() -> None:
    first = list_boxes(FLEET)[0]
    assert first.shown() == {
        "name": "box-1",
        "state": "away",
        "since": "2026-01-02T03:04:05Z",
        "labels": {"site": "paris", "lte": "1"},
        "version": "0.1.0",
        "system": "Debian?",
        "architecture": "arm64",
        "address": "10.0.0.1",
    }


def test_a_selector_that_is_none() -> None:
    with pytest.raises(ApiFailed, match="-l site=lyon,"):
        list_boxes(FLEET, "site=lyon,")


def test_close_names() -> None:
    assert did_you_mean("bx-1", ["box-1", "other"]) == ": did you mean box-1?"
    assert did_you_mean("zzz", ["box-1"]) == ""
    assert "did you mean box-" in str(unknown_box(FLEET, "box-9", ApiFailed("not found", 404)))
    for same in (ApiFailed("no", 403), ApiFailed("not found", 404)):
        assert unknown_box(FLEET, "box-1", same) is same
    many = Answers(*[node("box-1")] * (HINT_BYTES // 200 + 1))
    assert unknown_box(many, "bx-1", same) is same


def test_logs_by_name_unit_and_path() -> None:
    api = Answers(pod=pod("host", "unit:nginx.service", "file:/var/log/app.log"))
    assert [offer.state for offer in offers_of(api, "x")] == ["waiting (FileNotFound)"] * 3
    assert log_container(api, "x", "nginx.service") == "nginx.service"
    assert log_container(api, "x", "/var/log/app.log") == "app.log"
    with pytest.raises(ApiFailed, match=r"x has 2 logs, name one: nginx\.service, app\.log"):
        log_container(api, "x", "")
    with pytest.raises(ApiFailed, match=r"x has no log nginx: did you mean nginx\.service\?"):
        log_container(api, "x", "nginx")
    assert log_container(Answers(pod=pod("host", "file:/a/b")), "x", "") == "b"


def test_a_table_of_results() -> None:
    good, bad, lost = Ran("box-1", 0), Ran("box-2", 3), Ran("box-3", None, "box-3 is away")
    good.take(Channel.STDOUT, b"one\ntwo\x1b[2J\n")
    good.take(Channel.STDERR, b"three\n")
    assert results_table([good, bad, lost], 2).splitlines() == [
        "BOX     EXIT     OUTPUT",
        "box-1   0        one",
        "                 two?  (+1 lines)",
        "box-2   3        -",
        "box-3   failed   box-3 is away",
    ]


def test_what_is_kept_of_a_command_is_bounded() -> None:
    ran = Ran("box-1", 0)
    for _ in range(40):
        ran.take(Channel.STDOUT, bytes(65536))
    assert len(ran.output) == len(ran.of(Channel.STDOUT)) == 1024 * 1024
    assert ran.shown()["cut"] is True


def test_both_outputs_are_told_apart_and_kept_once() -> None:
    ran = Ran("box-1", 0)
    written = [(Channel.STDERR, b"a"), (Channel.STDOUT, b"b"), (Channel.STDOUT, b"c"), (Channel.STDERR, b"\xff")]
    for channel, data in written:
        ran.take(channel, data)
    assert (bytes(ran.output), ran.of(Channel.STDOUT), ran.of(Channel.STDERR)) == (b"abc\xff", b"bc", b"a\xff")
    assert (ran.shown()["stdout"], ran.shown()["stderr"]) == ("bc", "a\ufffd")
    tracemalloc.start()
    try:
        full = Ran("box-2", 0)
        for _ in range(20):
            full.take(Channel.STDOUT, bytes(65536))
        full_bytes = tracemalloc.get_traced_memory()[0]
        assert full_bytes < 1.5 * len(full.output)
        for _ in range(5000):
            full.take(Channel.STDERR, b"x")
            full.take(Channel.STDOUT, b"x")
        assert tracemalloc.get_traced_memory()[0] < full_bytes + 10_000  # what comes beyond the limit costs nothing
    finally:
        tracemalloc.stop()


def test_figures_for_people() -> None:
    assert [size_text(count) for count in (0, 999, 1024, 150 * 1024, 5 << 20, 3 << 40)] == [
        "0 B", "999 B", "1.0 KiB", "150 KiB", "5.0 MiB", "3072 GiB",
    ]  # fmt: skip
    assert [duration_text(s) for s in (0, 59.9, 61, 3700, 90000)] == ["0s", "59s", "1m01s", "1h01m", "1d01h"]
    now = datetime(2026, 1, 2, 3, 5, 5, tzinfo=UTC)
    assert age("2026-01-02T03:04:05Z", now) == "1m00s"
    assert [age(text, now) for text in (None, "", "rubbish", "2026-01-02")] == [""] * 4
    assert table(("A", "B"), [("x", None), ("longer", 1)]) == "A        B\nx        -\nlonger   1"
    assert [Duration().convert(text, None, None) for text in ("90s", "1h30m", "2d")] == [90, 5400, 172800]
