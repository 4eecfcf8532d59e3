"""The programs, built once by cargo into a folder that bears their versions."""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from tests.e2e.cluster.build import cache


@dataclass(frozen=True, slots=True)
class Crate:
    """A program of crates.io."""

    name: str
    version: str
    program: str
    options: tuple[str, ...] = ()


CRATES = (
    # Not --locked: its lock file names a release of `time` that newer compilers refuse. Its TLS and websockets are not
    # measured, and would ask for OpenSSL's headers.
    Crate("rathole", "0.5.0", "rathole", ("--no-default-features", "--features", "server,client,noise")),
    Crate("bore-cli", "0.6.0", "bore", ("--locked",)),
)


def programs() -> dict[str, Path]:
    """Those that are there or can be built, by name; a message for each other."""
    folder = cache() / ("bench-peers-" + "-".join(f"{crate.program}-{crate.version}" for crate in CRATES))
    found = {}
    for crate in CRATES:
        path = folder / "bin" / crate.program
        if path.exists() or _build(crate, folder):
            found[crate.program] = path
    return found


def _build(crate: Crate, folder: Path) -> bool:
    cargo = shutil.which("cargo", path=f"{os.environ.get('PATH', '')}:{Path.home() / '.cargo' / 'bin'}")
    if cargo is None:
        print(f"{crate.program} is left out: it is built with cargo, and there is none (https://rustup.rs)")
        return False
    print(f"building {crate.name} {crate.version} (once, some minutes)", flush=True)
    words = [cargo, "install", "--quiet", *crate.options, "--root", str(folder), f"{crate.name}@{crate.version}"]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode:
        reason = next((line for line in done.stderr.splitlines() if line.startswith("error")), "no reason given")
        print(f"{crate.program} is left out: cargo could not build it: {reason}")
    return not done.returncode
