"""Configuration files: what is read, and how every fault is told with its line and key."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from pathlib import Path
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunnel.aio.process.config import AuditConfig, ConfigError, Fault, HostPort, Seconds, ServerAddress, Validated, load


class Even(str):
    __slots__ = ()

    @classmethod
    def from_config(cls, value: object) -> Even:
        if not isinstance(value, str) or len(value) % 2:
            raise ValueError(f"{value!r} is not of even length")
        return cls(value)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Link:
    listen: list[HostPort] = dataclasses.field(default_factory=list)
    server: ServerAddress | None = None
    name: Even | None = None
    wait_s: Seconds = Seconds(1.0)
    least: int = 1
    most: int = 9
    mode: Literal["slow", "fast"] = "slow"
    on: bool = False
    file: Path | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Item:
    key: str
    count: int = 0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Whole(Validated):
    link: Link = dataclasses.field(default_factory=Link)
    other: Link = dataclasses.field(default_factory=Link)
    item: list[Item] = dataclasses.field(default_factory=list)
    words: dict[str, str] = dataclasses.field(default_factory=dict)
    title: str = ""

    def faults(self) -> Iterable[Fault]:
        for key, link in (("link", self.link), ("other", self.other)):
            if link.least > link.most:
                yield Fault(f"{key}.least", "must not be above most")


LINK_KEYS = "listen, server, name, wait_s, least, most, mode, on, file"


def written(folder: Path, text: str) -> Path:
    path = folder / "some.toml"
    path.write_text(text)
    return path


def faults_of(folder: Path, text: str) -> list[str]:
    """The faults, with the file left out."""
    path = written(folder, text)
    with pytest.raises(ConfigError) as caught:
        load(path, Whole)
    assert all(fault.startswith(f"{path}:") for fault in caught.value.faults)
    return [fault.removeprefix(f"{path}:") for fault in caught.value.faults]


def test_an_empty_file_is_all_defaults(tmp_path: Path) -> None:
    assert load(written(tmp_path, ""), Whole) == Whole()


def test_every_kind_of_value(tmp_path: Path) -> None:
    whole = load(
        written(
            tmp_path,
            """
            title = "t"
            link = { server = "[fd00::1]:80", name = "ab", wait_s = 2, mode = "fast", on = true, file = "a/b" }
            [other]
            listen = ["0.0.0.0:0", "[::]:1", "box_1.example.com:65535"]
            file = "/abs"
            [[item]]
            key = "x"
            count = 3
            [words]
            "a.b" = "c"
            """,
        ),
        Whole,
    )
    link = whole.link
    assert link.server is not None
    assert (link.server.host, link.server.port) == ("fd00::1", 80)
    assert isinstance(link.name, Even)
    assert (link.wait_s, link.mode, link.on, link.file) == (2.0, "fast", True, tmp_path / "a" / "b")
    assert [(each.host, each.port) for each in whole.other.listen] == [
        ("0.0.0.0", 0),
        ("::", 1),
        ("box_1.example.com", 65535),
    ]
    assert whole.other.file == Path("/abs")
    assert whole.item == [Item(key="x", count=3)]
    assert whole.words == {"a.b": "c"}


def test_every_fault_is_told_at_once_in_the_order_of_the_file(tmp_path: Path) -> None:
    text = """\
title = 5
[link]
listen = ["a:1", "b"]
lisen = 1
server = "a:0"
name = "abc"
wait_s = 0
least = true
mode = "warp"
on = 1
file = ""
[[item]]
key = "x"
count = "3"
[other]
least = 5
most = 4
[[item]]
count = 1
[words]
a = 5
"""
    assert faults_of(tmp_path, text) == [
        "1: title: must be a string, not 5",
        "3: link.listen[1]: 'b' is not host:port, such as 0.0.0.0:7443 or [::]:7443",
        f"4: link.lisen: is not known, did you mean listen?; allowed: {LINK_KEYS}",
        "5: link.server: 'a:0' needs a port of 1 to 65535",
        "6: link.name: 'abc' is not of even length",
        "7: link.wait_s: must be a number of seconds above 0, not 0",
        "8: link.least: must be a whole number, not True",
        "9: link.mode: must be one of slow, fast",
        "10: link.on: must be true or false, not 1",
        "11: link.file: must be a string that is not empty, not ''",
        "14: item[0].count: must be a whole number, not '3'",
        "16: other.least: must not be above most",
        "18: item[1].key: is missing",
        "21: words.a: must be a string, not 5",
    ]


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ('[other]\nlisten = "a:1"', "2: other.listen: must be a list, not 'a:1'"),
        ("[link]\n\nlisten = [\n  'a:1',\n  5,\n]", "3: link.listen[1]: must be a string that is not empty, not 5"),
        ("link = 'listen'", "1: link: must be a table, not 'listen'"),
        ("[[link]]", "1: link: must be a table, not [{}]"),
        ("[item]", "1: item: must be a list, not {}"),
        ("\nitem = [1]", "2: item[0]: must be a table, not 1"),
        ("words = ['a']", "1: words: must be a table, not ['a']"),
        ("\n[foo]", "2: foo: is not known; allowed: link, other, item, words, title"),
        ("\n[link.listen]", "2: link.listen: must be a list, not {}"),
        (f"title = {list(range(99))}", f"1: title: must be a string, not {str(list(range(99)))[:57]}..."),
    ],
)
def test_a_value_of_the_wrong_kind(tmp_path: Path, text: str, fault: str) -> None:
    assert faults_of(tmp_path, text) == [fault]


@pytest.mark.parametrize("value", ["nan", "inf", "-1", "1e8", "true", '"10"'])
def test_a_time_that_is_none(tmp_path: Path, value: str) -> None:
    (fault,) = faults_of(tmp_path, f"[link]\nwait_s = {value}")
    assert fault.startswith("2: link.wait_s: must be a number of seconds above 0, not ")


@pytest.mark.parametrize(
    "value",
    ["", "a", ":1", "a:", "a:b", "a:70000", "::1:80", "[::1]", "[::g]:1", "[1.2.3.4]:1", "1.2.3:80", "1.2.3.4.5:1",
     "a b:1", "http://a:1", "a:1\n", "a:+1", "a:-1", "a:\N{ARABIC-INDIC DIGIT ONE}"],
)  # fmt: skip
def test_an_address_that_is_none(value: str) -> None:
    with pytest.raises(ValueError, match=r"host:port|must be a string that is not empty"):
        HostPort.from_config(value)


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("a = 1\na = 2\n", ":2: is not TOML: Cannot overwrite a value"),
        ("\n[link\n", ":2: is not TOML: Expected ']' at the end of a table declaration"),
        ("[link]\n[log]\n[link]\n", ":3: is not TOML: [link] is there already: add to that one"),
        ("[a.b]\n[a.b]\n", ":2: is not TOML: [a.b] is there already: add to that one"),
        ('a = "x', ": is not TOML: Unterminated string (at end of document)"),
    ],
)
def test_a_slip_of_toml_is_told_with_its_line(tmp_path: Path, text: str, fault: str) -> None:
    path = tmp_path / "some.toml"
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load(path, Whole)
    assert caught.value.faults == [f"{path}{fault}"]


@pytest.mark.parametrize(
    ("content", "text"),
    [(b"\xff", "is not UTF-8"), (b"a = ", "is not TOML"), (None, "No such file")],
)
def test_a_file_that_cannot_be_read(tmp_path: Path, content: bytes | None, text: str) -> None:
    path = tmp_path / "some.toml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        load(path, Whole)
    (fault,) = caught.value.faults
    assert fault.startswith(f"{path}: ")
    assert text in fault


def test_a_folder_in_place_of_a_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="Is a directory"):
        load(tmp_path, Whole)


TOML_VALUES = st.recursive(
    st.booleans() | st.integers(-(2**60), 2**60) | st.text("ab:1[]./", max_size=8).map(lambda text: f'"{text}"'),
    lambda inner: st.lists(inner, max_size=3).map(lambda items: f"[{', '.join(map(str, items))}]"),
    max_leaves=5,
).map(lambda value: str(value).replace("True", "true").replace("False", "false"))


@given(
    st.dictionaries(
        st.sampled_from(["link", "other", "item", "words", "nothing"]),
        st.dictionaries(st.sampled_from(["listen", "server", "name", "key", "file", "x"]), TOML_VALUES, max_size=3),
        max_size=4,
    )
)
def test_whatever_is_written_is_read_or_told(
    tmp_path_factory: pytest.TempPathFactory, tables: dict[str, dict[str, str]]
) -> None:
    lines = []
    for name, table in tables.items():
        lines += [f"[{name}]", *(f"{key} = {value}" for key, value in table.items())]
    path = written(tmp_path_factory.getbasetemp(), "\n".join(lines))
    try:
        load(path, Whole)
    except ConfigError as error:
        for fault in error.faults:
            number = int(fault.removeprefix(f"{path}:").split(":")[0])
            assert 1 <= number <= len(lines)


@pytest.mark.parametrize(
    ("text", "destination"),
    [("", "-"), ('file = "-"', "-"), ('file = "a/b.log"', "{0}/a/b.log"), ('file = "/b"', "/b")],
)
def test_where_audit_records_go(tmp_path: Path, text: str, destination: str) -> None:
    path = tmp_path / "audit.toml"
    path.write_text(text)
    assert load(path, AuditConfig).destination == destination.format(tmp_path)


@pytest.mark.parametrize("text", ["a." * 300 + "b = 1", "[[link." + "x." * 900 + "y]]", "a = " + "[" * 40 + "]" * 40])
def test_what_is_nested_deeply_is_one_fault(tmp_path: Path, text: str) -> None:
    path = tmp_path / "file.toml"
    path.write_text(text + "\n")
    with pytest.raises(ConfigError) as caught:
        load(path, Whole)
    assert caught.value.faults == [f"{path}: is nested too deeply"]
