"""Holds the rule for what a user may be called."""

from __future__ import annotations

import re

USER_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._@-]{0,62}[A-Za-z0-9])?")
USER_NAME_RULE = "1 to 64 of letters, digits, '.', '_', '@' and '-', not at the ends"
"""The rule in words, for messages."""


def is_user_name(text: str) -> bool:
    """Returns whether a text may name a user."""
    return USER_NAME.fullmatch(text) is not None
