"""Reads configuration files: TOML into frozen dataclasses, with every fault reported at once, by file, line and key.

The classes themselves belong to the daemons; here is what both need: reading, structuring, and values that check
themselves.
"""

from __future__ import annotations

import dataclasses
import ipaddress
import re
import tomllib
from collections.abc import Callable, Collection, Container, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import UnionType
from typing import Any, ClassVar, Literal, Self, TypeVar, get_args, get_origin

import cattrs
from cattrs.cols import list_structure_factory, mapping_structure_factory
from cattrs.errors import CattrsError, ForbiddenExtraKeysError

from tunnel.aio.process.config_lines import line_numbers, line_of
from tunnel.core.wire import faults as table
from tunnel.core.wire.faults import CONFIG_INVALID, CONFIG_NOT_TOML, CONFIG_UNREADABLE, FaultError
from tunnel.core.wire.globs import MAX_GLOB_CHARS, is_glob
from tunnel.core.wire.host_port import split_host_port
from tunnel.core.wire.target_rule import MAX_PORT, TargetRule

T = TypeVar("T")

StructureHook = Callable[[Any, Any], Any]

MAX_SECONDS = 1e7
"""The longest time in a configuration, four months: more is a slip of units."""
MAX_PER_SECOND = 1e6
MAX_COUNT = 1_000_000
MAX_BYTE_COUNT = 1 << 40
MAX_DEPTH = 16
"""How deeply values may be nested. The deepest of ours are members of tables in a list of a table."""
MAX_FAULTS = 20
"""How many faults of a file are told, one line each; of the others their number. Nobody mends more at a time, and a
daemon writes them into its log each time that the file changes.
"""
MAX_FAULT_CHARS = 500
"""The longest text of a fault: it may repeat what stands in the file."""
_TYPE_NAMES = {str: "a string", int: "a whole number", float: "a number", bool: "true or false"}
_PLACE = re.compile(r" \(at line ([0-9]+), column [0-9]+\)$")
_TWICE = re.compile(r"Cannot declare (\(.*\)) twice")
_HOST_PORT = re.compile(r"(\[[0-9A-Fa-f:.%]+\]|[A-Za-z0-9._-]+):([0-9]{1,5})")


class ConfigError(FaultError):
    """A configuration cannot be used; `faults` has a line for each thing that is wrong, up to MAX_FAULTS, and then one
    more.
    """

    default_fault = CONFIG_INVALID

    def __init__(self, faults: Sequence[str], fault: table.Fault | None = None) -> None:
        super().__init__("\n".join(faults), fault)
        self.faults = list(faults)


class HostPort(str):
    """An address `host:port`; an IPv6 address stands in brackets. Port 0 takes a free one, where one listens."""

    __slots__ = ()

    EXAMPLES: ClassVar[str] = "0.0.0.0:7443 or [::]:7443"

    @classmethod
    def from_config(cls, value: object) -> Self:
        """Checks a value of a configuration or of a command line, and returns it as this type.

        Raises:
            ValueError: it is no `host:port`; the text says what is expected.
        """
        match = _HOST_PORT.fullmatch(_string(value))
        if match is None or int(match[2]) > MAX_PORT or not _is_host(match[1]):
            raise ValueError(f"{_shown(value)} is not host:port, such as {cls.EXAMPLES}")
        return cls(value)

    @property
    def port(self) -> int:
        """Returns the port."""
        return int(split_host_port(self)[1])

    @property
    def host(self) -> str:
        """Returns the host, without brackets."""
        return split_host_port(self)[0]


class ServerAddress(HostPort):
    """A `HostPort` to connect to: its port is not 0."""

    __slots__ = ()

    EXAMPLES = "cloud.example.com:7443 or [2001:db8::1]:7443"

    @classmethod
    def from_config(cls, value: object) -> Self:
        """Checks a value of a configuration or of a command line, and returns it as this type.

        Raises:
            ValueError: it is no address to connect to; the text says what is expected.
        """
        address = super().from_config(value)
        if not address.port:
            raise ValueError(f"{_shown(value)} needs a port of 1 to {MAX_PORT}")
        return address


class TargetPattern(str):
    """A rule `host:ports`; see `TargetRule`."""

    __slots__ = ()

    @classmethod
    def from_config(cls, value: object) -> TargetPattern:
        """Checks a value of a configuration, and returns it as this type.

        Raises:
            ValueError: it is no rule; the text says what is wrong.
        """
        TargetRule.parse(_string(value))
        return cls(value)

    @property
    def rule(self) -> TargetRule:
        """Returns the parsed rule."""
        return TargetRule.parse(self)


class NameGlob(str):
    """The name of a user or group, or a pattern of such names: `*` is any text, `?` any one character."""

    __slots__ = ()

    @classmethod
    def from_config(cls, value: object) -> NameGlob:
        """Returns the pattern that a value of a configuration stands for.

        Raises:
            ValueError: no name could match it.
        """
        if not is_glob(_string(value)):
            raise ValueError(
                f"{_shown(value)} is no name or pattern: {MAX_GLOB_CHARS} characters, no blanks or brackets"
            )
        return cls(value)


class Seconds(float):
    """A time in seconds, above zero."""

    __slots__ = ()

    @classmethod
    def from_config(cls, value: object) -> Seconds:
        """Checks a value of a configuration, and returns it as this type.

        Raises:
            ValueError: it is no number of seconds above 0, or more than MAX_SECONDS.
        """
        if not isinstance(value, int | float) or isinstance(value, bool) or not 0 < value <= MAX_SECONDS:
            raise ValueError(f"must be a number of seconds above 0, not {_shown(value)}")
        return cls(value)


class SecondsOrNone(float):
    """A time in seconds; 0: there is none."""

    __slots__ = ()

    @classmethod
    def from_config(cls, value: object) -> SecondsOrNone:
        """Checks a value of a configuration, and returns it as this type.

        Raises:
            ValueError: it is no number of seconds, 0 or more, or more than MAX_SECONDS.
        """
        if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value <= MAX_SECONDS:
            raise ValueError(f"must be a number of seconds, 0 or more, not {_shown(value)}")
        return cls(value)


class _Rate(float):
    __slots__ = ()
    _unit: ClassVar[str]

    @classmethod
    def from_config(cls, value: object) -> Self:
        """Checks a value of a configuration, and returns it as this type.

        Raises:
            ValueError: it is no rate of 0.01 or more, or more than MAX_PER_SECOND.
        """
        if isinstance(value, int | float) and not isinstance(value, bool) and 0.01 <= value <= MAX_PER_SECOND:
            return cls(value)
        raise ValueError(f"must be a number per {cls._unit}, 0.01 or more, not {_shown(value)}")


class PerSecond(_Rate):
    """A rate of events per second."""

    __slots__ = ()
    _unit = "second"


class PerMinute(_Rate):
    """A rate of events per minute."""

    __slots__ = ()
    _unit = "minute"


class Count(int):
    """A number of things, 1 at least."""

    __slots__ = ()

    @classmethod
    def from_config(cls, value: object) -> Count:
        """Checks a value of a configuration, and returns it as this type.

        Raises:
            ValueError: it is no whole number of 1 to MAX_COUNT.
        """
        if isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= MAX_COUNT:
            return cls(value)
        raise ValueError(f"must be a whole number, 1 or more, not {_shown(value)}")


class ByteCount(int):
    """An amount of memory or of data in bytes, 1 KiB at least."""

    __slots__ = ()

    @classmethod
    def from_config(cls, value: object) -> ByteCount:
        """Checks a value of a configuration, and returns it as this type.

        Raises:
            ValueError: it is no whole number of 1024 to MAX_BYTE_COUNT.
        """
        if isinstance(value, int) and not isinstance(value, bool) and 1024 <= value <= MAX_BYTE_COUNT:
            return cls(value)
        raise ValueError(f"must be a whole number of bytes, 1024 or more, not {_shown(value)}")


@dataclasses.dataclass(frozen=True, slots=True)
class Fault:
    """One thing that is wrong in a file."""

    key: str
    """The key with its sections, such as `cloud.servers[1]`."""
    text: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class LogConfig:
    """The `[log]` section of both daemons."""

    format: Literal["auto", "json", "console"] = "auto"
    """`auto`: for people on a terminal, JSON elsewhere."""
    level: Literal["debug", "info", "warning", "error"] = "info"


@dataclasses.dataclass(frozen=True, kw_only=True)
class AuditConfig:
    """The `[audit]` section of both daemons."""

    file: Path = Path("-")
    """The file of the audit records; `-` for standard output."""
    on_failure: Literal["refuse", "alarm"] = "alarm"
    """What is done while records cannot be written: nothing new is let in, or it is, and people are told."""

    @property
    def destination(self) -> str:
        """Returns the file's path, or `-` for standard output."""
        return "-" if self.file.name == "-" else str(self.file)


class Validated:
    """A configuration whose values must fit together."""

    def faults(self) -> Iterable[Fault]:
        """Returns what does not fit together; empty when all does."""
        return ()


def load(path: Path, cls: type[T], loads: Callable[[str], dict[str, Any]] = tomllib.loads) -> T:
    """Reads a file into a configuration class.

    Args:
        path: of the file.
        cls: the class.
        loads: parses TOML. Another parser than tomllib must describe faults in the same words.

    Raises:
        ConfigError: with the faults found; see there.
    """
    text, values = _read(path, loads)
    try:
        config = _structured(path.parent.absolute(), values, cls)
    except cattrs.ClassValidationError as error:
        converter = _converter(path.parent.absolute())
        faults = list(_faults_in(error, ""))
        faults += _faults_of_the_rest(converter, values, cls, {_section(fault.key) for fault in faults})
        raise ConfigError(_lines(path, text, faults)) from error
    if isinstance(config, Validated) and (found := list(config.faults())):
        raise ConfigError(_lines(path, text, found))
    return config


def load_tolerant(path: Path, cls: type[T], dispensable: Collection[str]) -> tuple[T, list[str]]:
    """Reads a file as `load` does, but does without `dispensable` sections, which are no reason not to run. Blocking.

    Returns:
        The configuration, with those of these sections at their defaults that cannot be used; and a line for each fault
        in them.

    Raises:
        ConfigError: a fault is elsewhere; it has every fault that was found.
    """
    try:
        return load(path, cls), []
    except ConfigError as error:
        _, values = _read(path)
        try:
            config = _converter(path.parent.absolute()).structure(
                {name: value for name, value in values.items() if name not in dispensable}, cls
            )
        except cattrs.ClassValidationError:
            raise error from None
        if isinstance(config, Validated) and list(config.faults()):
            raise
        return config, error.faults


def state_folder(path: Path) -> Path:
    """Returns the state folder that a file names, whatever else is wrong in it; its own folder where it names none.

    A running daemon is found by it. Blocking.
    """
    try:
        named = tomllib.loads(path.read_text(encoding="utf-8")).get("state")
    except (OSError, ValueError, RecursionError):
        named = None
    return path.parent.absolute() / named if isinstance(named, str) else path.parent.absolute()


# Internal


def _read(path: Path, loads: Callable[[str], dict[str, Any]] = tomllib.loads) -> tuple[str, dict[str, Any]]:
    try:
        text = path.read_text(encoding="utf-8")
        values = loads(text)
    except OSError as error:
        raise ConfigError([f"{path}: cannot be read: {error.strerror}"], CONFIG_UNREADABLE) from error
    except UnicodeDecodeError as error:
        raise ConfigError([f"{path}: is not UTF-8"], CONFIG_NOT_TOML) from error
    except ValueError as error:  # TOMLDecodeError is one, of whichever parser
        raise ConfigError([_not_toml(path, error)], CONFIG_NOT_TOML) from error
    except RecursionError as error:
        raise ConfigError([f"{path}: is nested too deeply"], CONFIG_NOT_TOML) from error
    if not _is_flat(values):  # dotted keys nest as well, and whoever walks or shows that would go as deep
        raise ConfigError([f"{path}: is nested too deeply"], CONFIG_NOT_TOML)
    return text, values


def _is_flat(values: object) -> bool:
    """Returns whether no value is nested more deeply than MAX_DEPTH."""
    level = [values]
    for _ in range(MAX_DEPTH):
        level = [
            inner
            for value in level
            if isinstance(value, dict | list)
            for inner in (value.values() if isinstance(value, dict) else value)
        ]
        if not level:
            return True
    return False


def _not_toml(path: Path, error: ValueError) -> str:
    """Returns the words of a TOML error, with the line in front as for every other fault."""
    text = str(error)
    if place := _PLACE.search(text):
        path_and_line, text = f"{path}:{place[1]}", text[: place.start()]
    else:
        path_and_line = f"{path}"
    if twice := _TWICE.fullmatch(text):
        table = ".".join(re.findall(r"'([^']*)'", twice[1]))
        text = f"[{table}] is there already: add to that one"
    return f"{path_and_line}: is not TOML: {text}"


def _structured(folder: Path, values: dict[str, Any], cls: type[T]) -> T:
    """Structures without a look at where faults are, which takes half as long, and with one where there are any.

    Raises:
        ClassValidationError: with all of them.
    """
    try:
        return _converter(folder, places=False).structure(values, cls)
    except (ValueError, TypeError, KeyError, AttributeError, CattrsError):
        return _converter(folder).structure(values, cls)


def _converter(folder: Path, *, places: bool = True) -> cattrs.Converter:
    """Structures without cattrs' own conversions: a value must be of the right type already, or it checks itself.

    `places`: errors say where in the values they lie.

    A scalar that checks itself is a subclass of str or float with a class method `from_config`.
    """
    converter = cattrs.Converter(forbid_extra_keys=True, detailed_validation=places)

    def scalar_hook(value: object, cls: Any) -> object:
        if hasattr(cls, "from_config"):
            return cls.from_config(value)
        if type(value) is not cls:
            raise ValueError(f"must be {_TYPE_NAMES[cls]}, not {_shown(value)}")
        return value

    for kind in _TYPE_NAMES:
        converter.register_structure_hook(kind, scalar_hook)

    def list_hook(cls: Any) -> StructureHook:
        if not places:  # as the factory's hook, with a call less for each of the 30,000 lists of a large policy file
            (kind,) = get_args(cls)
            one = converter.get_structure_hook(kind)
            return lambda value, _: [one(item, kind) for item in _of(list, value)]
        inner = list_structure_factory(cls, converter)
        return lambda value, _: inner(_of(list, value), cls)

    def table_hook(cls: Any) -> StructureHook:
        inner = converter.gen_structure_attrs_fromdict(cls)
        return lambda value, _: inner(_of(dict, value), cls)

    def map_hook(cls: Any) -> StructureHook:
        inner = mapping_structure_factory(cls, converter)
        return lambda value, _: inner(_of(dict, value), cls)

    def flag_or_list_hook(cls: Any) -> StructureHook:
        inner = list_hook(next(one for one in get_args(cls) if _origin(one) is list))
        return lambda value, _: value if isinstance(value, bool) else inner(value, _)

    def one_or_list_hook(cls: Any) -> StructureHook:
        kind, listed = get_args(cls)
        one, several = converter.get_structure_hook(kind), list_hook(listed)
        return lambda value, _: several(value, listed) if isinstance(value, list) else one(value, kind)

    converter.register_structure_hook_factory(_is_flag_or_list, flag_or_list_hook)
    converter.register_structure_hook_factory(_is_one_or_list, one_or_list_hook)
    converter.register_structure_hook_factory(lambda cls: _origin(cls) is list, list_hook)
    converter.register_structure_hook_factory(lambda cls: _origin(cls) is dict, map_hook)
    converter.register_structure_hook_factory(dataclasses.is_dataclass, table_hook)
    converter.register_structure_hook(Path, lambda value, _: folder / _string(value))
    return converter


def _is_flag_or_list(cls: Any) -> bool:
    """Returns whether a value may be true or false, or tables in its place: `bool | list[T]`."""
    kinds = get_args(cls) if isinstance(cls, UnionType) else ()
    return bool in kinds and any(_origin(kind) is list for kind in kinds)


def _is_one_or_list(cls: Any) -> bool:
    """Returns whether a value may be one or several: `T | list[T]`."""
    kinds = get_args(cls) if isinstance(cls, UnionType) else ()
    return len(kinds) == 2 and _origin(kinds[1]) is list and get_args(kinds[1]) == (kinds[0],)


def _origin(cls: Any) -> object:
    return get_origin(cls)


def _of(kind: type, value: object) -> Any:
    if not isinstance(value, kind):
        raise ValueError(f"must be {'a list' if kind is list else 'a table'}, not {_shown(value)}")  # noqa: TRY004  # one kind for all faults
    return value


def _is_host(host: str) -> bool:
    """Returns whether a host may be looked up or bound; `10.1.2` is a slip, not a name."""
    if host.startswith("[") or host.replace(".", "").isdigit():
        try:
            return (ipaddress.ip_address(host.strip("[]")).version == 6) == host.startswith("[")
        except ValueError:
            return False
    return True


def _string(value: object) -> str:
    if not isinstance(value, str) or not value:
        raise ValueError(f"must be a string that is not empty, not {_shown(value)}")
    return value


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _faults_in(error: BaseException, key: str, kind: type | None = None) -> Iterator[Fault]:
    """Yields the faults of a structuring error, each with its key."""
    match error:
        case cattrs.ClassValidationError():
            noted, others = error.group_exceptions()
            for inner, attribute in noted:
                yield from _faults_in(inner, f"{key}.{attribute.name}" if key else attribute.name, attribute.type)
            for other in others:
                yield from _faults_in(other, key)
        case cattrs.IterableValidationError():
            for inner, item in error.group_exceptions()[0]:
                within = f"{key}[{item.index}]" if isinstance(item.index, int) else f"{key}.{item.index}"
                yield from _faults_in(inner, within, item.type)
        case ForbiddenExtraKeysError():
            allowed = [field.name for field in dataclasses.fields(error.cl)]
            for name in error.extra_fields:
                yield Fault(f"{key}.{name}" if key else name, _unknown(name, allowed))
        case KeyError():
            yield Fault(key, "is missing")
        case _ if get_origin(kind) is Literal:
            yield Fault(key, f"must be one of {', '.join(get_args(kind))}")
        case _:
            yield Fault(key, str(error))


def _unknown(name: str, allowed: Sequence[str]) -> str:
    import difflib  # for the faults alone: 0.2 MB

    close = difflib.get_close_matches(name, allowed, 1)
    hint = f", did you mean {close[0]}?" if close else ""
    return f"is not known{hint}; allowed: {', '.join(allowed)}"


def _faults_of_the_rest(
    converter: cattrs.Converter, values: Mapping[str, Any], cls: type[Any], broken: Container[str]
) -> list[Fault]:
    """Returns what does not fit together in the sections that can be read, beside those that cannot."""
    try:
        config = converter.structure({name: value for name, value in values.items() if name not in broken}, cls)
    except cattrs.ClassValidationError:
        return []
    faults = config.faults() if isinstance(config, Validated) else ()
    return [fault for fault in faults if _section(fault.key) not in broken]


def _section(key: str) -> str:
    return re.split(r"[.\[]", key)[0]


def _lines(path: Path, text: str, faults: Iterable[Fault]) -> list[str]:
    """Returns a line for each of the first MAX_FAULTS faults in the order of the file, and one that counts the rest."""
    numbers = line_numbers(text)
    placed = sorted(((line_of(fault.key, numbers), fault) for fault in faults), key=lambda pair: pair[0])
    lines = [f"{path}:{number}: {fault.key}: {_cut(fault.text)}" for number, fault in placed[:MAX_FAULTS]]
    more = len(placed) - MAX_FAULTS
    return [*lines, f"{path}: and {more:,} more"] if more > 0 else lines


def _cut(text: str) -> str:
    return text if len(text) <= MAX_FAULT_CHARS else text[: MAX_FAULT_CHARS - 3] + "..."
