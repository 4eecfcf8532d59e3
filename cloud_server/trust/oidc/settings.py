"""Whose ID tokens are taken, and who they make of their owner. Plain values; nothing is loaded for them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

ALGORITHMS: Final = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA")
"""What ID tokens may be signed with (RFC 7518 3.1, RFC 8037 3.1): only what has a public and a private key. `none` and
the HS family are not among them, and cannot be configured: whoever verifies those can also make them."""
DEFAULT_ALGORITHMS: Final = ("RS256", "ES256")
DEFAULT_PREFIX: Final = "oidc:"
"""No user of our own can have a name with a `:` in it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OidcSettings:
    """One issuer."""

    issuer: str
    """Its URL, as its tokens have it in `iss`, to the letter."""
    client_id: str
    """What `longline login` is called there."""
    audiences: tuple[str, ...]
    """One of which a token must be made for."""
    username_claim: str = "sub"
    unverified_email: bool = False
    """Whether a user may be named by an e-mail address that the issuer does not say it has verified."""
    username_prefix: str = DEFAULT_PREFIX
    groups_claim: str = "groups"
    groups_prefix: str = DEFAULT_PREFIX
    required_claims: Mapping[str, str] = field(default_factory=dict)
    """That a token must have with these values, such as `hd` of Google."""
    algorithms: tuple[str, ...] = DEFAULT_ALGORITHMS
    ca_file: Path | None = None
    """The authorities of the issuer's certificate; None: those that the system trusts."""
    leeway_s: float = 10.0
    """How far the issuer's clock may be ahead of ours."""
    scopes: tuple[str, ...] = ()
    """What `longline login` asks for."""
