"""What several groups of the `cloud-server` command need."""

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
    """Do some work with the records of a configuration's state folder.

    Raises:
        Failed: it cannot be done.
    """
    from cloud_server.administer import administer
    from cloud_server.config import load_server_config
    from cloud_server.trust.administration_failed import AdministrationFailed

    try:
        return administer(load_server_config(config), work)
    except AdministrationFailed as error:
        raise Failed.of(error) from error


def read_labels(words: Sequence[str], *, removal: bool = False) -> dict[str, str | None]:
    """Labels as words have them: `site=lyon`, and with `removal` `site-`, which is None.

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
