"""Does what the `cloud-server authority` commands do: shows the authority, and has another one take its place."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

from cryptography import x509

from cloud_server.administer import administer
from cloud_server.config import ServerConfig, authority_folder, load_server_config, state_of
from cloud_server.setup import SetupFailed, authority_of
from cloud_server.trust import rollover
from cloud_server.trust.administration import Administration
from cloud_server.trust.behind import Behind, behind
from cloud_server.trust.ca import CaMissing, CertificateAuthority, authority_id
from cloud_server.trust.hosts import HOSTS_FILE
from cloud_server.trust.rollover import RolloverRefused
from tunnel.aio.identity.validity import date
from tunnel.core.wire.faults import AGENTS_BEHIND, HOSTS_FILE_UNUSABLE

T = TypeVar("T")

NAMED = 10
"""The most agents that one line names."""


@dataclass(frozen=True, slots=True)
class Shown:
    """The state of the authority: who signs, who is trusted beside it, and who is not ready for the next step."""

    signs: x509.Certificate
    beside: x509.Certificate | None
    """The certificate of a second authority, which is trusted and signs nothing; None without one."""
    agents: Behind
    """Who is not ready for the first authority to be the only one."""
    moved: Behind | None
    """Who does not trust the second authority yet, so that it could not serve them; None without one."""


def show(config_path: Path) -> Shown:
    """Returns the state of the authority that a configuration names.

    Raises:
        ConfigError: the configuration cannot be read.
        SetupFailed, AdministrationFailed: there is no authority of ours, or the records cannot be read.
    """
    config = load_server_config(config_path)
    present = authority_of(config)
    second = present.beside[0] if present.beside else None
    agents = _behind(config, present.certificate)
    return Shown(present.certificate, second, agents, _behind(config, second) if second is not None else None)


def add(config_path: Path) -> CertificateAuthority:
    """Makes a second authority, which is trusted and signs nothing yet, and returns it.

    Raises:
        ConfigError, SetupFailed: as above, or there are two already, or the folder cannot be written.
    """
    return _changed(load_server_config(config_path), rollover.add)


def move(config_path: Path) -> CertificateAuthority:
    """Makes the second authority sign from now on, and returns it.

    Nobody is locked out by that: agents that do not know it yet see in the server's chain that the first one has signed
    it, and their own certificates are accepted until `drop`.

    Raises:
        ConfigError, SetupFailed: as above, or there is only one.
    """
    config = load_server_config(config_path)
    return _changed(config, partial(rollover.move, server=state_of(config)))


def drop(config_path: Path, *, force: bool) -> tuple[x509.Certificate, Behind]:
    """Stops trusting the second authority. Returns its certificate, and whom that locks out.

    `force` says to do so also when that locks somebody out.

    Raises:
        ConfigError, SetupFailed, AdministrationFailed: as above, or agents or users would be locked out.
    """
    config = load_server_config(config_path)
    present = authority_of(config)
    left = _behind(config, present.certificate)
    if present.beside and not force and (lost := _lost(left)):
        raise SetupFailed(f"{lost}, or say --force", AGENTS_BEHIND)
    return _changed(config, rollover.drop), left


def line(certificate: x509.Certificate, does: str) -> str:
    """Returns one line about an authority for people; `does` says what it does."""
    name = certificate.subject.rfc4514_string()
    return f"{authority_id(certificate)[:16]}\t{name}\tuntil {date(certificate.not_valid_after_utc)}\t{does}"


def names(agents: Sequence[str]) -> str:
    """Returns the first NAMED of the names, and how many more there are."""
    shown = ", ".join(agents[:NAMED])
    return f"{shown} and {len(agents) - NAMED} more" if len(agents) > NAMED else shown


def held(users: Sequence[str]) -> str:
    """Returns how many certificates users hold, and the names of their users.

    `users` has one entry for each certificate.
    """
    whose = names(sorted(set(users)))
    return f"{len(users)} certificate{'' if len(users) == 1 else 's'} of users{f': {whose}' if whose else ''}"


# Internal


def _lost(left: Behind) -> str:
    """Returns who would be locked out, and what to do about it; empty when nobody would."""
    told = []
    if lost := left.locked_out:
        told.append(
            f"{len(lost)} of {left.joined} agents would be locked out: {names(lost)}; wait until each has renewed its "
            "certificate and come back, revoke or forget what is gone for good"
        )
    if left.users:
        told.append(f"good no more would be {held(left.users)}; wait until they have ended, or hand out others")
    return "; ".join(told)


def _behind(config: ServerConfig, stays: x509.Certificate) -> Behind:
    async def look(records: Administration) -> Behind:
        return behind(records.agents(), records.users.all(), authority_id(stays))

    return administer(config, look)


def _changed(config: ServerConfig, change: Callable[[Path, str], T]) -> T:
    authority_of(config)  # or there is nothing of ours to change
    folder = authority_folder(config)
    try:
        return change(folder, config.tunnel.trust_domain)
    except (CaMissing, RolloverRefused) as error:
        raise SetupFailed(error.text, error.fault) from error
    except OSError as error:
        raise SetupFailed(f"{error.filename or folder} cannot be written: {error.strerror or error}") from error
    except ValueError as error:
        text = f"{folder / HOSTS_FILE} has a name that no certificate can have: {error}"
        raise SetupFailed(text, HOSTS_FILE_UNUSABLE) from error
