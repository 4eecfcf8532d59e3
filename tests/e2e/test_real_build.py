"""Kubernetes is built once for all runs, and half of one is never taken for one. With a Go that only says it is one."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from tests.e2e.cluster import build

GO = """#!/bin/sh
case "$1 $2" in
"env GOVERSION") echo {version} ;;
"env GOPROXY") echo https://proxy.example ;;
build*)
    echo built >>{folder}/calls
    sleep 0.3
    [ -e {folder}/broken ] && echo "cannot find module" >&2 && exit 1
    while [ "$1" != -o ]; do shift; done
    echo program >"$2" ;;
esac
"""


class Builder:
    """A Go in the PATH, and an empty cache."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.said: list[str] = []
        self.use_go("go1.99.0")

    def use_go(self, version: str) -> None:
        go = self.folder / "bin" / "go"
        go.parent.mkdir(exist_ok=True)
        go.write_text(GO.format(version=version, folder=self.folder))
        go.chmod(0o755)

    def programs(self) -> Path:
        return build.programs(self.said.append)

    @property
    def builds(self) -> int:
        calls = self.folder / "calls"
        return len(calls.read_text().splitlines()) if calls.exists() else 0


@pytest.fixture
def builder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Builder:
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return Builder(tmp_path)


def test_it_is_built_once_and_says_so(builder: Builder) -> None:
    folder = builder.programs()
    assert sorted(path.name for path in folder.iterdir()) == sorted([build.NAME, *build.PROGRAMS])
    assert (folder / "kubelet").read_text() == "program\n"
    assert [text.split()[0] for text in builder.said] == ["building", "built"]
    assert builder.programs() == folder
    assert builder.builds == 1


def test_two_runs_at_once_build_once(builder: Builder) -> None:
    runs = [threading.Thread(target=builder.programs) for _ in range(3)]
    for run in runs:
        run.start()
    for run in runs:
        run.join()
    assert builder.builds == 1
    assert sum("waiting" in text for text in builder.said) == 2


def test_another_go_builds_anew(builder: Builder) -> None:
    first = builder.programs()
    builder.use_go("go1.99.1")
    assert builder.programs() != first


def test_a_build_that_fails_leaves_nothing_and_is_tried_again(builder: Builder) -> None:
    (builder.folder / "broken").touch()
    with pytest.raises(build.BuildFailed, match=r"proxy\.example(.|\n)*cannot find module"):
        builder.programs()
    assert [path.name for path in build.cache().iterdir()] == ["kubenode.lock"]
    (builder.folder / "broken").unlink()
    assert builder.programs().is_dir()


def test_what_a_killed_run_left_is_removed(builder: Builder) -> None:
    part = build.cache() / "kubenode-x.part"
    part.mkdir(parents=True)
    builder.programs()
    assert not part.exists()


def test_what_pods_run_is_built_by_itself(builder: Builder) -> None:
    assert build.backend(builder.said.append).read_text() == "program\n"
    assert builder.builds == 1
    builder.programs()
    assert build.backend(builder.said.append).name == "backend"
    assert builder.builds == 2


def test_a_go_that_is_too_old(builder: Builder) -> None:
    builder.use_go("go1.19.8")
    with pytest.raises(build.BuildFailed, match=r"Go 1\.19\.8 is too old: 1\.25\.0 or newer"):
        builder.programs()
