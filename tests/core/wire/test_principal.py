"""tunnel.core.wire.principal: how somebody is written."""

from __future__ import annotations

from tunnel.core.wire.principal import Principal, PrincipalKind


def test_a_principal_is_written_as_kind_and_name() -> None:
    assert str(Principal(kind=PrincipalKind.USER, name="ann")) == "user:ann"
    assert str(Principal(kind=PrincipalKind.STATIC_FORWARD, name="127.0.0.1:2222")) == "static_forward:127.0.0.1:2222"
