"""Renews the server's certificate and its authority's own: long before they end, when `hosts` changed, or when the
server's does not fit its key.

`due` looks without the X.509 library and without the authority's key, so that a running server may ask it often;
`renew` is for whoever has that key: the signing process of a running server, or the command when none runs.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import ssl
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from cloud_server.trust.hosts import HOSTS_FILE, HostsMissing, names_for, read_hosts
from cloud_server.trust.state_files import CA_FILE, SERVER_FILE, SERVER_KEY_FILE
from tunnel.aio.identity.certificate import Certificate, CertificateUnreadable, read_own, read_pem
from tunnel.aio.process.files import PUBLIC, SECRET, NewFile, write_atomic, write_together

if TYPE_CHECKING:  # it brings the X.509 library
    from cloud_server.trust.ca import CertificateAuthority, Issued
    from cloud_server.trust.signer import NewServer

RENEW_AFTER = 2 / 3
"""The part of its life after which a certificate is renewed. The rest of the authority's life is what agents and users
have to get its next certificate, with their own.
"""


def due(state: Path, now: datetime | None = None, *, folder: Path | None = None) -> list[str]:
    """Returns the files of a state folder that are to be renewed, in that order. Blocks.

    A certificate that this authority did not sign was put there by somebody, who will renew it. `folder` is that of the
    authority; None means the state folder.
    """
    now = now or datetime.now(UTC)
    folder = folder or state
    authorities = _read_all(folder / CA_FILE)
    if not authorities:
        return []
    authority, *beside = authorities
    files = [CA_FILE] if is_old(authority, now) else []
    server = next(iter(_read_all(state / SERVER_FILE)), None)
    if server is None:
        return files if (state / SERVER_FILE).exists() else [*files, SERVER_FILE]
    moved = server.issuer_der in {one.subject_der for one in beside}
    ours = moved or server.issuer_der == authority.subject_der
    if moved or (ours and (is_old(server, now) or _is_for_others(server, folder) or _has_no_key(state))):
        files.append(SERVER_FILE)
    return files


def renew(
    state: Path, authority: CertificateAuthority, files: Sequence[str], *, folder: Path | None = None
) -> CertificateAuthority:
    """Writes fresh ones of these files, and returns the authority to go on with. Blocking.

    A running server, whose key and certificate these are, sees the change by itself. `folder` is that of the authority;
    None means the state folder.

    Raises:
        CaMissing: there is no authority any more.
        OSError: a file cannot be written.
        ValueError: a name in `hosts` cannot be one of a certificate.
    """
    folder = folder or state
    with alone(folder):
        authority = authority.again(folder)  # another may have been added since it was read
        if CA_FILE in files:
            authority = authority.renewed()
            write_together([NewFile(folder / CA_FILE, authority.pem, PUBLIC)])
        if SERVER_FILE in files:
            hosts = server_hosts(folder, state)
            write_server(state, authority.issue_server(hosts))
    return authority


def write_server(state: Path, issued: Issued | NewServer) -> None:
    """Writes the certificate of the server, and its key. The caller must be `alone`. Blocking.

    Raises:
        OSError: they cannot be written.
    """
    write_together(
        [
            NewFile(state / SERVER_KEY_FILE, issued.key_pem, SECRET),
            NewFile(state / SERVER_FILE, issued.certificate_pem, PUBLIC),
        ]
    )


def server_hosts(folder: Path, state: Path | None) -> list[str]:
    """Returns the names that the server's certificate is for, from `hosts` in the authority's folder; where that file
    is lost, those of the present certificate in the state folder, if there is one. Blocking.

    Raises:
        OSError: there is neither.
    """
    try:
        return read_hosts(folder)
    except HostsMissing as missing:
        present = _read_all(state / SERVER_FILE) if state is not None else []
        if not present:
            raise OSError(str(missing)) from missing
        return sorted(present[0].hosts)


def add_hosts(state: Path, hosts: Sequence[str]) -> None:
    """Adds names to those of the server; its certificate is due then. `state` is the authority's folder. Blocking.

    Raises:
        HostsMissing: the file with the names cannot be used.
        OSError: it cannot be written.
    """
    with alone(state):
        known = read_hosts(state)
        have = names_for(known)
        new = [host for host in dict.fromkeys(hosts) if names_for([host])[0] not in have]
        if new:
            write_atomic(state / HOSTS_FILE, "".join(f"{host}\n" for host in [*known, *new]).encode(), PUBLIC)


@contextlib.contextmanager
def alone(state: Path) -> Iterator[None]:
    """Locks the certificates and keys of a state folder for as long as the block runs.

    Two servers run while one takes over from the other, and a command may run beside them: a key of one and a
    certificate of another do not fit.
    """
    folder = os.open(state, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        yield
    finally:
        os.close(folder)


def is_old(certificate: Certificate, now: datetime) -> bool:
    """Returns whether a certificate is to be renewed for its age. That is so also when its life has not begun: it was
    made while the clock was wrong, and nobody accepts it.
    """
    validity = certificate.validity
    return not validity.not_before <= now < validity.part(RENEW_AFTER)


# Internal


def _read_all(path: Path) -> list[Certificate]:
    try:
        return read_pem(path.read_bytes())
    except (OSError, CertificateUnreadable):
        return []


def _is_for_others(server: Certificate, state: Path) -> bool:
    """Returns whether `hosts` says other names than the certificate."""
    try:
        return server.hosts != set(names_for(read_hosts(state)))
    except HostsMissing:
        return False


def _has_no_key(state: Path) -> bool:
    """Returns whether the server's key is gone, or belongs to another certificate: of the two, whose renames are two
    steps, only one was written when the machine lost its power.
    """
    try:
        read_own((state / SERVER_FILE).read_bytes(), (state / SERVER_KEY_FILE).read_bytes())
    except (FileNotFoundError, ssl.SSLError):
        return True
    except (OSError, CertificateUnreadable):
        return False
    return False
