"""Declares which issuer's ID tokens are taken, and which user a token stands for.

They are plain values; nothing is loaded for them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

ALGORITHMS: Final = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA")
"""The algorithms that ID tokens may be signed with (RFC 7518 3.1, RFC 8037 3.1): only those with a public and a private
key. `none` and the HS family are not among them, and cannot be configured: whoever verifies those can also make
them."""
DEFAULT_ALGORITHMS: Final = ("RS256", "ES256")
DEFAULT_PREFIX: Final = "oidc:"
"""The beginning of the names of its users. No user of our own can have a name with a `:` in it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OidcSettings:
    """One issuer, and how its tokens are read."""

    issuer: str
    """The URL of the issuer, exactly as its tokens have it in `iss`."""
    client_id: str
    """The name that `longline login` has at the issuer."""
    audiences: tuple[str, ...]
    """The audiences, of which a token must be made for one."""
    username_claim: str = "sub"
    unverified_email: bool = False
    """Whether a user may be named by an e-mail address that the issuer does not say it has verified."""
    username_prefix: str = DEFAULT_PREFIX
    groups_claim: str = "groups"
    groups_prefix: str = DEFAULT_PREFIX
    required_claims: Mapping[str, str] = field(default_factory=dict)
    """Claims that a token must have with these values, such as `hd` of Google."""
    algorithms: tuple[str, ...] = DEFAULT_ALGORITHMS
    ca_file: Path | None = None
    """The file of authorities for the issuer's certificate; None for those that the system trusts."""
    leeway_s: float = 10.0
    """Seconds that the issuer's clock may be ahead of ours."""
    scopes: tuple[str, ...] = ()
    """The scopes that `longline login` asks for."""
