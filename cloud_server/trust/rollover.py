"""Lets one authority take the place of another while everybody is connected: by add, move and drop.

Two authorities stand in the file of authorities then. The first signs; both are trusted. `add` makes the second, which
the first has signed, too; `move` has them change places, and a second `move` undoes it; `drop` takes the second away,
whichever it is. Each changes the file of authorities by one rename, last when something is to be there before it, so
that a crash at any moment leaves a state that is one of these, and each may be typed again.
"""

from __future__ import annotations

from pathlib import Path

from cryptography import x509

from cloud_server.trust.ca import CaMissing, CertificateAuthority, pem_of
from cloud_server.trust.renewal import alone, server_hosts, write_server
from cloud_server.trust.state_files import CA_BESIDE_KEY_FILE, CA_FILE, CA_KEY_FILE, CROSS_FILE
from tunnel.aio.process.files import PUBLIC, SECRET, NewFile, write_together
from tunnel.core.wire.faults import NO_SECOND_AUTHORITY, FaultError

MAX_CROSS = 4
"""The most cross certificates that are kept: a box that was away for so many changes of authority still knows the
server."""


class RolloverRefused(FaultError):
    """The step cannot be taken now, and nothing was changed. The text says which step can."""

    default_fault = NO_SECOND_AUTHORITY


def add(state: Path, trust_domain: str) -> CertificateAuthority:
    """Makes another authority, which is trusted beside the one that signs, and returns it. Blocking.

    Raises:
        CaMissing: there is no authority to stand beside.
        RolloverRefused: there are two already.
        OSError: the folder cannot be written.
    """
    with alone(state):
        present = CertificateAuthority.load(state, trust_domain)
        if present.beside:
            raise RolloverRefused("there are two authorities already: move to the second one, or drop it")
        new = CertificateAuthority.create(trust_domain)
        cross = [present.cross_signed(new.certificate), *present.cross][:MAX_CROSS]
        write_together(
            [
                NewFile(state / CA_BESIDE_KEY_FILE, new.key_pem, SECRET),
                NewFile(state / CROSS_FILE, pem_of(cross), PUBLIC),
                NewFile(state / CA_FILE, pem_of([present.certificate, new.certificate]), PUBLIC),
            ]
        )
    return new


def move(state: Path, trust_domain: str, server: Path | None = None) -> CertificateAuthority:
    """Makes the second authority sign from now on, the server's certificate first, and returns it. Blocking.

    `server` is the folder of the server's certificate; None means that of the authority.

    Raises:
        CaMissing: there is no authority.
        OSError: the folder cannot be written.
        RolloverRefused: there is only one, or its key is not there.
        ValueError: a name in `hosts` cannot be one of a certificate.
    """
    with alone(state):
        present = CertificateAuthority.load(state, trust_domain)
        second = _second(present)
        order = [second, present.certificate, *present.beside[1:]]
        try:
            key = CertificateAuthority.key_for(second, state)
        except CaMissing as error:
            raise RolloverRefused(f"the second authority's key is not in {state}: drop it, and add another") from error
        write_together([NewFile(state / CA_FILE, pem_of(order), PUBLIC)])
        authority = CertificateAuthority(second, key, trust_domain, order[1:], present.cross)
        write_server(server or state, authority.issue_server(server_hosts(state, server or state)))
    return authority


def drop(state: Path, trust_domain: str) -> x509.Certificate:
    """Stops trusting the second authority, and destroys its key. Returns its certificate. Blocking.

    Raises:
        CaMissing: there is no authority.
        OSError: the folder cannot be written.
        RolloverRefused: there is only one.
    """
    with alone(state):
        present = CertificateAuthority.load(state, trust_domain)
        second = _second(present)
        write_together([NewFile(state / CA_FILE, pem_of([present.certificate]), PUBLIC)])
        write_together([NewFile(state / CA_KEY_FILE, present.key_pem, SECRET)])
        (state / CA_BESIDE_KEY_FILE).unlink(missing_ok=True)
    return second


# Internal


def _second(present: CertificateAuthority) -> x509.Certificate:
    if not present.beside:
        raise RolloverRefused("there is only one authority: add another first")
    return present.beside[0]
