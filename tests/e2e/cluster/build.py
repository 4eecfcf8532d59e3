"""Builds `kubenode/`, the one program that is all of Kubernetes, and keeps it outside the checkout.

It is kept under `${XDG_CACHE_HOME:-~/.cache}/longline/kubenode-HASH/`, with a link for each program's name. The hash is
of all that the result depends on, so a kept one is either right or not there.
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
from pathlib import Path

SOURCE = Path(__file__).parent / "kubenode"
FILES = ("go.mod", "go.sum", "main.go")
NAME = "kubenode"
PROGRAMS = (
    "etcd", "kube-apiserver", "kube-controller-manager", "kube-proxy", "kube-scheduler", "kubectl", "kubelet",
)  # fmt: skip
ENVIRONMENT = {"CGO_ENABLED": "0", "GOFLAGS": "-mod=readonly -trimpath -buildvcs=false"}
LOG_LINES = 15


class BuildFailed(Exception):
    """It cannot be built here; the text says what to do."""


def kubernetes_version() -> str:
    """The pinned version, such as `v1.34.4`."""
    return _mod(r"k8s\.io/kubernetes (v\S+)")


def why_not() -> str:
    """Why it is neither there nor can be built, for people; an empty string when it can be had."""
    wanted = _mod(r"go (\d\S+)")
    go = _go_version()
    if go is None:
        return f"Go is not installed: {wanted} or newer builds Kubernetes for these tests (https://go.dev/doc/install)"
    if _numbers(go) < _numbers(wanted):
        return f"Go {go} is too old: {wanted} or newer builds Kubernetes for these tests (https://go.dev/doc/install)"
    return ""


def programs(say: Callable[[str], None] | None = None) -> Path:
    """The folder with a file for each of `PROGRAMS`; built when it is not there yet, which takes minutes.

    Args:
        say: Told what is done and how long it takes; None: standard error.

    Raises:
        BuildFailed: Go is missing or too old, or the build failed.
    """
    if reason := why_not():
        raise BuildFailed(reason)
    folder = cache() / f"{NAME}-{_hash()}"
    if folder.is_dir():
        return folder
    say = say or _say
    cache().mkdir(parents=True, exist_ok=True)
    with _locked(say):
        if not folder.is_dir():  # else another run built it while this one waited
            _build(folder, say)
    return folder


def cache() -> Path:
    """Where it is kept."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "longline"


# Internal


def _build(folder: Path, say: Callable[[str], None]) -> None:
    for abandoned in cache().glob(f"{NAME}-*.part"):
        shutil.rmtree(abandoned)
    say(f"building Kubernetes {kubernetes_version()} into {folder}: once, about 7 minutes on two cores")
    start = time.monotonic()
    part = Path(tempfile.mkdtemp(prefix=f"{NAME}-", suffix=".part", dir=cache()))
    try:
        argv = ["nice", "go", "build", f"-ldflags={_linker_flags()}", "-o", str(part / NAME), "."]
        done = subprocess.run(argv, cwd=SOURCE, env=_environment(), capture_output=True, text=True, check=False)
        if done.returncode:
            end = "\n".join(f"  {line}" for line in done.stderr.splitlines()[-LOG_LINES:])
            raise BuildFailed(f"go build failed in {SOURCE} (it fetches modules from {_proxy()}):\n{end}")
        for program in PROGRAMS:
            (part / program).symlink_to(NAME)
        part.chmod(0o755)
        part.rename(folder)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    say(f"built in {time.monotonic() - start:.0f} s")


@contextmanager
def _locked(say: Callable[[str], None]) -> Iterator[None]:
    with (cache() / f"{NAME}.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("another run builds Kubernetes: waiting for it")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _hash() -> str:
    parts = hashlib.sha256()
    for name in FILES:
        parts.update((SOURCE / name).read_bytes())
    parts.update(repr((ENVIRONMENT, _linker_flags(), _go_version(), PROGRAMS)).encode())
    return parts.hexdigest()[:16]


def _linker_flags() -> str:
    version = kubernetes_version()
    major, minor = _numbers(version)[:2]
    facts = {"gitVersion": version, "gitMajor": major, "gitMinor": minor}
    return " ".join(
        ["-s", "-w", *(f"-X k8s.io/component-base/version.{name}={value}" for name, value in facts.items())]
    )


def _environment() -> Mapping[str, str]:
    return {**os.environ, **ENVIRONMENT}


def _proxy() -> str:
    return subprocess.run(["go", "env", "GOPROXY"], capture_output=True, text=True, check=False).stdout.strip()


def _go_version() -> str | None:
    if shutil.which("go") is None:
        return None
    shown = subprocess.run(["go", "env", "GOVERSION"], cwd=SOURCE, capture_output=True, text=True, check=False).stdout
    return shown.strip().removeprefix("go") or None


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", version))


def _mod(pattern: str) -> str:
    found = re.search(rf"^\s*{pattern}$", (SOURCE / "go.mod").read_text(), re.MULTILINE)
    assert found is not None, f"{pattern} is not in go.mod"
    return found[1]


def _say(text: str) -> None:
    print(f"==> {text}", file=sys.stderr, flush=True)
