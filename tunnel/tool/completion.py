"""Completes names for a shell: boxes and their logs, asked of the server while the person waits for a moment."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING

import click

from tunnel.tool.access_options import COMPLETE_WITHIN_S, Where

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tunnel.tool.api import Api


def complete_box(ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[str]:
    """Returns names of boxes; none when the server does not answer within COMPLETE_WITHIN_S."""
    return _starting(incomplete, _box_names(ctx))


def complete_box_or_user(ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[str]:
    """Returns names of boxes, behind `user@` where that was typed."""
    user, at, rest = incomplete.rpartition("@")
    return [user + at + name for name in _starting(rest, _box_names(ctx))]


def complete_log(ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[str]:
    """Returns names of the logs of the box that was typed before; of several boxes, those of the first."""
    box = ctx.params.get("boxes") or ""
    api = _api(ctx)
    if api is None or not box:
        return []
    try:
        from tunnel.tool.boxes import offers_of
        from tunnel.tool.remote_exec import HOST

        offers = offers_of(api, box.partition(",")[0])
        return _starting(incomplete, (offer.name for offer in offers if offer.name != HOST))
    except Exception:
        logging.getLogger(__name__).debug("no names", exc_info=True)
        return []


def complete_copy(
    ctx: click.Context, _param: click.Parameter, incomplete: str
) -> list[click.shell_completion.CompletionItem]:
    """Returns boxes with a colon behind their names, or else what has the shell complete a file here."""
    from click.shell_completion import CompletionItem

    found = (
        [CompletionItem(f"{name}:") for name in _starting(incomplete, _box_names(ctx))] if "/" not in incomplete else []
    )
    return found or [CompletionItem(incomplete, type="file")]


# Internal


def _box_names(ctx: click.Context) -> list[str]:
    api = _api(ctx)
    if api is None:
        return []
    try:
        from tunnel.tool.boxes import box_names

        return box_names(api)
    except Exception:
        logging.getLogger(__name__).debug("no names", exc_info=True)
        return []


def _api(ctx: click.Context) -> Api | None:
    kubeconfig = ctx.params.get("kubeconfig")
    where = Where(
        kubeconfig=Path(kubeconfig) if kubeconfig else None,
        context=ctx.params.get("context"),
        timeout_s=COMPLETE_WITHIN_S,
    )
    try:
        return where.api()
    except click.ClickException:
        return None


def _starting(incomplete: str, names: Iterable[str]) -> list[str]:
    return [name for name in names if name.startswith(incomplete)]
