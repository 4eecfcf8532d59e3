"""The build that was there before the wire of this one: made once from git's history, with its own locked packages."""

from __future__ import annotations

import fcntl
import re
import shutil
import subprocess
import sys
from pathlib import Path

from tests.e2e.kubectls import CACHE
from tests.support.processes import BIN

TOP = Path(__file__).parent.parent.parent
COMMIT = "76d9104"
"""The last build whose OPEN says in words who asks, and whose handshake lists no features (PROTO 3.8 and 5.9)."""
BUILD_S = 600.0


def missing_history() -> str:
    """Returns why the old build cannot be made from this copy of the sources; an empty text when it can."""
    command = ["git", "-C", str(TOP), "cat-file", "-e", f"{COMMIT}^{{commit}}"]
    asked = subprocess.run(command, capture_output=True, check=False)
    return "" if not asked.returncode else f"commit {COMMIT} is not in this copy of git's history"


def old_program(name: str) -> str:
    """Returns the path of one of its commands, such as `edge-agent`.

    Raises:
        RuntimeError: it cannot be built; the text says why.
    """
    home = CACHE / f"old-{COMMIT}"
    CACHE.mkdir(parents=True, exist_ok=True)
    # Two runs at a time, in two working copies, share the cache. A virtual environment cannot be moved to its place
    # when it is ready, so that it is made where it stays, behind a lock.
    with home.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (home / "ready").exists():
            shutil.rmtree(home, ignore_errors=True)
            _build(home)
            (home / "ready").touch()
    return str(home / "venv" / "bin" / name)


def _build(home: Path) -> None:
    source, venv = home / "source", home / "venv"
    source.mkdir(parents=True)
    archive = home / "source.tar"
    _run("git", "-C", str(TOP), "archive", "--output", str(archive), COMMIT)
    _run("tar", "-x", "-C", str(source), "-f", str(archive))
    archive.unlink()
    _run(str(BIN / "uv"), "venv", "--quiet", "--python", sys.executable, str(venv))
    install = (str(BIN / "uv"), "pip", "install", "--quiet", "--python", str(venv / "bin" / "python"))
    setuptools = re.search(r"^setuptools==(.+\\\n)+.+\n", (source / "requirements-dev.lock").read_text(), re.MULTILINE)
    assert setuptools is not None, "its lock file has no setuptools"
    (home / "build.lock").write_text(setuptools[0])
    for lock in (home / "build.lock", source / "requirements.lock"):
        _run(*install, "--require-hashes", "--requirement", str(lock))
    _run(*install, "--no-deps", "--no-build-isolation", str(source))


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, timeout=BUILD_S, check=False)
    if done.returncode:
        raise RuntimeError(
            f"the old build {COMMIT} cannot be made (it needs git's history and the package registry): "
            f"{' '.join(command[:4])}: {done.stderr.strip()}"
        )
