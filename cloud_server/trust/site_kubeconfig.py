"""Makes a kubeconfig for a site's own API server, through the CONNECT front end: TLS runs end to end inside the
proxy's.

The client trusts what the site's kubeconfig trusts, and beside it exactly one more certificate: the front end's own, as
itself, not the authority that signed it; and only while that has no name that the site's API server is checked for. So
nobody in between can pass for the site's API server.
"""

from __future__ import annotations

import base64
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import yaml
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from tunnel.core.wire.faults import SITE_KUBECONFIG_UNUSABLE, FaultError

_CLUSTER_FILES = ("certificate-authority",)
_USER_FILES = ("client-certificate", "client-key")


class SiteUnusable(FaultError):
    """The site's kubeconfig cannot be used; the text says why."""

    default_fault = SITE_KUBECONFIG_UNUSABLE


@dataclass(frozen=True, slots=True)
class Site:
    """The current context of a site's kubeconfig, with all files inside."""

    cluster: dict[str, Any]
    user_name: str
    user: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Through:
    """The way to a site, through the front end and an agent."""

    proxy: str
    """The `host:port` of the front end."""
    agent: str
    certificate_pem: bytes
    """The front end's certificate; what else is in this PEM, such as its key, stays out of the kubeconfig."""


def read_site(path: Path) -> Site:
    """Reads the kubeconfig that is used at the site.

    Raises:
        SiteUnusable: it has no usable current context.
        OSError: it, or a file that it names, cannot be read.
    """
    try:
        config = yaml.safe_load(path.read_text())
        context = _named(config["contexts"], config["current-context"])["context"]
        cluster = _inlined(_named(config["clusters"], context["cluster"])["cluster"], _CLUSTER_FILES, path.parent)
        users = [entry for entry in config.get("users") or [] if entry["name"] == context.get("user")]
        user = _inlined(users[0].get("user") or {}, _USER_FILES, path.parent) if users else {}
    except (yaml.YAMLError, ValueError, TypeError, AttributeError, LookupError, RecursionError) as fault:
        raise SiteUnusable(f"{path} is no kubeconfig with a current context ({type(fault).__name__})") from fault
    if not cluster.get("certificate-authority-data"):
        raise SiteUnusable(f"{path}: its cluster has no certificate-authority: TLS to the site could not be checked")
    return Site(cluster, str(context.get("user") or "user"), user)


def site_kubeconfig(site: Site, name: str, through: Through, token: str) -> str:
    """Returns the text of the file, in which everything is called `name`.

    The name in the proxy's URL makes the server's address one of the site: the URL stays as it is used there, and with
    it the name that the API server's certificate is checked for. Ask `check_names` before.
    """
    leaf = x509.load_pem_x509_certificate(through.certificate_pem).public_bytes(serialization.Encoding.PEM)
    trusted = base64.b64decode(site.cluster["certificate-authority-data"]).rstrip() + b"\n" + leaf
    cluster = {
        **site.cluster,
        "certificate-authority-data": base64.b64encode(trusted).decode(),
        "proxy-url": f"https://{through.agent}.longline:{token}@{through.proxy}",
    }
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": name, "cluster": cluster}],
        "users": [{"name": f"{name}-{site.user_name}", "user": site.user}],
        "contexts": [{"name": name, "context": {"cluster": name, "user": f"{name}-{site.user_name}"}}],
        "current-context": name,
    }
    return yaml.safe_dump(config, sort_keys=False)


def check_names(site: Site, certificate_pem: bytes) -> None:
    """Makes sure that the front end's certificate cannot stand for the site's API server.

    Raises:
        SiteUnusable: it could; the text says what to do.
    """
    if site.cluster.get("tls-server-name"):
        raise SiteUnusable(
            "the site's kubeconfig has tls-server-name, for which kubectl would check the proxy too: "
            "let its server be a name or address that the API server's certificate has"
        )
    host = (urlsplit(str(site.cluster.get("server"))).hostname or "").lower()
    names, addresses = _names_of(certificate_pem)
    if host in names | addresses or f"*.{host.partition('.')[2]}" in names:
        raise SiteUnusable(
            f"{host} is a name of this server too, which could then pass for the site's API server: let the site's "
            "kubeconfig have another name or address as its server, one that the API server's certificate has"
        )


def _names_of(certificate_pem: bytes) -> tuple[set[str], set[str]]:
    certificate = x509.load_pem_x509_certificate(certificate_pem)
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return (
        {name.lower() for name in names.get_values_for_type(x509.DNSName)},
        {str(address) for address in names.get_values_for_type(x509.IPAddress)},
    )


def _named(entries: list[dict[str, Any]], name: str) -> dict[str, Any]:
    for entry in entries:
        if entry["name"] == name:
            return entry
    raise LookupError(name)


def _inlined(values: dict[str, Any], names: tuple[str, ...], folder: Path) -> dict[str, Any]:
    """Returns the values with what stands in files of its own put inside, so that the result can be carried away."""
    inside = dict(values)
    for name in names:
        if file := inside.pop(name, None):
            inside[f"{name}-data"] = base64.b64encode((folder / file).read_bytes()).decode()
    return inside
