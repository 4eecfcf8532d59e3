"""Looks at the kubelet's certificate and key, and at the authority: whether they fit, and the agent can read them.

The agent runs as an account of its own, and the kubelet's key is root's. A drop-in of its unit lets it read that.
"""

from __future__ import annotations

import os
import pwd
import re
import stat
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path

from edge_agent.autonomy.check.findings import Finding, fault, good, warning
from tunnel.aio.identity.certificate import Certificate, CertificateUnreadable, name_text, read_pem
from tunnel.aio.identity.tls_material import ClientTls, CredentialsUnusable
from tunnel.aio.identity.validity import Standing, Watched

ABOUT = "credentials"
UNITS = tuple(Path(folder, "edge-agent.service.d") for folder in ("/etc/systemd/system", "/usr/lib/systemd/system"))
"""Where drop-ins of the agent's unit are."""
READS_ALL = "CAP_DAC_READ_SEARCH"
"""The capability by which an account reads what only root may read."""
_NODE = re.compile(r"(?:^|,)CN=system:node:([^,]+)")


def node_of(certificate: Path) -> str:
    """Returns the name of the node that a kubelet's certificate is of; empty when it cannot be read, or is none."""
    try:
        found = _NODE.search(name_text(read_pem(certificate.read_bytes())[0].subject_der))
    except (OSError, CertificateUnreadable):
        return ""
    return found[1] if found is not None else ""


def credentials(certificate: Path, key: Path, ca: Path, now: datetime | None = None) -> Iterator[Finding]:
    """Yields what is found in the files. Blocks."""
    try:
        loaded = ClientTls(certificate=certificate, key=key, ca=ca).load()
        own = read_pem(loaded.certificate)[0]
        authorities = read_pem(loaded.ca)
    except (CredentialsUnusable, CertificateUnreadable) as error:
        yield fault(ABOUT, str(error), "run this as root, and see that [autonomy] names the kubelet's files")
        return
    name = name_text(own.subject_der)
    if not node_of(certificate):
        remedy = "[autonomy] client_cert is the kubelet's: /var/lib/kubelet/pki/kubelet-client-current.pem, say"
        yield fault(ABOUT, f"{certificate} is of {name}, which is no node", remedy)
    yield _life(certificate, own, now or datetime.now(UTC))
    if not any(one.subject_der == own.issuer_der for one in authorities):
        text = f"{ca} does not have the authority that signed {certificate}: {name_text(own.issuer_der)}"
        yield fault(ABOUT, text, "the kubelet would not be known: put that authority into the file as well")


def access(paths: Iterable[Path], state: Path, drop_ins: Iterable[Path] = UNITS) -> Iterator[Finding]:
    """Yields whether the account of the agent can read files. Blocks.

    Args:
        paths: of the files.
        state: the state folder, which belongs to the account.
        drop_ins: where drop-ins of the agent's unit are.
    """
    try:
        uid = state.stat().st_uid
    except OSError as error:
        yield fault(ABOUT, f"{state}: {error.strerror}", "join this box first: edge-agent join")
        return
    account, groups = _account(uid)
    hidden = [path for path in paths if uid != 0 and not _readable(path, uid, groups)]
    if not hidden:
        yield good(ABOUT, f"the account {account} can read the kubelet's files")
    elif _lets_read(drop_ins):
        yield good(ABOUT, f"the account {account} can read the kubelet's files by {READS_ALL}")
    else:
        text = f"the account {account}, which the agent runs as, cannot read {', '.join(map(str, hidden))}"
        yield fault(ABOUT, text, "install deploy/node/autonomy.conf as a drop-in of edge-agent.service")


# Internal


def _life(path: Path, own: Certificate, now: datetime) -> Finding:
    remedy = "the kubelet renews it while it reaches the API server: see its log"
    watched = Watched(name="node", what=f"the kubelet's certificate {path}", validity=own.validity, remedy=remedy)
    standing, told = watched.standing(now), watched.told(now)
    if standing in (Standing.OVER, Standing.NOT_YET):
        return fault(ABOUT, told, "a kubelet without a certificate is nobody to the proxy; kubeadm join anew, say")
    if standing is Standing.GOOD:
        return good(ABOUT, told)
    return warning(ABOUT, told, "without the cloud nothing renews it")


def _account(uid: int) -> tuple[str, set[int]]:
    """Returns the name of an account, and the numbers of its groups."""
    try:
        entry = pwd.getpwuid(uid)
    except KeyError:
        return str(uid), set()
    return entry.pw_name, set(os.getgrouplist(entry.pw_name, entry.pw_gid))


def _readable(path: Path, uid: int, groups: set[int]) -> bool:
    """Returns whether an account may read a file by its permissions, and those of the folders on the way."""
    try:
        path = path.resolve(strict=True)
        folders = [_may(folder.stat(), uid, groups, 1) for folder in path.parents]
        return all(folders) and _may(path.stat(), uid, groups, 4)
    except OSError:
        return False


def _may(about: os.stat_result, uid: int, groups: set[int], bit: int) -> bool:
    mode = stat.S_IMODE(about.st_mode)
    if about.st_uid == uid:
        return bool(mode >> 6 & bit)
    return bool((mode >> 3 if about.st_gid in groups else mode) & bit)


def _lets_read(folders: Iterable[Path]) -> bool:
    for folder in folders:
        for path in sorted(folder.glob("*.conf")):
            try:
                lines = path.read_text().splitlines()
            except OSError:
                continue
            if any(line.startswith("AmbientCapabilities=") and READS_ALL in line for line in lines):
                return True
    return False
