"""Container images without a registry: layers around Debian's static busybox, as an archive that `ctr` imports."""

from __future__ import annotations

import hashlib
import io
import json
import platform
import shutil
import subprocess
import tarfile
from collections.abc import Sequence
from pathlib import Path

BOX = "longline.test/box:1"
"""A shell and all of busybox's commands: sleep, tar, httpd, nc, wget ..."""
BACKEND = "longline.test/backend:1"
"""The program of `backend/`, which runs when no other command is given."""
PAUSE = "longline.test/pause:1"
"""What holds a pod's namespaces."""
FOREVER = ["sleep", "2147483647"]
FILES = {
    "etc/passwd": "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/sh\n",
    "etc/group": "root:x:0:\nnogroup:x:65534:\n",
}
FOLDERS = {"bin": 0o755, "etc": 0o755, "root": 0o700, "tmp": 0o1777, "var": 0o755}
Image = tuple[str, list[bytes], list[str]]
"""Name, layers as tar archives, and what runs."""
_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64", "armv7l": "arm"}


def write_archive(path: Path, backend: Path | None = None) -> None:
    """Write `BOX` and `PAUSE`; and `BACKEND`, if there is a program for it."""
    box = box_layer()
    images: list[Image] = [(BOX, [box], FOREVER), (PAUSE, [box], FOREVER)]
    if backend is not None:
        images.append((BACKEND, [box, _program_layer(backend)], [f"/bin/{backend.name}"]))
    write_images(path, images)


def write_images(path: Path, images: Sequence[Image]) -> None:
    """Write images as `docker save` would."""
    with tarfile.open(path, "w") as archive:
        manifest = []
        for name, layers, command in images:
            config = json.dumps(_config(layers, name, command)).encode()
            files = [f"{_sha256(config)}.json", *(f"{_sha256(layer)}.tar" for layer in layers)]
            for file, content in zip(files, [config, *layers], strict=True):
                if file not in archive.getnames():
                    add_file(archive, file, content)
            manifest.append({"Config": files[0], "RepoTags": [name], "Layers": files[1:]})
        add_file(archive, "manifest.json", json.dumps(manifest).encode())


def _config(layers: list[bytes], name: str, command: list[str]) -> dict[str, object]:
    return {
        "architecture": _ARCHITECTURES.get(platform.machine(), platform.machine()),
        "os": "linux",
        "config": {"Cmd": command, "Env": ["PATH=/bin"], "WorkingDir": "/", "Labels": {"name": name}},
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{_sha256(layer)}" for layer in layers]},
    }


def box_layer() -> bytes:
    """A file system with a shell, and users root and nobody."""
    found = shutil.which("busybox")
    assert found is not None
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as layer:
        for name, mode in FOLDERS.items():
            folder = tarfile.TarInfo(name)
            folder.type, folder.mode = tarfile.DIRTYPE, mode
            layer.addfile(folder)
        for name, text in FILES.items():
            add_file(layer, name, text.encode())
        add_file(layer, "bin/busybox", Path(found).read_bytes(), mode=0o755)
        for applet in subprocess.run([found, "--list"], capture_output=True, text=True, check=True).stdout.split():
            if applet != "busybox":
                link = tarfile.TarInfo(f"bin/{applet}")
                link.type, link.linkname = tarfile.SYMTYPE, "busybox"
                layer.addfile(link)
    return content.getvalue()


def _program_layer(program: Path) -> bytes:
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as layer:
        add_file(layer, f"bin/{program.name}", program.read_bytes(), mode=0o755)
    return content.getvalue()


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def add_file(archive: tarfile.TarFile, name: str, content: bytes, *, mode: int = 0o644) -> None:
    """Put a file into a layer."""
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = len(content), mode
    archive.addfile(entry, io.BytesIO(content))
