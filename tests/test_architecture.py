"""The table of docs/architecture.md is that of the import contracts, and that of the folders."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from tests.support.pages import TOP

PAGE = TOP / "docs" / "architecture.md"
CONTRACTS = tomllib.loads((TOP / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
LAYERS = [contract for contract in CONTRACTS if contract["type"] == "layers"]
ROWS = re.findall(r"^\| \**`([a-z_/]+)`\** \|", PAGE.read_text(), re.MULTILINE)
GROUPS = ["cloud_server", "edge_agent", "tunnel/tool", "tunnel/kubeapi", "tunnel/aio", "tunnel/core", "protos"]


def rows_of(container: str) -> list[str]:
    """The rooms of a package, from top to bottom."""
    return [row.removeprefix(f"{container}/") for row in ROWS if row.rpartition("/")[0] == container]


def test_there_is_one_table_and_no_row_twice() -> None:
    assert len(ROWS) == len(set(ROWS))
    assert [row for row in ROWS if row in GROUPS] == GROUPS


@pytest.mark.parametrize("contract", LAYERS, ids=lambda contract: str(contract.get("containers", "all")))
def test_rows_stand_in_the_order_of_the_contracts(contract: dict[str, list[str]]) -> None:
    """Those of one layer, which import neither each other, in any order; modules beside the rooms need no row."""
    layers = [set(layer.replace(".", "/").split(" | ")) for layer in contract["layers"]]
    rows = rows_of(contract["containers"][0].replace(".", "/")) if "containers" in contract else GROUPS
    wanted = [room for room in rows if any(room in layer for layer in layers)]
    places = [next(place for place, layer in enumerate(layers) if room in layer) for room in wanted]
    assert places == sorted(places)
    top = TOP / contract["containers"][0].replace(".", "/") if "containers" in contract else TOP
    named = set().union(*layers)
    assert set(wanted) == {one for one in named if one in rows or (top / one).is_dir()}


@pytest.mark.parametrize("container", ["cloud_server", "edge_agent", "tunnel/aio", "tunnel/core"])
def test_every_room_has_a_row(container: str) -> None:
    rooms = {path.parent.name for path in (TOP / container).glob("*/__init__.py")}
    assert rooms - set(rows_of(container)) == set()
    there = {row for row in rows_of(container) if (TOP / container / row).is_dir() or _is_module(container, row)}
    assert set(rows_of(container)) == there


def _is_module(container: str, name: str) -> bool:
    return Path(TOP / container / f"{name}.py").exists()
