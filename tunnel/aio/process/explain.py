"""The pages of the error codes as text; docs/errors has the same as files, made by `make errors`."""

from __future__ import annotations

import re
from collections.abc import Iterator
from importlib.resources import files

from tunnel.core.wire.faults import FAULTS, Fault

_HEADINGS = ("Cause", "How to see it", "Remedy")
_ENTRY = re.compile(r"^# (LL[0-9]{4})\n", re.MULTILINE)


def page(code: str) -> str | None:
    """Returns the page of a code, as Markdown; None when there is no such code. Small letters will do."""
    fault = FAULTS.get(code.upper().strip("[]: "))
    return None if fault is None else _page(fault, dict(_entries(fault.code[:3]))[fault.code])


def pages() -> dict[str, str]:
    """Returns all pages by their codes, in order.

    Raises:
        LookupError: a code is in the table or in the texts, but not in both.
    """
    bodies = dict(entry for group in sorted({code[:3] for code in FAULTS}) for entry in _entries(group))
    missing = sorted(set(FAULTS) ^ set(bodies))
    if missing:
        raise LookupError(f"in one of the table and the texts, but not in both: {', '.join(missing)}")
    return {code: _page(fault, bodies[code]) for code, fault in sorted(FAULTS.items())}


# Internal


def _entries(group: str) -> Iterator[tuple[str, str]]:
    """Yields the code and the body of each entry in the file of a group, such as `LL2`."""
    text = (files(__package__) / "explanations" / f"{group}.md").read_text(encoding="utf-8")
    _, *parts = _ENTRY.split(text)
    yield from zip(parts[::2], parts[1::2], strict=True)


def _page(fault: Fault, body: str) -> str:
    """Returns a page with its title and three sections, which in the file are separated by `--`."""
    sections = [section.strip() for section in body.split("\n--\n")]
    told = (f"## {heading}\n\n{text}" for heading, text in zip(_HEADINGS, sections, strict=True))
    return "\n\n".join((f"# {fault.code}: {fault.title}", *told)) + "\n"
