"""TLS material as gRPC takes it; a server's is read anew when its files change."""

from __future__ import annotations

import grpc

from tunnel.aio.identity.tls_follow import TlsFollower
from tunnel.aio.identity.tls_material import LoadedTls, ServerTls


def channel_credentials(loaded: LoadedTls) -> grpc.ChannelCredentials:
    """Returns the credentials of one channel."""
    return grpc.ssl_channel_credentials(loaded.ca, loaded.key, loaded.certificate)


def server_credentials(tls: ServerTls) -> grpc.ServerCredentials:
    """Returns server credentials that demand a client certificate and follow changes of the files. Blocking.

    Raises:
        CredentialsUnusable: what is there now cannot be used. A later change that cannot be used keeps the old
            material, with a warning in the log.
    """
    follower = TlsFollower(tls, "agents")

    def fetch() -> grpc.ServerCertificateConfiguration | None:
        """Returns new material, or None for no change. gRPC asks before each handshake, on one of its own threads."""
        loaded = follower.poll()
        return None if loaded is None else _configuration(loaded)

    return grpc.dynamic_ssl_server_credentials(
        _configuration(follower.loaded),
        fetch,  # type: ignore[arg-type]  # the stubs forget that None means no change
        require_client_authentication=True,
    )


# Internal


def _configuration(loaded: LoadedTls) -> grpc.ServerCertificateConfiguration:
    return grpc.ssl_server_certificate_configuration([(loaded.key, loaded.certificate)], loaded.ca)
