"""`HTTPS_PROXY` and `https_proxy=socks5://...` were dialled around; a dead proxy was blamed on the server."""

from __future__ import annotations

import stat
import subprocess
from collections.abc import Iterator

import pytest

from tests.support.cluster import Cluster, cluster
from tests.support.connect_proxy import proxy_beside
from tests.support.processes import BIN, ProcessFailed, command_result, environment, run_command
from tests.support.tunnel import tunnel
from tests.support.waits import scaled_s

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def cloud() -> Iterator[Cluster]:
    with cluster() as made:
        made.start()
        yield made


def joining(made: Cluster, name: str, *words: str) -> list[str]:
    where = ["--server", made.tunnel_address, "--token-file", str(made.token(name))]
    return ["edge-agent", "join", *where, "--state", str(made.folder / name), *words]


@pytest.mark.parametrize("variable", ["HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"])
def test_a_join_goes_through_the_proxy_of_the_environment_and_so_does_the_agent(cloud: Cluster, variable: str) -> None:
    name = f"box-{variable.lower().replace('_', '-')}-{variable[0].isupper():d}"
    with proxy_beside() as proxy:
        url = f"http://me:secret@127.0.0.1:{proxy.port}"
        box = cloud.join(name, prefix=["env", f"{variable}={url}"])
        assert proxy.requests == [cloud.tunnel_address]
        assert f'proxy = "{url}"' in box.config.read_text()
        checked = run_command("edge-agent", "check", "--config", str(box.config))
        assert f"through the proxy 127.0.0.1:{proxy.port} (from [cloud] proxy)" in checked
        assert "secret" not in checked
        cloud.start_box(name)
        assert proxy.requests == [cloud.tunnel_address] * 2
        assert set(proxy.credentials) == {"Basic bWU6c2VjcmV0"}
        box.agent.stop()
        assert "secret" not in box.agent.log_text()


def test_the_configuration_with_a_password_in_it_is_for_its_owner_alone(cloud: Cluster) -> None:
    with proxy_beside() as proxy:
        run_command(*joining(cloud, "box-p"), prefix=["env", f"https_proxy=http://me:secret@127.0.0.1:{proxy.port}"])
    assert stat.S_IMODE((cloud.folder / "box-p" / "edge-agent.toml").stat().st_mode) == 0o600
    refused = command_result(*joining(cloud, "box-q", "--proxy", "http://me:secret@127.0.0.1:1"))
    assert refused.returncode == 2
    assert "set https_proxy" in refused.stderr


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["HTTPS_PROXY=socks5://127.0.0.1:1080"], "HTTPS_PROXY names a SOCKS proxy (socks5://)"),
        (["https_proxy=https://127.0.0.1:1"], "https_proxy names a proxy behind TLS"),
        (["all_proxy=http://:1"], "all_proxy is no proxy"),
        (["https_proxy=127.0.0.1:1"], "the proxy 127.0.0.1:1 (from https_proxy): 127.0.0.1: connection refused"),
    ],
)
def test_what_cannot_be_used_is_named_and_nothing_is_dialled_around_it(
    cloud: Cluster, words: list[str], said: str
) -> None:
    done = command_result(*joining(cloud, "box-r"), prefix=["env", *words])
    assert done.returncode == 1
    assert said in done.stderr
    assert not (cloud.folder / "box-r").exists()


def test_a_dead_proxy_is_not_blamed_on_the_server(cloud: Cluster) -> None:
    box = cloud.join("box-d")
    box.configure({"cloud": {"proxy": "http://127.0.0.1:1"}})
    box.agent.start()
    hop = "no TCP connection to the proxy 127.0.0.1:1 (from [cloud] proxy): 127.0.0.1: connection refused"
    box.agent.wait_for_log(hop, 15)
    assert "nothing listens there" not in box.agent.log_text()
    with pytest.raises(ProcessFailed):
        box.agent.wait_ready(0.1)
    box.agent.stop()


def test_longline_connect_goes_through_it_too() -> None:
    with tunnel(("echo",)) as made, proxy_beside() as proxy, proxy_beside("407 Who are you") as other:
        port = made.targets["echo"].port
        kubeconfig = made.cluster.kubeconfig("ann")
        via = f"127.0.0.1:{made.cluster.connect_port}"
        words = ["connect", "--via", via, "--kubeconfig", str(kubeconfig), f"{made.box.name}:{port}"]

        def connect(variables: dict[str, str], *more: str) -> subprocess.CompletedProcess[bytes]:
            command = [str(BIN / "longline"), *words, *more]
            own = environment(variables)
            return subprocess.run(command, input=b"hello", env=own, capture_output=True, timeout=scaled_s(30))

        assert connect({"HTTPS_PROXY": f"http://127.0.0.1:{proxy.port}"}).stdout == b"hello"
        assert connect({}, "--proxy", f"127.0.0.1:{proxy.port}").stdout == b"hello"
        assert proxy.requests == [via, via]
        assert connect({"HTTPS_PROXY": f"127.0.0.1:{proxy.port}", "NO_PROXY": "127.0.0.1"}).stdout == b"hello"
        assert len(proxy.requests) == 2
        refused = connect({"https_proxy": f"127.0.0.1:{other.port}"})
        assert refused.returncode == 1
        assert b"answered 407 Who are you: it wants a user and a password" in refused.stderr
        dead = connect({"https_proxy": "127.0.0.1:1"})
        assert b"the proxy 127.0.0.1:1 (from https_proxy): connection refused" in dead.stderr
        assert b"https_proxy names a SOCKS proxy" in connect({"https_proxy": "socks5://h:1"}).stderr
