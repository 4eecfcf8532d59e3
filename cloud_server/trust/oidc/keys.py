"""Holds the public keys of an issuer, as its JWKS has them (RFC 7517), each bound to the algorithms that it is for."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from cryptography.exceptions import UnsupportedAlgorithm
from jwt import PyJWK
from jwt.exceptions import PyJWTError

MAX_KEYS = 32
"""The most keys of one issuer: Google has two or three, Entra some ten."""
MAX_KID_CHARS = 256
_OF_CURVE = {"P-256": "ES256", "P-384": "ES384", "P-521": "ES512"}
_OF_RSA = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512")


class KeySet:
    """The keys of one JWKS. They never change; each document makes a new set."""

    def __init__(self, document: Mapping[str, Any], allowed: Collection[str]) -> None:
        """Reads the keys of a JWKS.

        `allowed` are the algorithms that tokens may be signed with; a key for none of them is left out.

        Raises:
            ValueError: the document is no JWKS, or has too many keys.
        """
        items = document.get("keys")
        if not isinstance(items, list):
            raise ValueError("it has no list of keys")  # noqa: TRY004 - a fault of the document
        if len(items) > MAX_KEYS:
            raise ValueError(f"it has more than {MAX_KEYS} keys")
        self._keys: dict[tuple[str, str], PyJWK] = {}
        for index, item in enumerate(items):
            kid = item.get("kid") if isinstance(item, dict) else None
            name = kid if isinstance(kid, str) and len(kid) <= MAX_KID_CHARS else f"\0{index}"
            for algorithm in _algorithms(item):
                if algorithm in allowed and (key := _key(item, algorithm)) is not None:
                    self._keys[name, algorithm] = key
        self.kids = frozenset(name for name, _ in self._keys)
        self.content = frozenset((name, algorithm, repr(_public(key))) for (name, algorithm), key in self._keys.items())
        """What tells two sets apart: the names, algorithms and numbers of their keys."""

    def __len__(self) -> int:
        return len(self.kids)

    def matching(self, kid: str | None, algorithm: str) -> Sequence[PyJWK]:
        """Returns the keys that a token may be signed with.

        For a token that names no key these are all of its algorithm.
        """
        if kid is not None:
            key = self._keys.get((kid, algorithm))
            return () if key is None else (key,)
        return [key for (_, other), key in self._keys.items() if other == algorithm]


# Internal


def _algorithms(item: object) -> Iterator[str]:
    """Yields the algorithms that a key of the document may be used for.

    An HMAC is never among them: its key would be this public text.
    """
    if not isinstance(item, dict) or item.get("use", "sig") != "sig":
        return
    named = item.get("alg")
    match item.get("kty"):
        case "RSA":
            fitting: Sequence[str] = _OF_RSA
        case "EC":
            fitting = tuple(alg for curve, alg in _OF_CURVE.items() if curve == item.get("crv"))
        case "OKP":
            fitting = ("EdDSA",)
        case _:
            return
    yield from (one for one in fitting if named is None or one == named)


def _key(item: dict[str, Any], algorithm: str) -> PyJWK | None:
    try:
        return PyJWK(_public_part(item), algorithm)
    except (
        PyJWTError,
        UnsupportedAlgorithm,
        ValueError,
        TypeError,
        AttributeError,
    ):  # one broken key takes no other with it
        return None


def _public_part(item: dict[str, Any]) -> dict[str, Any]:
    return {name: item[name] for name in ("kty", "crv", "n", "e", "x", "y", "kid") if name in item}


def _public(key: PyJWK) -> object:
    numbers = getattr(key.key, "public_numbers", None)
    return numbers() if numbers is not None else key.key.public_bytes_raw()
