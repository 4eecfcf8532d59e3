"""Kubeconfig files: which are read, how they are merged, and what is said of those that cannot be used."""

from __future__ import annotations

import base64
import copy
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.pki import Authority
from tunnel.tool.kubeconfig import Access, KubeconfigUnusable, kubeconfig_files, load_access


def config(**changes: Any) -> dict[str, Any]:
    """A kubeconfig with a token."""
    return {
        "current-context": "a",
        "clusters": [{"name": "a", "cluster": {"server": "https://a:6443"}}],
        "users": [{"name": "a", "user": {"token": "t"}}],
        "contexts": [{"name": "a", "context": {"cluster": "a", "user": "a"}}],
        **changes,
    }


def load(tmp_path: Path, *configs: object, context: str | None = None) -> Access:
    paths = []
    for number, one in enumerate(configs):
        paths.append(tmp_path / f"{number}.yaml")
        paths[-1].write_text(yaml.safe_dump(one))
    return load_access(paths, context)


def test_which_files(tmp_path: Path) -> None:
    assert kubeconfig_files(tmp_path / "x", {"KUBECONFIG": "y"}) == [tmp_path / "x"]
    assert kubeconfig_files(None, {"KUBECONFIG": "y::z"}) == [Path("y"), Path("z")]
    assert kubeconfig_files(None, {}) == [Path("~/.kube/config").expanduser()]


def test_the_first_file_wins_for_each_name(tmp_path: Path) -> None:
    first = config(users=None, **{"current-context": ""})
    second = config(
        clusters=[{"name": "a", "cluster": {"server": "https://other:1"}}],
        contexts=[
            {"name": "a", "context": {"cluster": "b", "user": "b"}},
            {"name": "b", "context": {"cluster": "a", "user": "a"}},
        ],
        **{"current-context": "b"},
    )
    access = load(tmp_path, first, second)
    assert (access.context, access.server, access.token) == ("b", "https://a:6443", "t")
    assert load(tmp_path, first, second, context="a").server == "https://a:6443"


def test_one_of_several_that_is_not_there_is_left_out(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(yaml.safe_dump(config()))
    assert load_access([tmp_path / "none.yaml", tmp_path / "a.yaml"]).token == "t"
    with pytest.raises(KubeconfigUnusable, match=r"none\.yaml is not there: name your kubeconfig"):
        load_access([tmp_path / "none.yaml"])
    with pytest.raises(KubeconfigUnusable, match="there is no kubeconfig at"):
        load_access([tmp_path / "none.yaml", tmp_path / "nor.yaml"])


def test_files_are_relative_to_the_kubeconfig_and_what_stands_inside_wins(tmp_path: Path) -> None:
    authority = Authority()
    me = authority.issue(uris=["spiffe://longline/user/me"])
    folder = tmp_path / "keys"
    folder.mkdir()
    (folder / "ca.crt").write_bytes(authority.pem)
    (folder / "me.crt").write_bytes(me.certificate_pem)
    (folder / "me.key").write_bytes(me.key_pem)
    (folder / "token").write_text("from a file\n")
    user = {"client-certificate": "me.crt", "client-key": "me.key", "tokenFile": "token"}
    cluster = {
        "server": "https://a:6443",
        "certificate-authority": "ca.crt",
        "tls-server-name": "b",
        "proxy-url": "http://p:1",
    }
    made = config(clusters=[{"name": "a", "cluster": cluster}], users=[{"name": "a", "user": user}])
    access = load(folder, made)
    assert access.tls().get_ca_certs()
    assert (access.token, access.tls_name, access.proxy) == ("from a file", "b", "http://p:1")
    assert me.key_pem.decode() not in repr(access)
    inside = copy.deepcopy(made)
    inside["users"][0]["user"]["client-key-data"] = base64.b64encode(b"no key").decode()
    with pytest.raises(KubeconfigUnusable, match="its certificates cannot be used"):
        load(folder, inside).tls()


def test_the_connect_listener(tmp_path: Path) -> None:
    cluster = {
        "server": "https://a",
        "extensions": [{"name": "x"}, {"name": "longline", "extension": {"connect": "a:7444"}}],
    }
    access = load(tmp_path, config(clusters=[{"name": "a", "cluster": cluster}]))
    assert (access.connect, access.address) == ("a:7444", "a:443")


@pytest.mark.parametrize(
    ("made", "says"),
    [
        ("just text", "is no kubeconfig"),
        ("[" * 2000, "is no kubeconfig"),
        ("{a: " * 2000, "is no kubeconfig"),
        ("when: 2026-13-45", "is no kubeconfig"),
        (config(clusters={}), "cluster 'a', which is not there"),
        (config(contexts=[{"context": {}}]), "contexts has an entry whose name is no text"),
        (config(contexts=[{"name": "a", "context": {"cluster": [], "user": {}}}]), "which is not there"),
        (config(clusters=["a"]), "clusters has an entry without a cluster"),
        (config(clusters="a"), "is no kubeconfig"),
        (config(**{"current-context": ""}), "has no current context"),
        (config(**{"current-context": "b"}), "has no context 'b', only: a"),
        (config(users=[{"name": "a", "user": {}}]), "neither a login, nor a certificate with its key"),
        (config(users=[{"name": "a", "user": {"exec": {"command": "x"}}}]), "credentials from another plugin"),
        (
            config(users=[{"name": "a", "user": {"exec": {"command": "longline", "args": ["x"]}}}]),
            "from another plugin",
        ),
        (config(users=[{"name": "a", "user": {"tokenFile": "none"}}]), "none cannot be read: No such file"),
        (config(clusters=[{"name": "a", "cluster": {"server": "http://a"}}]), "no https:// address"),
        (config(clusters=[{"name": "a", "cluster": {"server": "https://a:x"}}]), "is broken"),
        (
            config(clusters=[{"name": "a", "cluster": {"server": "https://a", "insecure-skip-tls-verify": True}}]),
            "insecure",
        ),
        (
            config(clusters=[{"name": "a", "cluster": {"server": "https://a", "certificate-authority-data": "%"}}]),
            "broken",
        ),
    ],
)
def test_what_cannot_be_used(tmp_path: Path, made: object, says: str) -> None:
    with pytest.raises(KubeconfigUnusable, match=says):
        load(tmp_path, made)


def test_no_yaml(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("{unclosed: [")
    with pytest.raises(KubeconfigUnusable, match="is no kubeconfig"):
        load_access([tmp_path / "a.yaml"])
    (tmp_path / "a.yaml").write_bytes(b"\xff\xfe")
    with pytest.raises(KubeconfigUnusable, match="is no kubeconfig"):
        load_access([tmp_path / "a.yaml"])
