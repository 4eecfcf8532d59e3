"""What commands hand out: tokens and kubeconfigs, each for a name that may be one."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from cloud_server.administer import administer
from cloud_server.config import load_server_config
from cloud_server.issuing import cluster_kubeconfig, create_join_token, create_user_token, user_kubeconfig
from cloud_server.setup import SetupFailed, init_state
from cloud_server.trust.administration import Administration
from cloud_server.trust.administration_failed import AdministrationFailed
from cloud_server.trust.authenticator import Authenticator
from cloud_server.trust.state import open_state
from cloud_server.trust.users import Users
from tunnel.aio.identity.join_token import JoinToken

HOUR = timedelta(hours=1)


@pytest.fixture
def state(tmp_path: Path) -> Path:
    folder = tmp_path / "a" / "cloud"
    init_state(folder, ["cloud.example.com", "192.0.2.1"])
    return folder


def agents_of(config: Path) -> list[str]:
    async def names(records: Administration) -> list[str]:
        return [one.name for one in records.agents()]

    return administer(load_server_config(config), names)


def test_a_join_token_says_who_and_until_when(state: Path) -> None:
    text = create_join_token(state / "cloud-server.toml", "box-7", HOUR)
    assert "\n" not in text
    token = JoinToken.decode(text)
    assert token.agent == "box-7"
    assert token.ca_pem == (state / "ca.crt").read_bytes()


@pytest.mark.parametrize("name", ["", "Box", "a.b", "-a", "a/b", "$(id)", "a\n", "x" * 10_000])
def test_names_that_no_agent_can_have(state: Path, name: str) -> None:
    with pytest.raises(AdministrationFailed, match="cannot name an agent") as caught:
        create_join_token(state / "cloud-server.toml", name, HOUR)
    assert len(str(caught.value)) < 300


def test_a_users_token_is_known_to_the_server_and_kept_by_nobody(state: Path) -> None:
    token = create_user_token(load_server_config(state / "cloud-server.toml"), "admin", HOUR)
    store = open_state(state)
    caller = Authenticator("longline", Users(store)).by_token(token)
    assert caller is not None
    assert caller.name == "admin"
    store.close()
    assert all(token.encode() not in path.read_bytes() for path in state.rglob("*") if path.is_file())


def test_names_that_no_user_can_have(state: Path) -> None:
    for name in ("", "a/b", "../x", "system:masters", "a\n"):
        with pytest.raises(AdministrationFailed, match="cannot name a user"):
            user_kubeconfig(state / "cloud-server.toml", name, HOUR)


def test_kubeconfigs_made_later_point_at_the_first_host(state: Path) -> None:
    path = state / "cloud-server.toml"
    path.write_text("[fleet]\nlisten = '0.0.0.0:7445'\n")
    assert "https://cloud.example.com:7445" in (made := user_kubeconfig(path, "admin", HOUR))
    assert "extensions" not in made
    path.write_text("[fleet]\nlisten = '0.0.0.0:7445'\n[connect]\nlisten = '0.0.0.0:7444'\n")
    assert "connect: cloud.example.com:7444" in user_kubeconfig(path, "admin", HOUR)
    (state / "hosts").write_text("")
    with pytest.raises(SetupFailed, match="hosts is empty"):
        user_kubeconfig(path, "admin", HOUR)
    (state / "hosts").unlink()
    with pytest.raises(SetupFailed, match="hosts cannot be read"):
        user_kubeconfig(path, "admin", HOUR)
    path.write_text("")
    with pytest.raises(SetupFailed, match=r"has no \[fleet\] listen"):
        user_kubeconfig(path, "admin", HOUR)


def test_with_ones_own_authority_certificates_are_made_there(state: Path) -> None:
    path = state / "cloud-server.toml"
    path.write_text("[tunnel]\ncertificate = 'a'\nkey = 'b'\nclient_ca = 'c'\n[fleet]\nlisten = '127.0.0.1:1'\n")
    with pytest.raises(AdministrationFailed, match="your own authority"):
        create_join_token(path, "box-7", HOUR)
    with pytest.raises(SetupFailed, match="your own authority"):
        user_kubeconfig(path, "admin", HOUR)


def test_without_init_there_is_no_token(tmp_path: Path) -> None:
    path = tmp_path / "cloud-server.toml"
    path.write_text("")
    with pytest.raises(AdministrationFailed, match="run cloud-server init"):
        create_join_token(path, "box-7", HOUR)
    assert agents_of(path) == []


def test_a_site_with_a_slip_of_the_finger(state: Path) -> None:
    path = state / "cloud-server.toml"
    path.write_text("[[cluster]]\nname = 'site-a'\nkubeconfig = 'a.kubeconfig'\n")
    with pytest.raises(SetupFailed, match=r"no \[\[cluster\]\] of the name 'site-b', did you mean site-a\?"):
        cluster_kubeconfig(path, "admin", "site-b", HOUR)
