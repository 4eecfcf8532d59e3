"""Tells what a user, and a group of users, may be called."""

from __future__ import annotations

import re

USER_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._@-]{0,62}[A-Za-z0-9])?")
USER_NAME_RULE = "1 to 64 of letters, digits, '.', '_', '@' and '-', not at the ends"
"""The rule in words, for messages."""

GROUP_NAME = re.compile(r"(?!system:)[A-Za-z0-9/]([A-Za-z0-9._@:/-]{0,126}[A-Za-z0-9])?")
GROUP_NAME_RULE = "1 to 128 of letters, digits, '.', '_', '@', ':', '/' and '-', and nothing that begins with system:"


def is_group_name(text: str) -> bool:
    """Returns whether a text may name a group. Names that begin with `system:` may not: they are built in."""
    return GROUP_NAME.fullmatch(text) is not None


def is_user_name(text: str) -> bool:
    """Returns whether a text may name a user."""
    return USER_NAME.fullmatch(text) is not None
