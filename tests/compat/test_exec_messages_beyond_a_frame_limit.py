"""Exec sent WebSocket messages of 65,537 bytes: clients that take 64 KiB at a time gave up.

Reported as fabric8io/kubernetes-client#5036; lightkube has that limit too. A kubelet copies 32 KiB at a time.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import cast
from urllib.parse import urlencode

import pytest
import websocket
import yaml

from tests.compat.boxes import ME, OneBox, one_box
from tests.support.kubeconfig_files import client_context
from tests.support.tunnel import BOX
from tests.support.waits import scaled_s

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(120)]
LIMIT_BYTES = 32 * 1024
SIZE = 3_000_001


@pytest.fixture(scope="module")
def made() -> Iterator[OneBox]:
    with one_box({"exec": True, "user": ME}) as box:
        yield box


def exec_frames(made: OneBox, *command: str) -> list[websocket.ABNF]:
    """The data frames of a command's exec."""
    query = urlencode([*(("command", word) for word in command), ("stdout", "true"), ("stderr", "true")])
    kubeconfig = yaml.safe_load(made.kubeconfig.read_text())
    port = made.cluster.fleet_port
    client = websocket.create_connection(
        f"wss://127.0.0.1:{port}/api/v1/namespaces/default/pods/{BOX}/exec?{query}",
        sslopt={"context": client_context(kubeconfig)},
        subprotocols=["v5.channel.k8s.io"],
        timeout=scaled_s(30),
    )
    frames: list[websocket.ABNF] = []
    try:
        while (frame := client.recv_frame()).opcode != websocket.ABNF.OPCODE_CLOSE:  # type: ignore[no-untyped-call]
            if frame.opcode in (websocket.ABNF.OPCODE_BINARY, websocket.ABNF.OPCODE_CONT):
                frames.append(frame)
    finally:
        client.close()
    return frames


def test_no_message_is_longer_than_a_kubelets(made: OneBox) -> None:
    frames = exec_frames(made, "sh", "-c", f"yes long enough | head -c {SIZE}; yes | head -c {SIZE} >&2")
    messages = [cast("bytes", frame.data) for frame in frames]
    assert max(map(len, messages)) <= LIMIT_BYTES
    assert all(frame.fin and frame.opcode == websocket.ABNF.OPCODE_BINARY for frame in frames)
    out, err = (b"".join(data[1:] for data in messages if data[0] == channel) for channel in (1, 2))
    wanted = b"long enough\n" * (SIZE // 12 + 1)
    assert hashlib.sha256(out).digest() == hashlib.sha256(wanted[:SIZE]).digest()
    assert len(err) == SIZE
