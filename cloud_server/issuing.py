"""Makes what the commands hand out to people and boxes: tokens and kubeconfigs."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

from cloud_server.administer import administer
from cloud_server.config import ServerConfig, load_server_config, state_of
from cloud_server.setup import SetupFailed, authority_of, bracketed, dialled, fleet_url
from cloud_server.trust.administration import check_user_name
from cloud_server.trust.hosts import HostsMissing, is_loopback, read_hosts
from cloud_server.trust.kubeconfig import kubeconfig
from cloud_server.trust.site_kubeconfig import SiteUnusable, Through, check_names, read_site, site_kubeconfig
from cloud_server.trust.site_proxy import site_proxy_certificate
from tunnel.core.wire.faults import NO_FLEET_API, NO_KUBECTL_PROXY, NO_SUCH_CLUSTER, SITE_KUBECONFIG_UNUSABLE
from tunnel.core.wire.names import close_name, meant


def create_join_token(config_path: Path, agent: str, life: timedelta) -> str:
    """Returns a new one-time token for a box to join with, which is good for `life`.

    Raises:
        ConfigError: the configuration cannot be read.
        AdministrationFailed: the name cannot be used, or the token cannot be made or kept.
    """
    return administer(load_server_config(config_path), lambda records: records.create_join_token(agent, life))


def create_user_token(config_path: Path, user: str, life: timedelta | None = None) -> str:
    """Returns a new bearer token for a user; only its hash is kept. With `life` None it does not end.

    Raises:
        ConfigError: the configuration cannot be read.
        AdministrationFailed: the name cannot be used, or the token cannot be made or kept.
    """
    return administer(load_server_config(config_path), lambda records: records.create_user_token(user, life))


def user_kubeconfig(config_path: Path, user: str) -> str:
    """Returns a kubeconfig with a new certificate for a user.

    Raises:
        ConfigError: the configuration cannot be read.
        AdministrationFailed: the name cannot be used.
        SetupFailed: what has to be in it is not there.
    """
    check_user_name(user)
    config = load_server_config(config_path)
    if config.fleet.listen is None:
        raise SetupFailed(
            f"{config_path} has no [fleet] listen: there is no API for a kubeconfig to point at", NO_FLEET_API
        )
    authority = authority_of(config)
    first_host = _first_host(state_of(config))
    url, connect = fleet_url(config.fleet.listen, first_host), dialled(config.connect.listen, first_host)
    return kubeconfig(url, authority.pem, user, authority.issue_user(user), connect)


def cluster_kubeconfig(config_path: Path, user: str, cluster: str) -> str:
    """Returns a kubeconfig for a site's own API server through the CONNECT front end, with a new token for a user.

    Raises:
        ConfigError: the configuration cannot be read.
        AdministrationFailed: the name cannot be used, or the token cannot be made or kept.
        SetupFailed: what has to be in it is not there, or cannot be used.
    """
    check_user_name(user)
    config = load_server_config(config_path)
    found = next((one for one in config.cluster if one.name == cluster), None)
    if found is None:
        text = f"{config_path} has no [[cluster]] of the name {cluster[:80]!r}{_meant(config, cluster)}"
        raise SetupFailed(text, NO_SUCH_CLUSTER)
    listen = config.connect.listen_kubectl
    if listen is None:
        text = f"{config_path} has no [connect] listen_kubectl: there is no proxy for a kubeconfig to name"
        raise SetupFailed(text, NO_KUBECTL_PROXY)
    host = listen.host if is_loopback(listen.host) else _first_host(state_of(config))
    try:
        certificate = site_proxy_certificate(state_of(config))
        through = Through(f"{bracketed(host)}:{listen.port}", found.agent or found.name, certificate)
        site = read_site(found.kubeconfig)
        check_names(site, certificate)
    except OSError as error:
        raise SetupFailed(f"{error.filename} cannot be read: {error.strerror}", SITE_KUBECONFIG_UNUSABLE) from error
    except (SiteUnusable, HostsMissing) as error:
        raise SetupFailed(error.text, error.fault) from error
    return site_kubeconfig(site, cluster, through, create_user_token(config_path, user))


# Internal


def _meant(config: ServerConfig, cluster: str) -> str:
    return meant(close_name(cluster, {one.name for one in config.cluster}.__contains__))


def _first_host(state: Path) -> str:
    try:
        return read_hosts(state)[0]
    except HostsMissing as error:
        raise SetupFailed(error.text, error.fault) from error
