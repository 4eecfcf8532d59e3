"""Configuration files: TOML into frozen dataclasses, with every fault reported at once, by file, line and key.

The classes themselves belong to the daemons; here is what both need: reading, structuring, and values that check
themselves.
"""

from __future__ import annotations

import dataclasses
import difflib
import re
import tomllib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args, get_origin

import cattrs
from cattrs.errors import ForbiddenExtraKeysError

T = TypeVar("T")

_TYPE_NAMES = {str: "a string", int: "a whole number", float: "a number", bool: "true or false", Path: "a path"}
_HOST_PORT = re.compile(r"(\[[0-9A-Fa-f:.%]+\]|[A-Za-z0-9._-]+):([0-9]{1,5})")


class ConfigError(Exception):
    """A configuration cannot be used; `faults` has a line for each thing that is wrong."""

    def __init__(self, faults: Sequence[str]) -> None:
        super().__init__("\n".join(faults))
        self.faults = list(faults)


class HostPort(str):
    """`host:port`; an IPv6 address stands in brackets. Port 0 takes a free one, where one listens."""

    __slots__ = ()

    @property
    def port(self) -> int:
        """The port."""
        return int(self.rpartition(":")[2])

    @property
    def host(self) -> str:
        """The host, without brackets."""
        return self.rpartition(":")[0].removeprefix("[").removesuffix("]")


class Seconds(float):
    """A time above zero."""

    __slots__ = ()


@dataclasses.dataclass(frozen=True, slots=True)
class Fault:
    """One thing that is wrong in a file."""

    key: str
    """Such as `cloud.servers[1]`; empty for the file as a whole."""
    text: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class LogConfig:
    """The `[log]` section of both daemons."""

    format: Literal["auto", "json", "console"] = "auto"
    """`auto`: for people on a terminal, JSON elsewhere."""
    level: Literal["debug", "info", "warning", "error"] = "info"


class Validated:
    """A section whose values must fit together."""

    def faults(self) -> Iterable[Fault]:
        """What does not; keys are relative to the file."""
        return ()


def load(path: Path, cls: type[T]) -> T:
    """Read a file into a configuration class.

    Raises:
        ConfigError: with every fault found.
    """
    text, values = _read(path)
    try:
        config = _converter(path.parent.absolute()).structure(values, cls)
    except cattrs.ClassValidationError as error:
        faults = [_fault(line) for line in cattrs.transform_error(error, format_exception=_explain)]
        raise ConfigError(_lines(path, text, faults)) from error
    if isinstance(config, Validated) and (found := list(config.faults())):
        raise ConfigError(_lines(path, text, found))
    return config


# Internal


def _read(path: Path) -> tuple[str, dict[str, Any]]:
    try:
        text = path.read_text(encoding="utf-8")
        return text, tomllib.loads(text)
    except OSError as error:
        raise ConfigError([f"{path}: cannot be read: {error.strerror}"]) from error
    except UnicodeDecodeError as error:
        raise ConfigError([f"{path}: is not UTF-8"]) from error
    except tomllib.TOMLDecodeError as error:
        raise ConfigError([f"{path}: is not TOML: {error}"]) from error


def _converter(folder: Path) -> cattrs.Converter:
    converter = cattrs.Converter(forbid_extra_keys=True)

    def strict(kind: type) -> None:
        def structure(value: object, _: object) -> object:
            if type(value) is not kind and not (kind is float and type(value) is int):
                raise ValueError(f"must be {_TYPE_NAMES[kind]}, not {_shown(value)}")
            return kind(value)  # type: ignore[call-arg]

        converter.register_structure_hook(kind, structure)

    for kind in (str, int, float, bool):
        strict(kind)
    converter.register_structure_hook(Path, lambda value, _: folder / _string(value))
    converter.register_structure_hook(HostPort, _host_port)
    converter.register_structure_hook(Seconds, _seconds)
    converter.register_structure_hook_func(_checks_itself, lambda value, cls: cls.from_config(value))
    return converter


def _checks_itself(cls: object) -> bool:
    return hasattr(cls, "from_config")


def _string(value: object) -> str:
    if not isinstance(value, str) or not value:
        raise ValueError(f"must be a string that is not empty, not {_shown(value)}")
    return value


def _host_port(value: object, _: object) -> HostPort:
    match = _HOST_PORT.fullmatch(_string(value))
    if match is None or int(match[2]) > 65535:
        raise ValueError(f"{_shown(value)} is not host:port, such as 0.0.0.0:7443 or [::]:7443")
    return HostPort(value)


def _seconds(value: object, _: object) -> Seconds:
    if type(value) not in (int, float) or not 0 < value < 1e7:  # type: ignore[operator]
        raise ValueError(f"must be a number of seconds above 0, not {_shown(value)}")
    return Seconds(value)  # type: ignore[arg-type]


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _explain(error: BaseException, kind: type | None) -> str:
    match error:
        case ForbiddenExtraKeysError():
            return _explain_extra(error)
        case KeyError():
            return "is missing"
        case _ if get_origin(kind) is Literal:
            return f"must be one of {', '.join(get_args(kind))}"
        case ValueError():
            return str(error)
        case _:
            return "must be a list" if get_origin(kind) is list else "must be a table"


def _explain_extra(error: ForbiddenExtraKeysError) -> str:
    allowed = [field.name for field in dataclasses.fields(error.cl)]
    parts = []
    for name in sorted(error.extra_fields):
        close = difflib.get_close_matches(name, allowed, 1)
        hint = f"; did you mean {close[0]}?" if close else ""
        parts.append(f"{name} is not known{hint}")
    return f"{', '.join(parts)} (allowed: {', '.join(allowed)})"


def _fault(line: str) -> Fault:
    text, _, where = line.rpartition(" @ ")
    return Fault(where.removeprefix("$").removeprefix("."), text)


def _lines(path: Path, text: str, faults: Iterable[Fault]) -> list[str]:
    """A line for each fault, in the order of the file."""
    placed = sorted(((_find(text, fault.key, fault.text), fault) for fault in faults), key=lambda pair: pair[0])
    lines = []
    for number, fault in placed:
        where = f"{path}:{number}" if number else str(path)
        lines.append(f"{where}: {fault.key}: {fault.text}" if fault.key else f"{where}: {fault.text}")
    return lines


def _find(text: str, key: str, fault_text: str) -> int:
    """The line that a key stands on, or its section; 0 when it cannot be told."""
    section, _, name = key.partition(".")
    wanted, _, index = section.partition("[")
    nth = int(digits) if (digits := index.rstrip("]")).isdigit() else 0
    name = name or index.strip("]'\"")
    name = re.split(r"[.\[]", name)[0] or fault_text.split(" ", maxsplit=1)[0]
    found = seen = 0
    inside = False
    for number, line in enumerate(text.splitlines(), 1):
        stripped = line.strip()
        if stripped.startswith("["):
            inside = stripped.split("#")[0].strip().strip("[] ") == wanted and seen == nth
            seen += stripped.strip("[] ") == wanted
            found = number if inside else found
        elif (inside or not found) and re.match(rf"{re.escape(name)}\s*=", stripped) and (inside or "." not in key):
            return number
    return found
