"""What libraries say of a handshake that failed, and what it is counted as; test_listener.py has real ones."""

from __future__ import annotations

import pytest

from tunnel.aio.sockets.handshake_fault import Cause, understood


@pytest.mark.parametrize(
    ("text", "cause", "told"),
    [
        ("SSL routines:OPENSSL_internal:CERTIFICATE_VERIFY_FAILED: certificate has expired", Cause.EXPIRED, "expired"),
        ("CERTIFICATE_VERIFY_FAILED: CRL signature failure", Cause.BAD_CERTIFICATE, "CRL signature failure"),
        ("PEER_DID_NOT_RETURN_A_CERTIFICATE", Cause.NO_CERTIFICATE, "presented no certificate"),
        ("SSLV3_ALERT_CERTIFICATE_EXPIRED", Cause.OURS_REFUSED, "for expired"),
        ("TLSV1_ALERT_UNKNOWN_CA", Cause.OURS_REFUSED, "does not trust"),
        ("Handshake timed out", Cause.TIMED_OUT, "silent"),
        ("Socket closed", Cause.LEFT, "closed"),
        ("BAD_RECORD_TYPE", Cause.PROTOCOL, "BAD_RECORD_TYPE"),
        ("x" * 5000, Cause.PROTOCOL, "x" * 300),
    ],
)
def test_a_text_is_understood(text: str, cause: Cause, told: str) -> None:
    fault = understood(text)
    assert fault.cause is cause
    assert told in fault.text
    assert len(fault.text) <= 300


def test_what_somebody_must_mend_and_where_a_clock_may_be_wrong() -> None:
    assert understood("certificate has expired").of_certificate
    assert understood("certificate has expired").of_time
    assert understood("SSLV3_ALERT_CERTIFICATE_EXPIRED").of_time
    assert not understood("TLSV1_ALERT_UNKNOWN_CA").of_time
    assert not understood("WRONG_VERSION_NUMBER").of_certificate
