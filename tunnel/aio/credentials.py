"""TLS material for both ends: read from files or given as PEM, and turned into gRPC credentials.

Both sides always present a certificate and always check the other's. Who the peer is, is decided in `peer_identity.py`.
"""

from __future__ import annotations

import ssl
import threading
from dataclasses import dataclass, field
from pathlib import Path

import grpc
import structlog

from tunnel.aio.openssl import check_material, read_own

Pem = Path | bytes
"""A file that holds PEM, or the PEM itself."""

_log = structlog.get_logger("tunnel.credentials")


class CredentialsUnusable(Exception):
    """A certificate, key or CA file cannot be read or does not fit; the text names the file and the fault."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadedTls:
    """Certificate, key and CA as PEM, checked to parse and to fit together."""

    certificate: bytes
    key: bytes = field(repr=False)
    ca: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerTls:
    """What a server shows and whom it trusts. Files are read again when they change."""

    certificate: Pem
    """Leaf first, then intermediates."""
    key: Pem = field(repr=False)
    client_ca: Pem
    """Authorities whose client certificates are accepted."""

    def load(self) -> LoadedTls:
        """Read everything. Raises: CredentialsUnusable."""
        return _load(self.certificate, self.key, self.client_ca)


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientTls:
    """What a box shows and whom it trusts; read anew for each dial."""

    certificate: Pem
    """Leaf first, then intermediates."""
    key: Pem = field(repr=False)
    ca: Pem
    """Authorities whose server certificates are accepted."""

    def load(self) -> LoadedTls:
        """Read everything. Raises: CredentialsUnusable."""
        return _load(self.certificate, self.key, self.ca)


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


def _load(certificate: Pem, key: Pem, ca: Pem) -> LoadedTls:
    loaded = LoadedTls(certificate=_read(certificate), key=_read(key), ca=_read(ca))
    try:
        check_material(loaded.certificate, loaded.key, loaded.ca)
    except (ssl.SSLError, ValueError) as fault:
        from tunnel.aio.material_faults import name_fault  # brings the X.509 library

        names = _name(certificate, "the certificate"), _name(key, "the key"), _name(ca, "the CA")
        text = name_fault((loaded.certificate, loaded.key, loaded.ca), names)
        raise CredentialsUnusable(text or f"{', '.join(names)}: not usable for TLS: {fault}") from fault
    return loaded


def _read(pem: Pem) -> bytes:
    if isinstance(pem, bytes):
        return pem
    try:
        return pem.read_bytes()
    except OSError as fault:
        raise CredentialsUnusable(f"cannot read {pem}: {fault.strerror}") from fault


def _name(source: Pem, otherwise: str) -> str:
    return str(source) if isinstance(source, Path) else otherwise
