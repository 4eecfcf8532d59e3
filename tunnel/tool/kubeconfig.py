"""Reads who the operator is and where their fleet is from kubeconfig files, merged as kubectl merges them.

KUBECONFIG may name several files. The first file that has a value wins, and so does the first cluster, user or context
of a name; files that are not there are left out; a path inside a file is relative to that file
(https://kubernetes.io/docs/concepts/configuration/organize-cluster-access-kubeconfig/#merging-kubeconfig-files).
A library that does this brings a whole client of Kubernetes along.
"""

from __future__ import annotations

import base64
import binascii
import os
import ssl
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import SplitResult, urlsplit

from tunnel.core.wire.faults import KUBECONFIG_UNUSABLE, PACKAGE_MISSING, FaultError
from tunnel.kubeapi.kubeconfig import BY_ISSUER, EXTENSION, LOGIN, PLUGIN

DEFAULT_FILE = Path("~/.kube/config")
MAX_FILE_BYTES = 4 * 1024 * 1024
"""The most bytes of a kubeconfig: a certificate takes some 2 KiB of it."""
_MAPS = {"clusters": "cluster", "users": "user", "contexts": "context"}

Section = Mapping[str, Any]


class KubeconfigUnusable(FaultError):
    """There is no kubeconfig that says who and where; the text says what to do."""

    default_fault = KUBECONFIG_UNUSABLE


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """One context of the kubeconfig: a fleet, and who uses it."""

    context: str
    server: str
    """The URL of the fleet API."""
    connect: str
    """HOST:PORT of the CONNECT listener, from the cluster's extension; "" where it says none."""
    files: tuple[Path, ...]
    """The kubeconfig files that were named, for a command that is started for us."""
    tls_name: str = ""
    """The name that the fleet API's certificate must have; "" is that of its URL."""
    proxy: str | None = None
    """The `proxy-url` of the cluster; None: what the environment says."""
    token: str = field(default="", repr=False)
    ca_pem: str = field(repr=False)
    """The authorities to trust; "" is those that the system trusts."""
    certificate_pem: bytes = field(default=b"", repr=False)
    """The user's certificate with its key; empty for a user with a token or a login."""
    login: str = field(default="", repr=False)
    """The login for which a certificate is fetched; empty for a user who has a certificate or a token."""
    login_server: str = ""
    """The server that the login's plugin names. A certificate is kept by it and the login."""
    issued: bool = False
    """Whether the user logs in at an issuer (`longline login`), and shows its ID tokens."""

    @property
    def url(self) -> SplitResult:
        """Returns the fleet API's URL in parts."""
        return urlsplit(self.server)

    @property
    def address(self) -> str:
        """Returns HOST:PORT of the fleet API."""
        url = self.url
        host = url.hostname or ""
        return f"[{host}]:{url.port or 443}" if ":" in host else f"{host}:{url.port or 443}"

    def bearer(self) -> str:
        """Returns the token to show, for a login at an issuer one that is good now; "" for none.

        Raises:
            KubeconfigUnusable: there is a login at an issuer, and no token to be had for it.
        """
        if not self.issued:
            return self.token
        from tunnel.tool.issuer import LoginRefused
        from tunnel.tool.oidc_login import id_token

        try:
            found = id_token(self.login_server)
        except LoginRefused as error:
            raise KubeconfigUnusable(error.text, error.fault) from error
        if found.warning:
            sys.stderr.write(f"warning: {found.warning}\n")
        return found.text

    def tls(self) -> ssl.SSLContext:
        """Returns a TLS context that trusts what the kubeconfig trusts, and shows its certificate if it has one.

        Raises:
            KubeconfigUnusable: its certificates cannot be used.
        """
        from tunnel.aio.identity.openssl import load_chain

        try:
            context = ssl.create_default_context(cadata=self.ca_pem or None)
            if pem := self.certificate_pem or self._logged_in():
                load_chain(context, pem)
        except (ssl.SSLError, ValueError) as error:
            raise KubeconfigUnusable(f"context {self.context}: its certificates cannot be used: {error}") from error
        context.set_alpn_protocols(["http/1.1"])
        return context

    def _logged_in(self) -> bytes:
        """Returns the certificate of the login with its key, as PEM; empty without a login."""
        if not self.login:
            return b""
        from tunnel.tool.login import LoginFailed, certificate_for

        try:
            held = certificate_for(self)
        except LoginFailed as error:
            raise KubeconfigUnusable(error.text, error.fault) from error
        if held.warning:
            sys.stderr.write(f"warning: {held.warning}\n")
        return held.pem


def kubeconfig_files(given: Path | None, environment: Mapping[str, str] = os.environ) -> list[Path]:
    """Returns the files to read: the one that was given, those of KUBECONFIG, or kubectl's own."""
    if given is not None:
        return [given]
    if named := environment.get("KUBECONFIG"):
        return [Path(part) for part in named.split(os.pathsep) if part]
    return [DEFAULT_FILE.expanduser()]


def load_access(files: Sequence[Path], context: str | None = None) -> Access:
    """Reads the files, merges them, and returns the context of this name; None is the current one.

    Raises:
        KubeconfigUnusable: they do not say who and where.
    """
    merged = _merged(files)
    where = ", ".join(map(str, files))
    name = context or merged["current-context"]
    if not name:
        raise KubeconfigUnusable(f"{where} has no current context: give one with --context")
    if not isinstance(name, str) or name not in merged["contexts"]:
        known = ", ".join(sorted(merged["contexts"])) or "none"
        raise KubeconfigUnusable(f"{where} has no context {name!r}, only: {known}")
    chosen = merged["contexts"][name]
    cluster = merged["clusters"].get(str(chosen.get("cluster")))
    user = merged["users"].get(str(chosen.get("user")))
    if cluster is None or user is None:
        what = "cluster" if cluster is None else "user"
        raise KubeconfigUnusable(f"{where}: context {name} names the {what} {chosen.get(what)!r}, which is not there")
    try:
        return _access(name, cluster, user, tuple(path.absolute() for path in files))
    except (TypeError, ValueError, UnicodeDecodeError, binascii.Error) as error:
        raise KubeconfigUnusable(f"{where}: context {name} is broken: {error}") from error


def read_file(path: Path) -> dict[str, Any]:
    """Returns the content of one file.

    Raises:
        KubeconfigUnusable: it is not there, cannot be read, or is no kubeconfig.
    """
    return _read(path, optional=False) or {}


# Internal


def _merged(files: Sequence[Path]) -> dict[str, Any]:
    merged: dict[str, Any] = {"current-context": "", **{kind: {} for kind in _MAPS}}
    found = False
    for path in files:
        config = _read(path, optional=len(files) > 1)
        if config is None:
            continue
        found = True
        merged["current-context"] = merged["current-context"] or config.get("current-context") or ""
        for kind, inner in _MAPS.items():
            for item in config.get(kind) or ():
                if not (isinstance(item, dict) and isinstance(item.get(inner), dict)):
                    raise KubeconfigUnusable(f"{path} is no kubeconfig: {kind} has an entry without a {inner}")
                if not isinstance(item.get("name"), str):
                    raise KubeconfigUnusable(f"{path} is no kubeconfig: {kind} has an entry whose name is no text")
                merged[kind].setdefault(item["name"], {**item[inner], "": path.absolute().parent})
    if not found:
        raise KubeconfigUnusable(f"there is no kubeconfig at {', '.join(map(str, files))}")
    return merged


def _read(path: Path, *, optional: bool) -> dict[str, Any] | None:
    """Returns the content of one file; None for one of several that is not there.

    Raises:
        KubeconfigUnusable: it is not there, cannot be read, or is no kubeconfig.
    """
    try:
        import yaml
    except ImportError as error:  # it has no wheels for 32-bit ARM
        raise KubeconfigUnusable(
            "a kubeconfig needs PyYAML, which is not installed: pip install pyyaml", PACKAGE_MISSING
        ) from error

    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise KubeconfigUnusable(f"{path} is no kubeconfig: it is larger than {MAX_FILE_BYTES >> 20} MiB")
        config = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        if optional:
            return None
        raise KubeconfigUnusable(
            f"{path} is not there: name your kubeconfig with --kubeconfig or KUBECONFIG (cloud-server user"
            " kubeconfig makes one)"
        ) from None
    except OSError as error:
        raise KubeconfigUnusable(f"{path} cannot be read: {error.strerror or error}") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # ValueError: no UTF-8, or a date that is none
        raise KubeconfigUnusable(f"{path} is no kubeconfig with a certificate or a token inside") from error
    if config is None:
        return {}
    if not isinstance(config, dict) or not all(isinstance(config.get(kind) or [], list) for kind in _MAPS):
        raise KubeconfigUnusable(f"{path} is no kubeconfig with a certificate or a token inside")
    return config


def _access(name: str, cluster: Section, user: Section, files: tuple[Path, ...]) -> Access:
    server = str(cluster.get("server") or "")
    url = urlsplit(server)
    if url.scheme != "https" or not url.hostname or url.port == 0:
        raise ValueError(f"server {server!r} is no https:// address")
    if cluster.get("insecure-skip-tls-verify"):
        raise ValueError(
            "insecure-skip-tls-verify would give your credentials to anybody: take the server's CA instead"
        )
    login_server, login = _login(user.get("exec"))
    issued = _issued(user.get("exec"))
    if (user.get("exec") and not login and not issued) or user.get("auth-provider"):
        text = "credentials from another plugin than longline's are not taken here"
        raise ValueError(f"{text}: use a kubeconfig of cloud-server user kubeconfig")
    certificate, key = _pem(user, "client-certificate"), _pem(user, "client-key")
    token = str(user.get("token") or "") or _file(user, "tokenFile").decode().strip()
    if not (certificate and key) and not token and not login and not issued:
        raise ValueError("its user has neither a login, nor a certificate with its key, nor a token")
    return Access(
        context=name,
        server=server,
        connect=_connect(cluster),
        files=files,
        tls_name=str(cluster.get("tls-server-name") or ""),
        proxy=str(cluster["proxy-url"]) if cluster.get("proxy-url") else None,
        token=token,
        ca_pem=_pem(cluster, "certificate-authority").decode("ascii"),
        certificate_pem=certificate + b"\n" + key if certificate and key else b"",
        login=login,
        login_server=login_server or issued,
        issued=bool(issued),
    )


def _login(plugin: object) -> tuple[str, str]:
    """Returns the server and the login of a plugin that is this program.

    Both are empty for any other plugin: none is ever started.
    """
    if not isinstance(plugin, dict) or Path(str(plugin.get("command") or "")).name != "longline":
        return "", ""
    words = plugin.get("args")
    if not isinstance(words, list) or len(words) != 3 or words[:2] != [PLUGIN, "--server"]:
        return "", ""
    for item in plugin.get("env") or ():
        if isinstance(item, dict) and item.get("name") == LOGIN and item.get("value"):
            return str(words[2]), str(item["value"])
    return str(words[2]), os.environ.get(LOGIN, "")


def _issued(plugin: object) -> str:
    """Returns the server of a plugin that is this program and has ID tokens; empty for any other plugin."""
    if not isinstance(plugin, dict) or Path(str(plugin.get("command") or "")).name != "longline":
        return ""
    words = plugin.get("args")
    known = isinstance(words, list) and len(words) == 4 and words[:3] == [PLUGIN, BY_ISSUER, "--server"]
    return str(words[3]) if known and isinstance(words, list) else ""


def _pem(section: Section, key: str) -> bytes:
    """Returns the PEM that stands inline, or in the file that is named; inline wins; b"" where there is neither."""
    inline = section.get(f"{key}-data")
    return base64.b64decode(str(inline), validate=True) if inline else _file(section, key)


def _file(section: Section, key: str) -> bytes:
    name = section.get(key)
    if not name:
        return b""
    path = Path(section[""], str(name))
    try:
        return path.read_bytes()
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror or error}") from error


def _connect(cluster: Section) -> str:
    for item in cluster.get("extensions") or ():
        if isinstance(item, dict) and item.get("name") == EXTENSION and isinstance(item.get("extension"), dict):
            return str(item["extension"].get("connect") or "")
    return ""
