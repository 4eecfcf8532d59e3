"""The page of figures that `make bench` writes: ratios of one round, tables between markers, plots that are XML."""

from __future__ import annotations

import json
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from benches import page, results
from benches.results import Result
from benches.tables import Spread, ratio

ON = {
    "cpu": "Testium", "cpus": 2, "memory_gb": 8.0, "kernel": "6.1.0-1", "python": "3.11.7", "grpc": "1.80",
    "commit": "abc1234", "changed": False,
}  # fmt: skip
AT = {"at": "2026-01-02T03:04:05+00:00", "load_average": [0.1, 0.2, 0.3]}
SAMPLES = {
    "echo, ms | longline": [2.0, 8.0, 3.0],
    "echo, ms | direct": [1.0, 2.0, 3.0],
    "opens, 1/s | longline": [1500.0],
    "start, s": [0.25, 0.5, 1.0],
    "cost, us | 1 agent": [5.0],
}


@pytest.fixture
def kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A page and results of this test."""
    monkeypatch.setattr(results, "FOLDER", tmp_path / "results")
    monkeypatch.setattr(page, "PAGE", tmp_path / "page.md")
    monkeypatch.setattr(page, "PLOTS", tmp_path / "plots")
    results.keep("fast", Result("fast link", ON, AT, AT, SAMPLES), quick=False)
    return tmp_path


def test_ratios_are_of_samples_of_one_round() -> None:
    assert ratio(SAMPLES, "echo, ms", "direct") == Spread(1.0, 2.0, 4.0)
    assert ratio(SAMPLES, "opens, 1/s", "direct") is None


def test_the_page_keeps_what_is_written_by_hand(kept: Path) -> None:
    (kept / "page.md").write_text("before\n<!-- figures: fast -->\nold\n<!-- end -->\nafter\n")
    page.write()
    text = (kept / "page.md").read_text()
    assert text.startswith("before\n<!-- figures: fast -->\n")
    assert text.endswith("<!-- end -->\nafter\n")
    assert "old" not in text
    assert "commit abc1234; Testium, 2 cores" in text
    assert "| start, s | 0.25 | 0.5 | 1 |" in text
    assert "| echo, ms | **3** (2 to 8) | **2** (1 to 3) |" in text
    assert "| opens, 1/s | 1,500 |  |" in text
    assert "| echo, ms | **2** (1 to 4) |" in text
    assert "| cost, us | 5 |" in text
    page.write()
    assert (kept / "page.md").read_text() == text


def test_a_group_that_was_not_measured_says_so(kept: Path) -> None:
    (kept / "page.md").write_text("<!-- figures: scale -->\n<!-- end -->\n")
    page.write()
    assert "Not measured yet." in (kept / "page.md").read_text()


def test_a_quick_run_leaves_the_kept_figures_alone(kept: Path) -> None:
    before = results.path(quick=False).read_text()
    results.keep("fast", Result("fast link", ON, AT, AT, {"echo, ms": [9.0]}), quick=True)
    assert results.path(quick=False).read_text() == before
    assert results.load(quick=True)["fast"].samples == {"echo, ms": [9.0]}


def test_plots_are_svg_with_every_subject(kept: Path) -> None:
    (kept / "page.md").write_text("")
    series = {"bin_s": 0.1, "rate_mbit": [1.0, 9.5], "rtt_ms": [[0.0, 50.0], [0.2, 60.5]], "links": [[0.0, 10, 0.05]]}
    (kept / "results" / "link-changes.json").write_text(json.dumps({"a > b": series}))
    page.write()
    fast, changes = (ET.parse(kept / "plots" / f"{name}.svg") for name in ("fast", "link-changes"))
    words = [element.text for element in fast.iter("{http://www.w3.org/2000/svg}text")]
    assert {"longline", "direct", "1 agent", "1,500"} <= set(words)
    titles = [element.text for element in changes.iter("{http://www.w3.org/2000/svg}text")]
    assert "a > b: a copy, Mbit/s" in titles


def test_the_trade_off_is_a_curve_over_the_rate(kept: Path) -> None:
    (kept / "page.md").write_text("")
    samples = {
        f"{figure} | {size}": [value]
        for figure, values in {
            "download, 1 connection, MB/s": (400.0, 800.0),
            "echo beside 4 downloads, p50, ms": (1.0, 3.0),
            "echo beside 4 downloads, p99, ms": (4.0, 9.0),
        }.items()
        for size, value in zip(("64 KiB", "512 KiB (default)"), values, strict=True)
    }
    results.keep("tradeoff", Result("rate against echo", ON, AT, AT, samples), quick=False)
    page.write()
    curve = ET.parse(kept / "plots" / "tradeoff.svg")
    words = [element.text for element in curve.iter("{http://www.w3.org/2000/svg}text")]
    assert words.count("512 KiB (default)") == 2
    assert "echo beside 4 downloads, p99, ms, by packet size" in words
    assert "download, 1 connection, MB/s" in words


def test_every_plot_is_on_the_page() -> None:
    text = page.PAGE.read_text()
    plots = sorted(path.name for path in page.PLOTS.iterdir())
    assert plots
    assert [name for name in plots if f"](bench/{name})" not in text] == []
