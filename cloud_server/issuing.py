"""Makes what the commands hand out to people, programs and boxes: tokens, certificates and kubeconfigs."""

from __future__ import annotations

import os
import ssl
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from urllib.parse import urlsplit

from cloud_server.administer import administer
from cloud_server.config import ServerConfig, authority_folder, load_server_config, state_of
from cloud_server.setup import SetupFailed, authority_of, bracketed, dialled, fleet_url
from cloud_server.trust.administration import Administration
from cloud_server.trust.caller import UNLIMITED, Scope
from cloud_server.trust.hosts import HostsMissing, read_hosts
from cloud_server.trust.records import BEARER, LOGIN
from cloud_server.trust.site_kubeconfig import Site, SiteUnusable, Through, check_names, read_site, site_kubeconfig
from cloud_server.trust.site_proxy import site_proxy_certificate
from tunnel.aio.identity.keys import new_key, request_for
from tunnel.aio.sockets.address import is_loopback
from tunnel.core.wire.faults import NO_FLEET_API, NO_KUBECTL_PROXY, NO_SUCH_CLUSTER, SITE_KUBECONFIG_UNUSABLE
from tunnel.core.wire.names import close_name, meant
from tunnel.core.wire.target import TcpTarget
from tunnel.kubeapi.kubeconfig import by_login, by_token, kubeconfig

HTTPS_PORT = 443


def asked_by() -> str:
    """Returns who runs this command, as records name them."""
    return f"local_process:uid:{os.getuid()}"


def create_join_token(
    config_path: Path,
    agent: str,
    life: timedelta,
    count: int = 1,
    labels: Mapping[str, str] | None = None,
    *,
    kubernetes: bool = False,
) -> str:
    """Returns the text of a new token for a box, or for `count` boxes whose names match a pattern; with `kubernetes`,
    for the nodes of a cluster whose names do.

    Raises:
        ConfigError: the configuration cannot be read.
        AdministrationFailed: the name cannot be used, or the token cannot be made or kept.
    """
    return administer(
        load_server_config(config_path),
        lambda records: records.create_join_token(
            agent, asked_by(), life, count=count, labels=labels, kubernetes=kubernetes
        ),
    )


def create_user_token(
    config: ServerConfig, user: str, life: timedelta, purpose: str = BEARER, scope: Scope = UNLIMITED
) -> str:
    """Returns the text of a new bearer token or login for a user. Only its hash is kept.

    Raises:
        AdministrationFailed: there is no such user, or the token cannot be kept.
    """

    async def create(records: Administration) -> str:
        made = await records.users.create_token(user, asked_by(), life=life, purpose=purpose, scope=scope)
        return made[0]

    return administer(config, create)


def user_certificate(config_path: Path, user: str, life: timedelta) -> str:
    """Returns a new certificate for a user with its key, which is made here, as PEM. The certificate comes first.

    Raises:
        ConfigError: the configuration cannot be read.
        AdministrationFailed: there is no such user, or the certificate cannot be made or kept.
    """
    key_pem = new_key()

    async def certify(records: Administration) -> str:
        made = await records.users.create_certificate(user, request_for(key_pem), asked_by(), life)
        return ssl.DER_cert_to_PEM_cert(made.certificate_der)

    return administer(load_server_config(config_path), certify) + key_pem.decode()


def user_kubeconfig(config_path: Path, user: str, life: timedelta, *, bearer: bool = False) -> str:
    """Returns a kubeconfig with a new login for a user, or with a bearer token when `bearer` is set.

    Raises:
        ConfigError: the configuration cannot be read.
        AdministrationFailed: there is no such user, or the login cannot be kept.
        SetupFailed: something that the kubeconfig needs is not there.
    """
    config = load_server_config(config_path)
    if config.fleet.listen is None:
        raise SetupFailed(
            f"{config_path} has no [fleet] listen: there is no API for a kubeconfig to point at", NO_FLEET_API
        )
    authority = authority_of(config)
    first_host = _first_host(authority_folder(config))
    url, connect = fleet_url(config.fleet.listen, first_host), dialled(config.connect.listen, first_host)
    text = create_user_token(config, user, life, BEARER if bearer else LOGIN)
    shown = by_token(text) if bearer else by_login(url, text)
    return kubeconfig(url, authority.pem, user, shown, connect)


def cluster_kubeconfig(config_path: Path, user: str, cluster: str, life: timedelta) -> str:
    """Returns a kubeconfig for a site's own API server, which is reached through the CONNECT front end.

    It has a new token for the user, which is good for that API server and for nothing else.

    Raises:
        ConfigError: the configuration cannot be read.
        AdministrationFailed: there is no such user, or the token cannot be kept.
        SetupFailed: something that the kubeconfig needs is not there.
    """
    config = load_server_config(config_path)
    found = next((one for one in config.cluster if one.name == cluster), None)
    if found is None:
        text = f"{config_path} has no [[cluster]] of the name {cluster[:80]!r}{_meant(config, cluster)}"
        raise SetupFailed(text, NO_SUCH_CLUSTER)
    listen = config.connect.listen_kubectl
    if listen is None:
        text = f"{config_path} has no [connect] listen_kubectl: there is no proxy for a kubeconfig to name"
        raise SetupFailed(text, NO_KUBECTL_PROXY)
    host = listen.host if is_loopback(listen.host) else _first_host(authority_folder(config))
    try:
        certificate = site_proxy_certificate(state_of(config), authority_folder(config))
        through = Through(f"{bracketed(host)}:{listen.port}", found.agent or found.name, certificate)
        site = read_site(found.kubeconfig)
        check_names(site, certificate)
        scope = _only_this(through.agent, site)
    except OSError as error:
        raise SetupFailed(f"{error.filename} cannot be read: {error.strerror}", SITE_KUBECONFIG_UNUSABLE) from error
    except (SiteUnusable, HostsMissing) as error:
        raise SetupFailed(error.text, error.fault) from error
    return site_kubeconfig(site, cluster, through, create_user_token(config, user, life, BEARER, scope))


# Internal


def _only_this(agent: str, site: Site) -> Scope:
    """Returns the scope that covers the API server of a site, as kubectl asks for it, and nothing else.

    Raises:
        SiteUnusable: its kubeconfig does not say where that is.
    """
    try:
        url = urlsplit(str(site.cluster.get("server")))
        if url.scheme != "https" or not url.hostname:
            raise ValueError(f"server {site.cluster.get('server')!r} is no https:// address")
        target = TcpTarget(url.hostname, url.port or HTTPS_PORT)
    except ValueError as error:
        raise SiteUnusable(f"the site's kubeconfig: {error}") from error
    return Scope(
        frontends=frozenset({"connect"}),
        agents=frozenset({agent}),
        verbs=frozenset({"connect"}),
        targets=frozenset({str(target).lower()}),
    )


def _meant(config: ServerConfig, cluster: str) -> str:
    return meant(close_name(cluster, {one.name for one in config.cluster}.__contains__))


def _first_host(folder: Path) -> str:
    try:
        return read_hosts(folder)[0]
    except HostsMissing as error:
        raise SetupFailed(error.text, error.fault) from error
