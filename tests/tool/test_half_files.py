"""tunnel.tool.half_files: what a copy that failed leaves behind is nothing."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tunnel.tool.half_files import CopyStopped, HalfFiles


def test_who_gives_up_takes_away_what_others_have_begun(tmp_path: Path) -> None:
    half = HalfFiles()
    begun = [half.begin(tmp_path / name) for name in ("one", "two")]
    half.give_up()
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(CopyStopped):
        half.begin(tmp_path / "three")
    for name, descriptor in zip(("one", "two"), begun, strict=True):
        os.close(descriptor)
        half.end(tmp_path / name)
    assert list(tmp_path.iterdir()) == []


def test_one_that_got_its_name_stays(tmp_path: Path) -> None:
    half = HalfFiles()
    os.close(half.begin(tmp_path / "part"))
    assert (tmp_path / "part").stat().st_mode & 0o777 == 0o600
    (tmp_path / "part").rename(tmp_path / "whole")
    half.end(tmp_path / "part")
    half.give_up()
    assert [path.name for path in tmp_path.iterdir()] == ["whole"]


def test_nothing_is_written_through_a_link(tmp_path: Path) -> None:
    (tmp_path / "part").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(FileExistsError):
        HalfFiles().begin(tmp_path / "part")
    assert not (tmp_path / "elsewhere").exists()
