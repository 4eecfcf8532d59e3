"""Holds the box's own key and certificate: where they lie, whose they are, and until when they are valid."""

from __future__ import annotations

import ssl
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from tunnel.aio.identity.certificate import Certificate, read_own
from tunnel.aio.identity.spiffe import IdentityUnclear, only_uri, split_uri
from tunnel.aio.identity.tls_material import ClientTls
from tunnel.aio.process.files import sync_folder
from tunnel.core.wire.faults import IDENTITY_MISSING, IDENTITY_UNUSABLE, PEER_ROLE_REFUSED, FaultError
from tunnel.core.wire.names import is_agent_name

RENEW_AFTER = 2 / 3
"""The part of the certificate's life after which it is renewed: a third is left for a cloud that is away."""


class IdentityUnusable(FaultError):
    """The box cannot show who it is; the text says what to do."""

    default_fault = IDENTITY_UNUSABLE


@dataclass(frozen=True, slots=True)
class Identity:
    """The identity in a state folder, as files."""

    folder: Path

    @property
    def key_path(self) -> Path:
        """Returns the path of the private key, which never leaves the box."""
        return self.folder / "agent.key"

    @property
    def certificate_path(self) -> Path:
        """Returns the path of the certificate with its chain."""
        return self.folder / "agent.crt"

    @property
    def ca_path(self) -> Path:
        """Returns the path of the authorities that the server is checked against."""
        return self.folder / "ca.crt"

    @property
    def next_key_path(self) -> Path:
        """Returns the path of the key that is to take the place of the other one. It is there
        only while that goes on.
        """
        return self.folder / "agent-next.key"

    @property
    def recovery_path(self) -> Path:
        """Returns the path of the certificate that opens nothing but Recover, for when the box's own has ended."""
        return self.folder / "recovery.crt"

    @property
    def turn_path(self) -> Path:
        """Returns the path of the file that says which renewal comes next."""
        return self.folder / "renewals.json"

    @property
    def tls(self) -> ClientTls:
        """Returns the files by which the box shows who it is, and those that it trusts."""
        return ClientTls(certificate=self.certificate_path, key=self.key_path, ca=self.ca_path)

    def certificate(self) -> Certificate:
        """Reads the box's certificate. It may belong to the next key already; see `settle`.

        Raises:
            IdentityUnusable: there is none, it cannot be read, or it does not fit the key.
        """
        try:
            data = self.certificate_path.read_bytes()
            with suppress(FileNotFoundError, ssl.SSLError):
                return read_own(data, self.next_key_path.read_bytes())
            return read_own(data, self.key_path.read_bytes())
        except FileNotFoundError as error:
            raise IdentityUnusable(
                f"{error.filename} does not exist: run edge-agent join first", IDENTITY_MISSING
            ) from None
        except OSError as error:
            reason = error.strerror if not isinstance(error, ssl.SSLError) else "no PEM certificate with its key"
            raise IdentityUnusable(f"{self.certificate_path} cannot be read: {reason}") from error
        except ValueError as error:
            raise IdentityUnusable(f"{self.certificate_path} cannot be read: {error}") from error

    def name(self) -> str:
        """Returns the agent's name, from its certificate.

        One that has run out is no reason to stop: the clock may be wrong, and `edge-agent join` may replace it at any
        time. A dial with it says so.

        Raises:
            IdentityUnusable: there is no certificate, or it is not an agent's.
        """
        try:
            uri = only_uri(self.certificate().uris)
            role, name = split_uri(uri, None)
            if role != "agent" or not is_agent_name(name):
                raise IdentityUnclear(f"{uri!r} is not the name of an agent", PEER_ROLE_REFUSED)
        except IdentityUnclear as error:
            raise IdentityUnusable(f"{self.certificate_path}: {error}") from error
        return name

    def fits(self, certificate_path: Path, key_pem: bytes) -> bool:
        """Returns whether one of the box's certificates belongs to a key. Blocking."""
        try:
            read_own(certificate_path.read_bytes(), key_pem)
        except (OSError, ValueError):
            return False
        return True

    def settle(self) -> None:
        """Gives the box its next key when its certificate belongs to that key. Blocking.

        It is the last step of a new certificate, which a crash may have left undone.

        Raises:
            OSError: the folder cannot be written.
        """
        with suppress(FileNotFoundError):  # there is none; or another process was quicker
            if self.fits(self.certificate_path, self.next_key_path.read_bytes()):
                self.next_key_path.replace(self.key_path)
                sync_folder(self.folder)

    def renewal_due(self) -> datetime:
        """Returns when a fresh certificate should be asked for.

        Raises:
            IdentityUnusable: there is no certificate that can be used.
        """
        return self.certificate().validity.part(RENEW_AFTER)
