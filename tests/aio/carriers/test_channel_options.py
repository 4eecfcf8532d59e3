from __future__ import annotations

from pathlib import Path

import grpc
import pytest

from tunnel.aio.carriers.channel_options import OPTIONS, agent_options, cloud_options
from tunnel.core.wire.limits import MAX_MESSAGE_BYTES


@pytest.fixture(scope="module")
def core() -> bytes:
    """gRPC's own shared object: a name that it does not contain does nothing at all."""
    (shared_object,) = (Path(str(grpc.__file__)).parent / "_cython").glob("cygrpc*.so")
    return shared_object.read_bytes()


@pytest.mark.parametrize("name", [option.name for option in OPTIONS])
def test_grpc_knows_the_name(core: bytes, name: str) -> None:
    assert name.encode() + b"\0" in core


def test_names_that_grpc_proxies_need_are_known(core: bytes) -> None:
    for name in (b"grpc.http_proxy", b"grpc.enable_http_proxy"):
        assert b"\0" + name + b"\0" in core


def test_a_misspelt_name_would_be_noticed(core: bytes) -> None:
    assert b"grpc.http2.min_recv_ping_interval_without_data_ms" not in core


def test_each_option_is_named_once_and_has_a_reason() -> None:
    names = [option.name for option in OPTIONS]
    assert len(names) == len(set(names))
    assert all(option.why and (option.agent is not None or option.cloud is not None) for option in OPTIONS)


def test_values_that_others_rely_on() -> None:
    agent, cloud = dict(agent_options()), dict(cloud_options(100))
    assert cloud["grpc.so_reuseport"] == 1
    assert agent["grpc.use_local_subchannel_pool"] == 1
    for side in (agent, cloud):
        assert side["grpc.max_receive_message_length"] == side["grpc.max_send_message_length"] == MAX_MESSAGE_BYTES
        assert side["grpc.compression_enabled_algorithms_bitset"] == 1
        assert int(side["grpc.http2.lookahead_bytes"]) >= 16 * 2**20
        assert side["grpc.http2.bdp_probe"] == 0
    # The server must tolerate the pings that the agent sends.
    assert int(agent["grpc.keepalive_time_ms"]) <= 25_000  # some load balancers forget what was silent for 30 s
    assert int(cloud["grpc.http2.min_ping_interval_without_data_ms"]) < int(agent["grpc.keepalive_time_ms"])
