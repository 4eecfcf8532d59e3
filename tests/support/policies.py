"""Policies for tests: the users that most of them act as, who may do all, and files written on the spot."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

from cloud_server.opens.policy import DoorPolicy
from cloud_server.rights.engine import Rights
from cloud_server.rights.policy_file import BindingConfig, Name, PolicyFile, first_policy, load_policy

USERS = (
    "admin", "ann", "app", "b", "bob", "demo", "dialer", "eve", "headlamp", "kube-apiserver", "me", "robot",
    "site-admin", "x",
)  # fmt: skip
"""Whom the fixtures make credentials for."""


def everybody_admin(*more: str) -> str:
    """The text of a policy file by which all of them may do everything."""
    return first_policy([*USERS, *more])


def admins(users: Sequence[str] = USERS) -> Rights:
    """Rights by which these users may do everything."""
    return PolicyFile(binding=[BindingConfig(role=Name("admin"), users=[Name(user) for user in users])]).rights


def everybody_may_all() -> DoorPolicy:
    """The policy of a door for tests that are about something else."""
    return DoorPolicy(admins())


def policy_of(text: str) -> PolicyFile:
    """What a file with this text says."""
    with tempfile.TemporaryDirectory(prefix="longline-policy-") as folder:
        path = Path(folder) / "policy.toml"
        path.write_text(text)
        return load_policy(path)


def rights_of(text: str) -> Rights:
    """The rights by a file with this text."""
    return policy_of(text).rights
