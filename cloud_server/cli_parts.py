"""Holds what several groups of the `cloud-server` command share."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import click

from tunnel.aio.process.command import Failed

if TYPE_CHECKING:
    from cloud_server.trust.administration import Administration

T = TypeVar("T")


def administered(config: Path, work: Callable[[Administration], Awaitable[T]]) -> T:
    """Runs `work` with the records of a configuration's state folder, and returns its result.

    Raises:
        Failed: the work cannot be done.
        ConfigError: the configuration cannot be read.
    """
    from cloud_server.administer import administer
    from cloud_server.config import load_server_config
    from cloud_server.trust.administration_failed import AdministrationFailed

    try:
        return administer(load_server_config(config), work)
    except AdministrationFailed as error:
        raise Failed.of(error) from error


def read_labels(words: Sequence[str], *, removal: bool = False) -> dict[str, str | None]:
    """Returns the labels that words give, such as `site=lyon`.

    With `removal` the word `site-` gives None, which takes it away.

    Raises:
        click.UsageError: a word is no label.
    """
    labels: dict[str, str | None] = {}
    for word in words:
        name, equals, value = word.partition("=")
        if equals and name:
            labels[name] = value
        elif removal and word.endswith("-") and len(word) > 1:
            labels[word[:-1]] = None
        else:
            raise click.UsageError(f"{word!r} is no label: write KEY=VALUE{', or KEY- to take it away' * removal}")
    return labels
