"""Copies files and folders between this machine and a box: `longline cp`.

A copy is made beside its final name and renamed when it is whole and checked, on both sides: a link that breaks, or a
full disk, leaves what was there before. Nothing is resumed: a session of the tunnel outlives a cut link, and a
half file that somebody else may have changed meanwhile is no base to go on from.

Links inside folders are left out, as kubectl cp does. Names that a box lists are checked before anything is made of
them: none leads out of the destination, neither by itself nor through a link that stands there.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import posixpath
import secrets
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from tunnel.core.wire.faults import COPY_FAILED, FaultError
from tunnel.tool.api import ApiFailed
from tunnel.tool.at_once import run_at_once
from tunnel.tool.copy_progress import CopyProgress
from tunnel.tool.remote_exec import SEND_BYTES
from tunnel.tool.remote_files import Kind, RemoteFile, RemoteFiles

AT_ONCE = 8
"""The files of a folder that are copied at the same time: each takes some round trips, however small it is."""
_FORBIDDEN_ON_WINDOWS = set('<>:"|?*\\')


class CopyFailed(FaultError):
    """Something was not copied; the text is for the person at the terminal."""

    default_fault = COPY_FAILED


@dataclass(frozen=True, slots=True)
class Result:
    """The outcome of a copy."""

    files: int
    bytes: int
    skipped: Sequence[str]
    """The paths that were left out: links, devices and the like inside folders."""


def upload(remote: RemoteFiles, source: Path, destination: str, progress: CopyProgress) -> Result:
    """Copies a file or a folder to a box, into a folder if the destination is one, as cp does.

    Raises:
        CopyFailed, ApiFailed: not everything was copied.
    """
    destination = _not_an_option(destination or ".")
    if not source.exists():
        raise CopyFailed(f"{source} is not there")
    there = remote.probe(destination)
    if there.kind is Kind.FOLDER:
        destination = posixpath.join(destination, source.resolve().name)
        there = remote.probe(destination)
    elif destination.endswith("/"):
        raise CopyFailed(f"{remote.box}:{destination} is no folder")
    if source.is_dir():
        if there.kind not in (Kind.FOLDER, Kind.NOTHING):
            raise CopyFailed(f"{remote.box}:{destination} is there and is no folder")
        return _upload_folder(remote, source, destination, progress)
    if there.kind is Kind.FOLDER:
        raise CopyFailed(f"{remote.box}:{destination} is a folder, and {source} is none")
    if not source.is_file():
        raise CopyFailed(f"{source} is neither a file nor a folder")
    progress.expect(source.stat().st_size)
    return Result(1, _upload_file(remote, source, destination, progress), ())


def download(remote: RemoteFiles, source: str, destination: Path, progress: CopyProgress) -> Result:
    """Copies a file or a folder of a box here, into a folder if the destination is one, as cp does.

    Raises:
        CopyFailed, ApiFailed: not everything was copied.
    """
    found = remote.probe(source or ".")
    name = posixpath.basename(posixpath.normpath(source or remote.home()))
    if destination.is_dir():
        destination /= _local_name(name if name not in ("", ".", "..") else remote.box)
    if found.kind is Kind.FOLDER:
        return _download_folder(remote, source or ".", destination, progress)
    if found.kind is Kind.NOTHING:
        raise CopyFailed(f"{remote.box}:{source} is not there")
    if found.kind is not Kind.FILE:
        raise CopyFailed(f"{remote.box}:{source} is neither a file nor a folder")
    if destination.is_dir():
        raise CopyFailed(f"{destination} is a folder, and {remote.box}:{source} is none")
    progress.expect(found.size)
    _download_file(remote, found, source, destination, progress)
    return Result(1, found.size, ())


# Internal


def _upload_folder(remote: RemoteFiles, source: Path, destination: str, progress: CopyProgress) -> Result:
    folders: list[tuple[Path, str]] = [(source, destination)]
    files: list[tuple[Path, str]] = []
    skipped: list[tuple[Path, str]] = []
    for top, names, leaves in os.walk(source, onerror=_raise):
        here = Path(top)
        there = posixpath.join(destination, *here.relative_to(source).parts)
        linked = [name for name in names if (here / name).is_symlink()]
        names[:] = sorted(set(names) - set(linked))
        folders += [(here / name, posixpath.join(there, name)) for name in names]
        for name in sorted(leaves):
            regular = (here / name).is_file() and not (here / name).is_symlink()
            (files if regular else skipped).append((here / name, posixpath.join(there, name)))
        skipped += [(here / name, posixpath.join(there, name)) for name in linked]
    progress.expect(sum(path.stat().st_size for path, _ in files))
    remote.make_folders([target for _, target in folders])
    sizes = _all_of([partial(_upload_file, remote, path, target, progress) for path, target in files], progress)
    by_mode: dict[int, list[str]] = defaultdict(list)
    for path, target in folders:
        by_mode[path.stat().st_mode & 0o777].append(target)
    for mode, targets in by_mode.items():
        remote.set_modes(mode, targets)
    return Result(len(files), sum(sizes), [str(path) for path, _ in skipped])


def _upload_file(remote: RemoteFiles, source: Path, destination: str, progress: CopyProgress) -> int:
    """Copies one file to the box; returns its size in bytes."""
    try:
        with source.open("rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
            size = file.tell()
            file.seek(0)
            mode = os.fstat(file.fileno()).st_mode & 0o777
            folder, name = posixpath.split(destination)
            part = posixpath.join(folder, f".{name[:200]}.{secrets.token_hex(4)}.part")
            remote.upload(destination, part, mode, size, sha256, _chunks(file, size, progress))
    except OSError as error:
        raise CopyFailed(f"{source}: {(error.strerror or str(error)).lower()}") from error
    except ApiFailed as error:
        raise CopyFailed(f"{source} was not copied: {error}") from error
    return size


def _not_an_option(path: str) -> str:
    """Returns the same path, but as nothing that a command takes for an option."""
    return f"./{path}" if path.startswith("-") else path


def _chunks(file: BinaryIO, size: int, progress: CopyProgress) -> Iterator[bytes]:
    """Yields the first `size` bytes of a file: one that grows is copied as it was when it was measured."""
    left = size
    while left and (data := file.read(min(left, SEND_BYTES))):
        left -= len(data)
        progress.add(len(data))
        yield data


def _download_folder(remote: RemoteFiles, source: str, destination: Path, progress: CopyProgress) -> Result:
    listed = remote.listing(source)
    for item in listed:
        _check_relative(item.path)
    folders = [item for item in listed if item.kind is Kind.FOLDER]
    files = [item for item in listed if item.kind is Kind.FILE]
    skipped = [item.path for item in listed if item.kind not in (Kind.FILE, Kind.FOLDER)]
    progress.expect(sum(item.size for item in files))
    try:
        destination.mkdir(parents=True, exist_ok=True)
        root = destination.resolve()
        for item in sorted(folders, key=lambda one: one.path):
            _inside(root, item.path).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CopyFailed(f"{error.filename or destination}: {(error.strerror or str(error)).lower()}") from error
    copies = [
        partial(_download_file, remote, item, posixpath.join(source, item.path), _inside(root, item.path), progress)
        for item in files
    ]
    _all_of(copies, progress)
    for item in sorted(folders, key=lambda one: one.path, reverse=True):
        with contextlib.suppress(OSError):  # the copy is whole all the same
            _inside(root, item.path).chmod(item.mode | 0o700)
    return Result(len(files), sum(item.size for item in files), skipped)


def _download_file(
    remote: RemoteFiles, found: RemoteFile, source: str, destination: Path, progress: CopyProgress
) -> int:
    """Copies one file here; returns its size in bytes."""
    digest, received = hashlib.sha256(), 0
    part = destination.with_name(f".{destination.name[:200]}.{secrets.token_hex(4)}.part")
    try:
        descriptor = progress.half_files.begin(part)
        try:
            with os.fdopen(descriptor, "wb") as file:

                def write(data: bytes) -> None:
                    nonlocal received
                    received += len(data)
                    if received > found.size:  # a box may send without end
                        raise CopyFailed(f"{remote.box}:{source}: more than its {found.size} bytes arrived")
                    digest.update(data)
                    file.write(data)
                    progress.add(len(data))

                sha256 = remote.download(source, found.size, write)
            if received != found.size:
                raise CopyFailed(f"{remote.box}:{source}: {received} of {found.size} bytes arrived: it was cut short")
            if sha256 and sha256 != digest.hexdigest():
                raise CopyFailed(f"{remote.box}:{source} changed while it was copied: try again")
            part.chmod(found.mode)
            part.replace(destination)
        finally:
            progress.half_files.end(part)
    except OSError as error:
        raise CopyFailed(f"{destination}: {(error.strerror or str(error)).lower()}") from error
    except ApiFailed as error:
        raise CopyFailed(f"{remote.box}:{source} was not copied: {error}") from error
    return received


def _check_relative(path: str) -> None:
    """Refuses a name that a box must not have us write to.

    Raises:
        CopyFailed: the name is none of a file below a folder here.
    """
    parts = path.split("/")
    hostile = not path or path.startswith("/") or "\0" in path or any(part in ("", ".", "..") for part in parts)
    if not hostile and os.name == "nt":
        hostile = any(set(part) & _FORBIDDEN_ON_WINDOWS or part != part.rstrip(". ") for part in parts)
    if hostile:
        raise CopyFailed(f"the box lists a file named {path!r}, which cannot be in a folder here: nothing was copied")


def _local_name(name: str) -> str:
    _check_relative(name)
    return name


def _inside(root: Path, relative: str) -> Path:
    """Returns the path below the destination, with no link on the way out of it.

    Raises:
        CopyFailed: a link leads out of the destination.
    """
    path = root.joinpath(*PurePosixPath(relative).parts)
    if not path.parent.resolve().is_relative_to(root):
        raise CopyFailed(f"{path} leads out of {root} through a link: nothing is written there")
    return path


def _all_of(copies: Sequence[Callable[[], int]], progress: CopyProgress) -> list[int]:
    """Runs the copies, some at a time; the first failure stops the others, and is raised."""
    try:
        return run_at_once(copies, AT_ONCE)
    except BaseException:
        progress.stop()
        raise


def _raise(error: OSError) -> None:
    raise CopyFailed(f"{error.filename}: {(error.strerror or str(error)).lower()}") from error
