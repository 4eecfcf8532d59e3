"""Builds what is written in Go, and keeps it outside the checkout.

That is `kubenode/`, the one program that is all of Kubernetes, `coredns/`, its DNS, `backend/`, which a pod of the
tests runs, `informers/`, which follows the API as a component of a node does, `upstream/`, which is Kubernetes' own
tests of it, and `k9s/` and `stern/`, which people use. Each is kept under
`${XDG_CACHE_HOME:-~/.cache}/longline/NAME-HASH/`. The hash is of all that the result depends on, so a kept one is
either right or not there.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

SOURCES = Path(__file__).parent
NAME = "kubenode"
PROGRAMS = (
    "etcd", "kube-apiserver", "kube-controller-manager", "kube-proxy", "kube-scheduler", "kubectl", "kubelet",
)  # fmt: skip
"""What `NAME` is, by what name it is started."""
ENVIRONMENT = {"CGO_ENABLED": "0", "GOFLAGS": "-mod=readonly -trimpath -buildvcs=false"}
LOG_LINES = 15


class BuildFailed(Exception):
    """It cannot be built here; the text says what to do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """A Go program."""

    name: str
    """Of its folder, and of the program."""
    files: tuple[str, ...]
    """All that is in the folder."""
    linker_flags: str = "-s -w"
    links: tuple[str, ...] = ()
    """Other names for the program."""
    notice: str
    """What people are told before it is built."""

    @property
    def folder(self) -> Path:
        return SOURCES / self.name


def kubernetes_version() -> str:
    """The pinned version, such as `v1.34.4`."""
    return _mod(r"k8s\.io/kubernetes (v\S+)")


def why_not() -> str:
    """Why it is neither there nor can be built, for people; an empty string when it can be had."""
    wanted = max((_mod(r"go (\d\S+)", path.parent.name) for path in SOURCES.glob("*/go.mod")), key=_numbers)
    go = _go_version()
    what_for = f"{wanted} or newer builds Kubernetes and its clients for these tests (https://go.dev/doc/install)"
    if go is None:
        return f"Go is not installed: {what_for}"
    if _numbers(go) < _numbers(wanted):
        return f"Go {go} is too old: {what_for}"
    return ""


def programs(say: Callable[[str], None] | None = None) -> Path:
    """The folder with a file for each of `PROGRAMS`; built when it is not there yet, which takes minutes.

    Args:
        say: Told what is done and how long it takes; None: standard error.

    Raises:
        BuildFailed: Go is missing or too old, or the build failed.
    """
    return _built(_kubenode(), say or _say)


def backend(say: Callable[[str], None] | None = None) -> Path:
    """The program of `backend/`; as `programs`, in seconds."""
    name = "backend"
    source = Source(name=name, files=("go.mod", "main.go"), notice="building a webhook and an API for pods")
    return _built(source, say or _say) / name


def informers(say: Callable[[str], None] | None = None) -> Path:
    """The program of `informers/`; as `programs`."""
    return _module("informers", "building informers of client-go: once, about a minute on two cores", say)


def upstream(say: Callable[[str], None] | None = None) -> Path:
    """The program of `upstream/`; as `programs`. `make e2e` does without it."""
    return _module("upstream", "building the tests of the Kubernetes API: once, about 5 minutes on two cores", say)


def coredns(say: Callable[[str], None] | None = None) -> Path:
    """The pinned CoreDNS, with the plugins that a cluster needs; as `programs`."""
    return _module("coredns", "building CoreDNS: once, about 2 minutes on two cores", say)


def k9s(say: Callable[[str], None] | None = None) -> Path:
    """The pinned k9s; as `programs`."""
    return _module("k9s", "building k9s: once, about 5 minutes on two cores", say)


def stern(say: Callable[[str], None] | None = None) -> Path:
    """The pinned stern, a viewer of logs; as `programs`."""
    return _module("stern", "building stern: once, about 5 minutes on two cores", say)


def cache() -> Path:
    """Where it is kept."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "longline"


# Internal


def _module(name: str, notice: str, say: Callable[[str], None] | None) -> Path:
    """The program of a module of one file, which has its own folder here."""
    return _built(Source(name=name, files=("go.mod", "go.sum", "main.go"), notice=notice), say or _say) / name


def _kubenode() -> Source:
    version = kubernetes_version()
    major, minor = _numbers(version)[:2]
    facts = {"gitVersion": version, "gitMajor": major, "gitMinor": minor}
    stamps = (f"-X k8s.io/component-base/version.{name}={value}" for name, value in facts.items())
    return Source(
        name=NAME, files=("go.mod", "go.sum", "main.go"), linker_flags=" ".join(["-s", "-w", *stamps]), links=PROGRAMS,
        notice=f"building Kubernetes {version}: once, about 7 minutes on two cores",
    )  # fmt: skip


def _built(source: Source, say: Callable[[str], None]) -> Path:
    """The folder with the program."""
    if reason := why_not():
        raise BuildFailed(reason)
    folder = cache() / f"{source.name}-{_hash(source)}"
    if folder.is_dir():
        return folder
    cache().mkdir(parents=True, exist_ok=True)
    with _locked(source, say):
        if not folder.is_dir():  # else another run built it while this one waited
            _build(source, folder, say)
    return folder


def _build(source: Source, folder: Path, say: Callable[[str], None]) -> None:
    for abandoned in cache().glob(f"{source.name}-*.part"):
        shutil.rmtree(abandoned)
    say(f"{source.notice}, into {folder}")
    start = time.monotonic()
    part = Path(tempfile.mkdtemp(prefix=f"{source.name}-", suffix=".part", dir=cache()))
    try:
        argv = ["nice", "go", "build", f"-ldflags={source.linker_flags}", "-o", str(part / source.name), "."]
        done = subprocess.run(argv, cwd=source.folder, env=_environment(), capture_output=True, text=True, check=False)
        if done.returncode:
            end = "\n".join(f"  {line}" for line in done.stderr.splitlines()[-LOG_LINES:])
            raise BuildFailed(f"go build failed in {source.folder} (it fetches modules from {_proxy()}):\n{end}")
        for link in source.links:
            (part / link).symlink_to(source.name)
        part.chmod(0o755)
        part.rename(folder)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    say(f"built in {time.monotonic() - start:.0f} s")


@contextmanager
def _locked(source: Source, say: Callable[[str], None]) -> Iterator[None]:
    with (cache() / f"{source.name}.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("another run builds it: waiting for that")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _hash(source: Source) -> str:
    parts = hashlib.sha256()
    for name in source.files:
        parts.update((source.folder / name).read_bytes())
    parts.update(repr((ENVIRONMENT, source.linker_flags, _go_version(), source.links)).encode())
    return parts.hexdigest()[:16]


def _environment() -> Mapping[str, str]:
    return {**os.environ, **ENVIRONMENT}


def _proxy() -> str:
    return subprocess.run(["go", "env", "GOPROXY"], capture_output=True, text=True, check=False).stdout.strip()


def _go_version() -> str | None:
    if shutil.which("go") is None:
        return None
    shown = subprocess.run(
        ["go", "env", "GOVERSION"], cwd=SOURCES / NAME, capture_output=True, text=True, check=False
    ).stdout
    return shown.strip().removeprefix("go") or None


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", version))


def _mod(pattern: str, of: str = NAME) -> str:
    found = re.search(rf"^\s*{pattern}$", (SOURCES / of / "go.mod").read_text(), re.MULTILINE)
    assert found is not None, f"{pattern} is not in go.mod"
    return found[1]


def _say(text: str) -> None:
    print(f"==> {text}", file=sys.stderr, flush=True)
