"""A box's key is replaced while it is connected; and a server that somebody has taken cannot keep the box."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from pathlib import Path

import pytest

from cloud_server.trust.ca import CertificateAuthority
from edge_agent.identity.identity import Identity
from protos import tunnel_pb2
from tests.support.carriers import echo
from tests.support.cluster import Box, Cluster, cluster
from tests.support.enrolling import public_key_of
from tests.support.processes import command_result, run_command
from tests.support.tunnel import Tunnel, exchange, tunnel, wait_until
from tunnel.aio.carriers.carrier_server import CarrierServer
from tunnel.aio.identity.certificate import pem_blocks
from tunnel.aio.identity.peer_identity import Presented
from tunnel.aio.identity.tls_material import ServerTls
from tunnel.aio.operate.admin_client import AdminClient, AdminRefused, AdminUnreachable, unix_client

pytestmark = pytest.mark.e2e


def rotate(box: Box) -> str:
    return run_command("edge-agent", "rotate-key", "--config", str(box.config))


def key_of(box: Box) -> bytes:
    return (box.state / "agent.key").read_bytes()


def rotated(made: Tunnel) -> int:
    told = unix_client(made.cluster.config.parent / "admin.sock").get("events")["events"]
    return sum(event["kind"] == "rotated" for event in told)


def test_a_key_is_replaced_while_streams_run_and_the_old_one_is_worth_nothing() -> None:
    with tunnel(("echo",)) as made:
        box, before = made.box, key_of(made.box)
        stolen = {name: (box.state / name).read_bytes() for name in ("agent.key", "agent.crt")}
        with made.dial("echo") as stream:
            exchange(stream)
            assert rotate(box) == "box-7 has a new key, and a certificate for it\n"
            assert key_of(box) != before
            wait_until(lambda: rotated(made) == 1, "the server has seen the new key")
            exchange(stream)
            box.agent.kill()
            box.agent.start().wait_ready(30)
        box.agent.stop()
        for name, data in stolen.items():
            (box.state / name).write_bytes(data)
        seen = len(box.agent.log_text())
        box.agent.start().wait_for_log("LL2016", 20, after=seen)


def test_a_box_that_is_killed_while_it_rotates_works_with_one_of_its_keys() -> None:
    with tunnel(("echo",)) as made:
        box = made.box
        client = unix_client(box.state / "admin.sock")
        for pause_s in (0.0, 0.02, 0.05, 0.1, 0.2):
            asking = threading.Thread(target=ask_in_vain, args=(client,))
            asking.start()
            asking.join(pause_s)
            box.agent.kill()
            asking.join()
            box.agent.start().wait_ready(30)
            with made.dial("echo") as stream:
                exchange(stream)
        wait_until(lambda: not (box.state / "agent-next.key").exists(), "a key that was left is asked for", 30)
        with made.dial("echo") as stream:
            exchange(stream)


def ask_in_vain(client: AdminClient) -> None:
    with contextlib.suppress(AdminUnreachable, AdminRefused):
        client.call("POST", "rotate-key")


class Evil:
    """The enrollment of a taken server: every box is to trust an authority of the taker, too."""

    label = b"CERTIFICATE"
    """How that authority is written."""

    def __init__(self, state: Path, box: Box) -> None:
        self._authority = CertificateAuthority.load(state, "longline")
        self._evil = CertificateAuthority.create("EVIL CA")
        self._key = public_key_of(Identity(box.state))

    def boxes_left(self, _uri: str) -> int:
        raise NotImplementedError

    async def join(self, peer: Presented, request: tunnel_pb2.JoinRequest) -> tunnel_pb2.JoinResponse:
        raise NotImplementedError

    async def renew(self, peer: Presented, request: tunnel_pb2.RenewRequest) -> tunnel_pb2.RenewResponse:
        chain = pem_blocks(self._authority.issue_agent("box-7", self._key))
        ca_pem = self._authority.pem + self._evil.pem.replace(b"CERTIFICATE", self.label)
        return tunnel_pb2.RenewResponse(chain_der=chain, ca_pem=ca_pem, generation=request.turn.generation + 1)

    recover = renew


def facts(made: Cluster) -> list[str]:
    agent = unix_client(made.config.parent / "admin.sock").get("agents/box-7")
    return [fact["code"] for fact in agent["facts"]]


def test_a_taken_server_puts_no_box_under_its_own_authority() -> None:
    with cluster() as made:
        made.start()
        box = made.join("box-7")
        made.start_box("box-7")
        state, before = made.config.parent, (box.state / "ca.crt").read_bytes()
        made.server.stop()
        asyncio.run(_renewed_by_the_taken(made, state, box, before))
        assert (box.state / "ca.crt").read_bytes() == before
        box.agent.wait_for_log("LL2051")
        made.start()
        wait_until(lambda: "READY=1" in made.server.notify.states, "the server is the owner's again", 30)
        wait_until(lambda: facts(made) == ["LL2051"], "the cloud is told", 30)
        assert "has a fresh certificate" in run_command("edge-agent", "renew", "--config", str(box.config))
        wait_until(lambda: facts(made) == [], "the fact is over", 30)


async def _renewed_by_the_taken(made: Cluster, state: Path, box: Box, before: bytes) -> None:
    tls = ServerTls(certificate=state / "server.crt", key=state / "server.key", client_ca=state / "ca.crt")
    evil = await asyncio.to_thread(Evil, state, box)
    server = CarrierServer([made.tunnel_address], tls, echo, evil)
    await server.start()
    try:
        words = "edge-agent", "renew", "--config", str(box.config)
        for label in (b"X509 CERTIFICATE", b"TRUSTED CERTIFICATE"):
            evil.label = label
            await asyncio.to_thread(run_command, *words)
            assert await asyncio.to_thread((box.state / "ca.crt").read_bytes) == before
        evil.label = b"CERTIFICATE"
        done = await asyncio.to_thread(command_result, *words)
        assert done.returncode == 1
        assert "no authority that the box trusts has agreed to CN=Longline CA EVIL CA" in done.stderr
    finally:
        await server.stop(0)
