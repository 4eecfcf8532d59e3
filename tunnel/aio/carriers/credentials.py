"""TLS material as gRPC takes it; a server's is read anew when its files change."""

from __future__ import annotations

import threading
from pathlib import Path

import grpc
import structlog

from tunnel.aio.identity.openssl import read_own
from tunnel.aio.identity.tls_material import CredentialsUnusable, LoadedTls, ServerTls

_log = structlog.get_logger("tunnel.credentials")


def channel_credentials(loaded: LoadedTls) -> grpc.ChannelCredentials:
    """Credentials of one channel."""
    return grpc.ssl_channel_credentials(loaded.ca, loaded.key, loaded.certificate)


def server_credentials(tls: ServerTls) -> grpc.ServerCredentials:
    """Server credentials that demand a client certificate and follow changes of the files.

    Raises:
        CredentialsUnusable: what is there now cannot be used. A later change that cannot be used keeps the old
            material, with a warning in the log.
    """
    reloader = _Reloader(tls)
    return grpc.dynamic_ssl_server_credentials(
        reloader.configuration,
        reloader.fetch,  # type: ignore[arg-type]  # the stubs forget that None means no change
        require_client_authentication=True,
    )


# Internal

_Stamp = tuple[tuple[int, int, int], ...]


class _Reloader:
    """Asked by gRPC before each handshake, on one of gRPC's own threads, whether the certificate changed."""

    def __init__(self, tls: ServerTls) -> None:
        self._tls = tls
        self._files = [item for item in (tls.certificate, tls.key, tls.client_ca) if isinstance(item, Path)]
        self._lock = threading.Lock()
        self._seen = self._stamp()
        self._loaded = tls.load()
        self.configuration = _configuration(self._loaded)

    def fetch(self) -> grpc.ServerCertificateConfiguration | None:
        """The new configuration, or None for no change."""
        with self._lock:
            stamp = self._stamp()
            if stamp == self._seen:
                return None
            self._seen = stamp
            try:
                loaded = self._tls.load()
            except CredentialsUnusable as fault:
                # A certificate and its key are two files: between their two renames they do not fit. The next
                # change, which comes with the second rename, is looked at again.
                _log.warning("server certificate not reloaded, the old one stays", reason=str(fault))
                return None
            if loaded == self._loaded:
                return None
            self._loaded = loaded
            expires = read_own(loaded.certificate, loaded.key).not_after
            _log.info("server certificate reloaded", expires=expires.isoformat())
            return _configuration(loaded)

    def _stamp(self) -> _Stamp:
        stamps = []
        for file in self._files:
            try:
                status = file.stat()
            except OSError:
                stamps.append((0, 0, 0))
            else:
                stamps.append((status.st_mtime_ns, status.st_size, status.st_ino))
        return tuple(stamps)


def _configuration(loaded: LoadedTls) -> grpc.ServerCertificateConfiguration:
    return grpc.ssl_server_certificate_configuration([(loaded.key, loaded.certificate)], loaded.ca)
