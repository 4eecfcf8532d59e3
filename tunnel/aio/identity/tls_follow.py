"""Reads TLS material again when its files change."""

from __future__ import annotations

import threading
from pathlib import Path

import structlog

from tunnel.aio.identity.certificate import CertificateUnreadable, read_pem
from tunnel.aio.identity.tls_material import CredentialsUnusable, LoadedTls, ServerTls
from tunnel.aio.process.files import stamp
from tunnel.core.wire.faults import CERTIFICATE_NOT_RELOADED

_log = structlog.get_logger("tunnel.credentials")


class TlsFollower:
    """Holds the TLS material that was loaded last, and looks at the files when it is asked; from any thread."""

    def __init__(self, tls: ServerTls, user: str) -> None:
        """Loads the material. Blocking. `user` is who shows the certificate, for the log.

        Raises:
            CredentialsUnusable: what is there now cannot be used.
        """
        self._tls = tls
        self._user = user
        self._files = [item for item in (tls.certificate, tls.key, tls.client_ca) if isinstance(item, Path)]
        self._lock = threading.Lock()
        self._seen = stamp(self._files)
        self.loaded = tls.load()

    def poll(self) -> LoadedTls | None:
        """Returns new material, or None for no change.

        Material that cannot be used is logged, and the old stays. Blocking.
        """
        with self._lock:
            now = stamp(self._files)
            if now == self._seen:
                return None
            self._seen = now
            try:
                loaded = self._tls.load()
            except CredentialsUnusable as fault:
                # A certificate and its key are two files: between their two renames they do not fit. The next
                # change, which comes with the second rename, is looked at again.
                _log.warning(
                    "certificate not reloaded, the old one stays",
                    code=CERTIFICATE_NOT_RELOADED.code,
                    shown_to=self._user,
                    reason=str(fault),
                )
                return None
            if loaded == self.loaded:
                return None
            self.loaded = loaded
            _log.info("certificate reloaded", shown_to=self._user, expires=_end_of(loaded))
            return loaded


def _end_of(loaded: LoadedTls) -> str | None:
    """Returns the end of a certificate for people; None for one that only OpenSSL can read.

    It does no handshake with ourselves for that: a certificate for servers alone, as public authorities issue them,
    cannot be shown by a client.
    """
    try:
        return read_pem(loaded.certificate)[0].validity.not_after.isoformat()
    except CertificateUnreadable:
        return None
