"""Reads a length of time on a command line."""

from __future__ import annotations

import re
from datetime import timedelta

import click

MAX_LIFE = timedelta(days=365)
_LIFE = re.compile(r"([1-9][0-9]{0,7})([smhd])")
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}


class Life(click.ParamType[timedelta]):
    """The type of a time on a command line, such as 30m, 24h or 7d."""

    name = "time"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> timedelta:
        """Returns a value of the command line as a time. One of more than MAX_LIFE is refused, as a usage error."""
        match = _LIFE.fullmatch(str(value))
        life = timedelta(**{_UNITS[match[2]]: int(match[1])}) if match is not None else None
        if life is None or life > MAX_LIFE:
            self.fail(f"{value} is not a time such as 30m, 24h or 7d, up to {MAX_LIFE.days}d", param, ctx)
        return life
