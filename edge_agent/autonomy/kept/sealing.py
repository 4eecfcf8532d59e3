"""Seals secret objects with AES-256-GCM, by a key in the state folder.

The key lies beside what it seals, so this protects copies of the database, such as in a backup, and not a stolen disk.
"""

from __future__ import annotations

import os
import secrets
from pathlib import Path
from typing import Protocol

from tunnel.aio.process.files import SECRET, NewFile, write_together
from tunnel.core.wire.faults import STATE_NOT_WRITABLE, FaultError

KEY = "autonomy.key"
KEY_BYTES = 32
NONCE_BYTES = 12
"""NIST SP 800-38D 8.2.2: at random ones a key may be used for 2^32 messages, which are 136 years of one each second."""


class SealingUnavailable(FaultError):
    """Secret objects cannot be sealed, and so are not kept; the text says why."""

    default_fault = STATE_NOT_WRITABLE


class _Aead(Protocol):
    def encrypt(self, nonce: bytes, data: bytes, associated_data: bytes | None) -> bytes: ...

    def decrypt(self, nonce: bytes, data: bytes, associated_data: bytes | None) -> bytes: ...


class Sealing:
    """A sealer of `Disk`."""

    def __init__(self, aead: _Aead) -> None:
        self._aead = aead

    @classmethod
    def of_folder(cls, folder: Path) -> Sealing:
        """Returns the sealer whose key is in a folder, where it is made when there is none. Blocks.

        Raises:
            SealingUnavailable: there is no key and none can be written, or the library cryptography is not here.
        """
        path = folder / KEY
        try:
            from cryptography.hazmat.primitives.ciphers.aead import AESGCM  # some MB, and not on every processor
        except ImportError as error:
            raise SealingUnavailable("secrets are not kept: the library cryptography is not here") from error
        try:
            key = path.read_bytes() if path.exists() else b""
            if len(key) != KEY_BYTES:
                key = secrets.token_bytes(KEY_BYTES)
                write_together([NewFile(path, key, SECRET)])
        except OSError as error:
            raise SealingUnavailable(f"secrets are not kept: {path}: {error.strerror}") from error
        return cls(AESGCM(key))

    def seal(self, plain: bytes, about: bytes) -> bytes:
        """Returns it encrypted; see `Sealer`."""
        nonce = os.urandom(NONCE_BYTES)
        return nonce + self._aead.encrypt(nonce, plain, about)

    def open(self, sealed: bytes, about: bytes) -> bytes:
        """Returns what was sealed; see `Sealer`."""
        from cryptography.exceptions import InvalidTag

        try:
            return self._aead.decrypt(sealed[:NONCE_BYTES], sealed[NONCE_BYTES:], about)
        except InvalidTag:
            raise ValueError("it was sealed by another key, about something else, or is damaged") from None
