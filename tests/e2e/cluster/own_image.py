"""The image of `deploy/Containerfile` without a registry: this machine's Python and what the lock file names."""

from __future__ import annotations

import importlib.metadata
import io
import re
import subprocess
import sys
import sysconfig
import tarfile
from collections.abc import Iterable, Iterator
from pathlib import Path

from tests.e2e.cluster import images
from tunnel.aio.process.version import VERSION

NAME = f"docker.io/library/longline:{VERSION}"
"""What the manifests' `longline:VERSION` is for containerd."""
TOP = Path(__file__).parents[3]
PACKAGES = ("tunnel", "protos", "edge_agent", "cloud_server")
HOME = Path("/opt/longline")
PYTHON = HOME / "python"
NOT_NEEDED = {"__pycache__", "test", "idlelib", "tkinter", "ensurepip", "lib2to3", "pydoc_data", "site-packages"}

Files = dict[Path, Path]
"""Where a file is in the image, and where it is here."""


def write_archive(path: Path) -> None:
    """Write the image as `docker save` would."""
    files = _python() | _locked() | _ours()
    files |= _libraries([source for source in files.values() if source == _interpreter() or ".so" in source.suffixes])
    images.write_images(path, [(NAME, [images.box_layer(), _layer(files)], ["/bin/sh"])])


def _interpreter() -> Path:
    return Path(sys.executable).resolve()


def _python() -> Files:
    # Not where it is here: that may be somebody's home, which others cannot enter.
    library = Path(sysconfig.get_path("stdlib"))
    modules = {PYTHON / "lib" / library.name / path.relative_to(library): path for path in _tree(library)}
    return {PYTHON / "bin" / "python3": _interpreter(), **modules}


def _locked() -> Files:
    lock = (TOP / "requirements.lock").read_text()
    files: Files = {}
    for name in re.findall(r"^([\w.-]+)==", lock, re.MULTILINE):
        try:
            recorded = importlib.metadata.distribution(name).files or []
        except importlib.metadata.PackageNotFoundError:
            continue  # not for this Python or system
        for file in recorded:
            source = Path(str(file.locate()))
            if ".." not in file.parts and "__pycache__" not in file.parts and source.is_file():
                files[HOME / "site" / file] = source
    return files


def _ours() -> Files:
    return {HOME / "site" / path.relative_to(TOP): path for name in PACKAGES for path in _tree(TOP / name)}


def _tree(top: Path) -> Iterator[Path]:
    for path in top.rglob("*"):
        if path.is_file() and not NOT_NEEDED.intersection(path.relative_to(top).parts):
            yield path


def _libraries(programs: Iterable[Path]) -> Files:
    files: Files = {}
    for program in programs:
        done = subprocess.run(["ldd", program], capture_output=True, text=True, check=False)
        for name in re.findall(r"(?:=> |^\s+)(/\S+) \(0x", done.stdout, re.MULTILINE):
            path = Path(name)
            # The loader is looked for where programs say it is.
            files[path if path.name.startswith("ld-") else PYTHON / "lib" / path.name] = path.resolve()
    return files


def _layer(files: Files) -> bytes:
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as layer:
        for path, source in files.items():
            images.add_file(layer, str(path).lstrip("/"), source.read_bytes(), mode=source.stat().st_mode | 0o444)
        for command, module in (("cloud-server", "cloud_server"), ("edge-agent", "edge_agent")):
            start = f"import sys; sys.argv[0] = '{command}'; from {module}.entry import main; main()"
            found = f"PYTHONHOME={PYTHON} PYTHONPATH={HOME}/site LD_LIBRARY_PATH={PYTHON}/lib"
            script = f'#!/bin/sh\n{found} exec {PYTHON}/bin/python3 -c "{start}" "$@"\n'
            images.add_file(layer, f"opt/longline/bin/{command}", script.encode(), mode=0o755)
    return content.getvalue()
