from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from tests.support import waits
from tunnel.aio.carriers.native_log import (
    HandshakeFailed,
    NativeEvent,
    NativeMessage,
    RecordParser,
    Suppressed,
    enable_handshake_trace,
)
from tunnel.aio.carriers.native_log import _Rate as Rate
from tunnel.aio.carriers.native_log import _Reporter as Reporter
from tunnel.aio.sockets.handshake_fault import Cause, HandshakeFault

OK = (
    b"I1123 03:15:27.111823    5938 handshaker.cc:155] CallNextHandshakerLocked: error=OK shutdown=false index=1, "
    b"args={grpc.internal.endpoint_peer_address=ipv4:192.0.2.9:1, x=0}, exit_early=0}\n"
)
FAILED = (
    b"I1123 03:15:27.128446    5944 handshaker.cc:155] CallNextHandshakerLocked: error=UNKNOWN: Ssl handshake failed "
    b"(TSI_PROTOCOL_FAILURE): SSL_ERROR_SSL: error:1000007d:SSL routines:OPENSSL_internal:CERTIFICATE_VERIFY_FAILED: "
    b"certificate has expired: OK\n=== Source Location Trace: === \nsrc/core/util/status_helper.cc:68\n shutdown=false "
    b"index=2, args={grpc.internal.endpoint_local_address=ipv4:127.0.0.1:7443, "
    b"grpc.internal.endpoint_peer_address=ipv6:%5B2001:db8::7%5D:38564, grpc.so_reuseport=0}, exit_early=0}\n"
)
EXPIRED = HandshakeFailed(
    peer="[2001:db8::7]:38564", fault=HandshakeFault(Cause.EXPIRED, "its certificate has expired")
)


def test_a_failure_is_understood_however_it_is_cut() -> None:
    for cut in range(len(OK + FAILED + OK)):
        parser = RecordParser()
        events, foreign = parser.feed((OK + FAILED + OK)[:cut])
        more, more_foreign = parser.feed((OK + FAILED + OK)[cut:])
        last, last_foreign = parser.flush()
        assert events + more + last == [EXPIRED]
        assert foreign + more_foreign + last_foreign == b""


def test_other_output_is_passed_on() -> None:
    parser = RecordParser()
    assert parser.feed(b"double free\n" + OK + b"terminate called\n") == ([], b"double free\n")
    assert parser.flush() == ([], b"terminate called\n")
    assert parser.feed(FAILED + b"abort\n") == ([], b"")
    assert parser.flush() == ([EXPIRED], b"abort\n")
    parser.feed(b"E1123 03:15:27.128446    5944 server.cc:9] it broke\n")
    assert parser.flush() == ([NativeMessage(level="error", text="it broke")], b"")


def test_a_record_without_end_is_not_kept_for_ever() -> None:
    parser = RecordParser()
    parser.feed(b"x" * 100_000)
    assert parser.flush() == ([], b"")


def test_a_burst_passes() -> None:
    rate = Rate()
    assert sum(rate.allows(10.0) for _ in range(100)) == 20
    assert rate.allows(11.0)
    assert not rate.allows(11.0)


def test_a_flood_is_counted_by_cause(monkeypatch: pytest.MonkeyPatch) -> None:
    now_s = 10.0
    monkeypatch.setattr("tunnel.aio.carriers.native_log.time.monotonic", lambda: now_s)
    told: list[NativeEvent] = []
    reporter = Reporter(told.append, lambda _foreign: None)
    reporter.received(FAILED * 100)
    reporter.paused()
    assert told == [EXPIRED] * 20
    now_s = 11.0
    reporter.received(FAILED)
    reporter.paused()
    assert told[20:] == [Suppressed(handshakes=Counter({Cause.EXPIRED: 80}), others=0), EXPIRED]


def test_it_is_an_error_to_ask_too_late() -> None:
    import grpc  # noqa: F401

    with pytest.raises(RuntimeError, match="before"):
        enable_handshake_trace()


PROGRAM = """
import asyncio, json, os, sys
from tunnel.aio.carriers import native_log
native_log.enable_handshake_trace()
from tests.support.carriers import AGENT, cloud, echo
from tests.support.pki import Authority
from tunnel.aio.carriers.carrier import CarrierLost
import datetime as dt

async def main():
    original = os.dup(2)
    events, foreign = [], []
    async with native_log.capture(events.append, foreign.append):
        async with cloud(echo) as server:
            (await server.dial()).close()
            boxes = [
                Authority("foreign CA").issue(uris=[AGENT]),
                server.authority.issue(uris=[AGENT], ends_in=-dt.timedelta(days=1)),
            ]
            for box in boxes:
                try:
                    await server.dial(box)
                except CarrierLost:
                    pass
            os.write(original, b"python says\\n")
            os.write(2, b"native says\\n")
            await asyncio.sleep(0.5)
    await asyncio.sleep(0)
    seen = [event for event in events if isinstance(event, native_log.HandshakeFailed)]
    print(json.dumps([[event.peer, event.fault.text] for event in seen]))
    others = [event for event in events if not isinstance(event, native_log.HandshakeFailed)]
    assert not others, others
    assert foreign == [b"native says\\n"], foreign
    os.write(2, b"after\\n")
asyncio.run(main())
"""


def test_the_server_names_the_peer_whose_certificate_it_refused() -> None:
    """In a process of its own, since the trace is only heard before grpc is imported."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        capture_output=True,
        text=True,
        timeout=waits.scaled_s(30),
        env={**os.environ, "PYTHONPATH": str(Path.cwd())},
    )
    assert done.returncode == 0, done.stderr
    seen = json.loads(done.stdout.splitlines()[-1])
    reasons = [reason for peer, reason in seen if peer.startswith("127.0.0.1:")]
    foreign = "its certificate is not from an authority that is trusted here (foreign or old CA)"
    assert foreign in reasons
    assert "its certificate has expired" in reasons
    assert done.stderr.endswith("python says\nafter\n")


RELAYED = """
import asyncio, os
from tunnel.aio.carriers.native_log import relay

async def main():
    said = []
    async with relay(said.append):
        os.write(2, b"native says;")
    os.write(2, f"{said}".encode())
asyncio.run(main())
"""


@pytest.mark.parametrize(("verbosity", "expected"), [("none", "native says;[]"), ("DEBUG", "[b'native says;']")])
def test_a_core_that_is_asked_to_speak_never_waits_for_the_log(verbosity: str, expected: str) -> None:
    environment = {**os.environ, "PYTHONPATH": str(Path.cwd()), "GRPC_VERBOSITY": verbosity}
    done = subprocess.run([sys.executable, "-c", RELAYED], capture_output=True, text=True, timeout=30, env=environment)
    assert done.stderr == expected
