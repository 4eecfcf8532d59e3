"""Makes the files of the state folder for the commands, and renews the certificates in it."""

from __future__ import annotations

import asyncio
import ipaddress
import os
import secrets
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from cloud_server.config import (
    AuthorityConfig,
    FleetConfig,
    ServerConfig,
    authority_folder,
    authority_place,
    load_server_config,
    policy_file_of,
    state_of,
)
from cloud_server.rights.policy_file import first_policy
from cloud_server.trust.authenticator import token_digest
from cloud_server.trust.ca import CaMissing, CertificateAuthority
from cloud_server.trust.hosts import HOSTS_FILE, HostsMissing
from cloud_server.trust.records import LOGIN, USER_TOKENS, USERS, UserRecord, UserToken
from cloud_server.trust.renewal import add_hosts, due, renew
from cloud_server.trust.signing_link import AuthorityPlace
from cloud_server.trust.state import open_state
from cloud_server.trust.state_files import CA_FILE, OPERATORS_KUBECONFIG, SERVER_FILE, SERVER_KEY_FILE
from cloud_server.trust.store import Change, StoreUnavailable
from cloud_server.trust.user_administration import TOKEN_BYTES, TOKEN_LIFE
from tunnel.aio.process.config import HostPort
from tunnel.aio.process.files import PUBLIC, SECRET, NewFile, make_folder, write_together
from tunnel.aio.sockets.address import is_loopback
from tunnel.core.wire.faults import (
    AUTHORITY_IS_YOURS,
    CONFIG_INVALID,
    HOST_NAME_INVALID,
    HOSTS_FILE_UNUSABLE,
    STATE_IN_USE,
    STATE_NOT_WRITABLE,
    FaultError,
)
from tunnel.core.wire.target_rule import is_dns_name
from tunnel.kubeapi.kubeconfig import by_login, kubeconfig

ADMIN = "admin"
INIT = "cloud-server init"
"""The name by which records say who took in the first user."""
CONNECT_LISTEN = HostPort("127.0.0.1:7444")
FLEET_LISTEN = HostPort("127.0.0.1:7445")
"""The addresses of the CONNECT proxy over TLS, and of the fleet API, in the first configuration."""

_CONFIG = f"""\
# What this cloud-server does. Check a change with: cloud-server check --config FILE
# Relative paths are relative to this file. More keys: docs/configuration.md.

[tunnel]                          # where agents dial in
listen = ["0.0.0.0:7443"]

[connect]                         # HTTP CONNECT: kube-apiserver, curl, ssh
unix = "connect.sock"
listen = "{CONNECT_LISTEN}"         # over TLS; client certificate or Proxy-Authorization

[fleet]                           # the Kubernetes API for boxes without Kubernetes
listen = "{FLEET_LISTEN}"

# A local port that leads to one target at one box.
# [[forward]]
# listen = "127.0.0.1:2222"
# agent = "box-7"
# target = "127.0.0.1:22"
"""


_APART = """
[authority]                       # its key belongs to another account, which signs
folder = "{folder}"
signer = "{socket}"
"""


class SetupFailed(FaultError):
    """The command cannot be carried out; the text says why and what to do."""

    default_fault = STATE_NOT_WRITABLE


@dataclass(frozen=True, slots=True)
class Made:
    """The files that `init` made, and the address that boxes dial."""

    config: Path
    config_is_new: bool
    """Whether the configuration was made; False when there was one already, which was left alone."""
    kubeconfig: Path
    server: str
    """The address that boxes dial, as `host:port`."""


def init_state(folder: Path, hosts: Sequence[str], place: AuthorityPlace | None = None) -> Made:
    """Makes a state folder, and a configuration unless there is one already, which stays.

    Args:
        folder: made when it does not exist.
        hosts: names and addresses of this server, at least one.
        place: of an authority that belongs to another account, for the new configuration; its folder must exist, with
            its owner. None means that it is in the state folder.

    Raises:
        ConfigError: the configuration that is there cannot be used.
        SetupFailed: the folder has an authority already, certificates come from the user's own authority, a host is no
            name, or the folder cannot be written.
    """
    check_hosts(hosts)
    path = folder / "cloud-server.toml"
    kept = load_server_config(path) if path.exists() else None
    apart = AuthorityConfig(folder=place.folder, signer=place.socket) if place is not None else AuthorityConfig()
    config = kept or ServerConfig(state=folder, fleet=FleetConfig(listen=FLEET_LISTEN), authority=apart)
    state, keys = state_of(config), authority_folder(config)
    if place is not None and authority_place(config) != place:
        text = f"{path} is there, and has no [authority] with this folder and socket: write them there first"
        raise SetupFailed(text, CONFIG_INVALID)
    if place is not None and not keys.is_dir():
        text = f"{keys} does not exist: make it, and have it belong to the account that is to sign"
        raise SetupFailed(text, STATE_NOT_WRITABLE)
    if config.tunnel.client_ca is not None:
        text = f"{path} takes certificates of your own authority ([tunnel] client_ca): nothing to make"
        raise SetupFailed(text, AUTHORITY_IS_YOURS)
    if CertificateAuthority.exists(keys):
        text = f"{keys} has a certificate authority already; take another folder, or use what is there"
        raise SetupFailed(text, STATE_IN_USE)
    authority = CertificateAuthority.create(config.tunnel.trust_domain)
    server = f"{bracketed(hosts[0])}:{config.tunnel.listen[0].port}"
    made = Made(path, kept is None, folder / OPERATORS_KUBECONFIG, server)
    files = _state_files(state, keys, authority, hosts)
    policy = policy_file_of(config)
    if not policy.exists():
        files.insert(0, NewFile(policy, first_policy([ADMIN]).encode(), PUBLIC))
    url = fleet_url(config.fleet.listen or FLEET_LISTEN, hosts[0])
    connect = dialled(config.connect.listen if kept else CONNECT_LISTEN, hosts[0])
    login = secrets.token_urlsafe(TOKEN_BYTES)
    operator = kubeconfig(url, authority.pem, ADMIN, by_login(url, login, _longline()), connect)
    files.insert(0, NewFile(made.kubeconfig, operator.encode(), SECRET))
    if kept is None:
        text = _CONFIG if place is None else _CONFIG + _APART.format(folder=place.folder, socket=place.socket)
        files.insert(0, NewFile(path, text.encode(), PUBLIC))
    try:
        make_folder(folder)
        make_folder(state)
        write_together(files)
    except OSError as error:
        raise SetupFailed(f"{error.filename or folder} cannot be written: {error.strerror}") from error
    try:
        asyncio.run(_record_admin(state, login))
    except StoreUnavailable as error:
        way_out = f"then: cloud-server user add {ADMIN}, and user kubeconfig {ADMIN} in place of {made.kubeconfig.name}"
        raise SetupFailed(f"{error.text}; mend that, {way_out}", error.fault) from error
    return made


def renew_certificates(config_path: Path, *, all_of_them: bool, hosts: Sequence[str] = ()) -> list[Path]:
    """Renews the server's certificate and the authority's, each if it is due. Returns the files that are new.

    Args:
        config_path: of the server.
        all_of_them: renews them also when they are not due.
        hosts: names and addresses that the server's certificate is to have from now on, beside those that it has.

    Raises:
        ConfigError: the configuration cannot be read.
        SetupFailed: they were not all renewed; the text says why.
    """
    check_hosts(hosts)
    config = load_server_config(config_path)
    authority, state, folder = authority_of(config), state_of(config), authority_folder(config)
    try:
        if hosts:
            add_hosts(folder, hosts)
        files = [CA_FILE, SERVER_FILE] if all_of_them else due(state, folder=folder)
        renew(state, authority, files, folder=folder)
    except (CaMissing, HostsMissing) as error:
        raise SetupFailed(error.text, error.fault) from error
    except OSError as error:
        raise SetupFailed(f"{error.filename or state} cannot be written: {error.strerror or error}") from error
    except ValueError as error:
        text = f"{folder / HOSTS_FILE} has a name that no certificate can have: {error}"
        raise SetupFailed(text, HOSTS_FILE_UNUSABLE) from error
    return [(folder if file == CA_FILE else state) / file for file in files]


def check_hosts(hosts: Sequence[str]) -> None:
    """Makes sure that all of these can be names or addresses of a server.

    Raises:
        SetupFailed: one cannot.
    """
    for host in hosts:
        if not is_dns_name(host) and not _is_address(host):
            raise SetupFailed(f"--host {host!r} is neither a DNS name nor an IP address", HOST_NAME_INVALID)


def fleet_url(listen: HostPort, first_host: str) -> str:
    """Returns the URL at which clients find the fleet API: on this machine when it listens on loopback, else by the
    first --host.
    """
    return f"https://{dialled(listen, first_host)}"


def dialled(listen: HostPort | None, first_host: str) -> str:
    """Returns the `HOST:PORT` at which clients find a listener; empty when there is none."""
    if listen is None:
        return ""
    host = listen.host if is_loopback(listen.host) else first_host
    return f"{bracketed(host)}:{listen.port}"


def authority_of(config: ServerConfig) -> CertificateAuthority:
    """Returns the authority of a configuration's state folder, with its key.

    Raises:
        SetupFailed: there is none, or it cannot be used.
    """
    if config.tunnel.client_ca is not None:
        text = "certificates come from your own authority ([tunnel] client_ca): make them there"
        raise SetupFailed(text, AUTHORITY_IS_YOURS)
    try:
        return CertificateAuthority.load(authority_folder(config), config.tunnel.trust_domain)
    except CaMissing as error:
        raise SetupFailed(error.text, error.fault) from error


def bracketed(host: str) -> str:
    """Returns a host as it stands before a port: an IPv6 address in brackets."""
    return f"[{host}]" if ":" in host else host


# Internal


async def _record_admin(state: Path, login: str) -> None:
    """Records the first user, with the login in the first kubeconfig."""
    now = datetime.now(UTC)
    user = UserRecord(name=ADMIN, created=now, created_by=INIT, valid_from=now)
    token = UserToken(
        user=ADMIN, sha256=token_digest(login), created=now, expires=now + TOKEN_LIFE, created_by=INIT, purpose=LOGIN
    )
    store = await asyncio.to_thread(open_state, state)
    try:
        await store.commit(Change(USERS, ADMIN, user), Change(USER_TOKENS, token.sha256, token))
    finally:
        await store.aclose()


def _longline() -> str:
    """Returns the operator's program, for a kubeconfig of this machine: the one beside this program, or else its name
    for PATH.
    """
    beside = Path(sys.argv[0]).absolute().with_name("longline")
    return str(beside) if os.access(beside, os.X_OK) else "longline"


def _state_files(state: Path, keys: Path, authority: CertificateAuthority, hosts: Sequence[str]) -> list[NewFile]:
    """Returns the files that a server needs to start; `keys` is the folder of the authority, whose own come
    last: while they are missing, `init` may be typed again.
    """
    server = authority.issue_server(hosts)
    return [
        NewFile(keys / HOSTS_FILE, "".join(f"{host}\n" for host in hosts).encode(), PUBLIC),
        NewFile(state / SERVER_KEY_FILE, server.key_pem, SECRET),
        NewFile(state / SERVER_FILE, server.certificate_pem, PUBLIC),
        *authority.files(keys),
    ]


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
