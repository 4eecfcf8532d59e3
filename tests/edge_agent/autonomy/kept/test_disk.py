"""What is kept of replicas: exactly what was written or nothing, whatever becomes of the file and of the process."""

from __future__ import annotations

import random
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from edge_agent.autonomy.kept.disk import Disk, DiskDamaged, DiskUnavailable, Kept, ScopeWrite, Stored, begin_anew


class Reversing:
    """Seals by turning bytes round, behind what it is about."""

    def seal(self, plain: bytes, about: bytes) -> bytes:
        return about + b"|" + plain[::-1]

    def open(self, sealed: bytes, about: bytes) -> bytes:
        if not sealed.startswith(about + b"|"):
            raise ValueError("sealed about something else")
        return sealed[len(about) + 1 :][::-1]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "objects.db"


@pytest.fixture
def disk(path: Path) -> Iterator[Disk]:
    made = Disk(path, Reversing())
    yield made
    made.close()


def one(name: str, version: int, raw: bytes = b"raw", namespace: str = "ns") -> Stored:
    return Stored(namespace, name, f"uid-of-{name}", version, raw)


def by_name(kept: Kept | None) -> dict[str, Stored]:
    assert kept is not None
    return {stored.name: stored for stored in kept.objects}


def test_what_was_written_is_read(disk: Disk, path: Path) -> None:
    assert disk.scopes() == []
    assert disk.read("pods") is None
    big = 2**100
    disk.write([ScopeWrite("pods", 10, [one("a", 3), one("b", big, b"")], anew=True), ScopeWrite("empty", big)])
    disk.write([ScopeWrite("pods", 12, [one("a", 11, b"other"), one("c", 12)], removed=[("ns", "b"), ("ns", "none")])])
    disk.close()
    assert path.stat().st_mode & 0o777 == 0o600
    again = Disk(path)
    assert again.scopes() == ["empty", "pods"]
    assert again.read("empty") == Kept(big, [])
    pods = again.read("pods")
    assert pods is not None
    assert pods.version == 12
    assert by_name(pods) == {"a": one("a", 11, b"other"), "c": one("c", 12)}
    again.write([ScopeWrite("pods", 20, [one("d", 15)], anew=True)])
    assert by_name(again.read("pods")) == {"d": one("d", 15)}
    again.drop("pods")
    assert again.read("pods") is None
    again.close()


def test_secrets_are_sealed_and_their_rows_cannot_change_places(disk: Disk, path: Path) -> None:
    write = ScopeWrite("secrets", 10, [one("a", 3, b"for a only"), one("b", 4, b"for b only")], is_secret=True)
    disk.write([write])
    assert by_name(disk.read("secrets"))["a"].raw == b"for a only"
    disk.close()
    assert b"for a only" not in path.read_bytes()
    with pytest.raises(DiskDamaged, match="there is no key"):
        Disk(path).read("secrets")
    with sqlite3.connect(path) as raw:
        raw.execute("UPDATE objects SET body = (SELECT body FROM objects WHERE name = 'b') WHERE name = 'a'")
    raw.close()
    with pytest.raises(DiskDamaged, match="ns/a"):
        Disk(path, Reversing()).read("secrets")


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE objects SET body = x'00' WHERE name = 'a'",
        "UPDATE objects SET uid = 'other' WHERE name = 'a'",
        "UPDATE objects SET name = 'z' WHERE name = 'a'",
        "UPDATE objects SET version = '9' WHERE name = 'a'",
        "UPDATE objects SET scope = 3 WHERE name = 'a'",
        "UPDATE objects SET digest = 7 WHERE name = 'a'",
        "DELETE FROM objects WHERE name = 'a'",
        "UPDATE scopes SET version = '11' WHERE name = 'pods'",
        "UPDATE scopes SET version = 'x' WHERE name = 'pods'",
        "UPDATE scopes SET count = 1 WHERE name = 'pods'",
        "UPDATE scopes SET sum = zeroblob(16) WHERE name = 'pods'",
        "DROP TABLE objects",
    ],
)
def test_nothing_of_a_scope_counts_when_anything_of_it_has_changed(disk: Disk, path: Path, change: str) -> None:
    disk.write([ScopeWrite("pods", 10, [one("a", 3), one("b", 4)]), ScopeWrite("nodes", 10, [one("a", 3)])])
    disk.close()
    raw = sqlite3.connect(path)
    raw.execute(change.replace("name = 'a'", "name = 'a' AND scope = 1") if "objects" in change else change)
    raw.commit()
    raw.close()
    again = Disk(path)
    with pytest.raises(DiskDamaged):
        again.read("pods")
    if "DROP" not in change:
        assert by_name(again.read("nodes")) == {"a": one("a", 3)}
        again.drop("pods")
        again.write([ScopeWrite("pods", 20, [one("c", 15)], anew=True)])
        assert by_name(again.read("pods")) == {"c": one("c", 15)}
    again.close()


def test_a_full_disk_changes_nothing(disk: Disk) -> None:
    disk.write([ScopeWrite("pods", 10, [one("a", 3)])])
    disk._database.execute("PRAGMA max_page_count = 20")
    with pytest.raises(DiskUnavailable, match="full"):
        disk.write([ScopeWrite("pods", 11, [one("b", 11)]), ScopeWrite("nodes", 11, [one("n", 11, b"x" * 200_000)])])
    pods = disk.read("pods")
    assert pods == Kept(10, [one("a", 3)])
    assert disk.read("nodes") is None
    disk._database.execute("PRAGMA max_page_count = 20000")
    disk.write([ScopeWrite("pods", 11, [one("b", 11)])])
    assert set(by_name(disk.read("pods"))) == {"a", "b"}


def test_a_file_of_another_kind_is_put_aside(path: Path) -> None:
    path.write_bytes(b"no database " * 1000)
    with pytest.raises(DiskDamaged):
        Disk(path)
    begin_anew(path)
    Disk(path).close()
    assert Path(f"{path}.damaged").read_bytes().startswith(b"no database")
    later = sqlite3.connect(path)
    later.execute("PRAGMA user_version = 99")
    later.close()
    with pytest.raises(DiskDamaged, match="version 99"):
        Disk(path)


def test_a_folder_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(DiskUnavailable, match="No such file"):
        Disk(tmp_path / "missing" / "objects.db")


def states(count: int) -> Iterator[ScopeWrite]:
    """Changes of a scope, always the same ones; after each, `expected` says what is there."""
    dice = random.Random(7)
    for number in range(1, count + 1):
        names = [f"o{dice.randrange(40)}" for _ in range(3)]
        gone = [("ns", f"o{dice.randrange(40)}")]
        puts = {name: one(name, number, bytes([number % 251]) * dice.randrange(3000)) for name in names}
        yield ScopeWrite("pods", number, list(puts.values()), gone, anew=number % 100 == 50)


def expected(count: int) -> list[dict[str, Stored]]:
    """What is there after each change; the first is before any."""
    after: list[dict[str, Stored]] = [{}]
    for write in states(count):
        there = {} if write.anew else dict(after[-1])
        for _, name in write.removed:
            there.pop(name, None)
        there.update((put.name, put) for put in write.puts)
        after.append(there)
    return after


FLIPS = 150


def test_no_bit_that_flips_in_the_file_gives_a_wrong_answer(path: Path) -> None:
    after = expected(60)
    disk = Disk(path)
    for write in states(60):
        disk.write([write])
    disk.close()
    whole, dice, damaged = bytearray(path.read_bytes()), random.Random(11), 0
    for _ in range(FLIPS):
        position, bit = dice.randrange(len(whole)), 1 << dice.randrange(8)
        whole[position] ^= bit
        path.write_bytes(whole)
        whole[position] ^= bit
        try:
            again = Disk(path)
        except DiskDamaged:
            damaged += 1
            continue
        try:
            kept = again.read("pods")
            assert kept is None or by_name(kept) == after[kept.version]
        except DiskDamaged:
            damaged += 1
        finally:
            again.close()
    assert damaged > FLIPS / 10


def test_no_cut_of_the_file_gives_a_wrong_answer(path: Path) -> None:
    """As after a power cut on a disk that lost the end of it: of the file or of its log."""
    after = expected(60)
    disk = Disk(path)
    for write in states(60):
        disk.write([write])
    log = Path(f"{path}-wal")
    whole, journal = path.read_bytes(), log.read_bytes()
    assert len(journal) > 50_000
    read = 0
    for part in range(40):
        copy = path.with_name(f"copy-{part}.db")
        copy.write_bytes(whole)
        Path(f"{copy}-wal").write_bytes(journal[: len(journal) * part // 40])
        try:
            again = Disk(copy)
            kept = again.read("pods")
        except DiskDamaged:
            continue
        if kept is not None:
            read += 1
            assert by_name(kept) == after[kept.version]
        again.close()
    disk.close()
    assert read > 10


def test_a_process_that_is_killed_at_any_moment_leaves_a_state_that_was(path: Path) -> None:
    after, dice = expected(2000), random.Random(5)
    for _ in range(3):
        path.unlink(missing_ok=True)
        writer = subprocess.Popen(
            [sys.executable, "-m", "tests.edge_agent.autonomy.kept.test_disk", str(path)],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert writer.stdout is not None
        for _ in range(dice.randrange(5, 300)):
            writer.stdout.readline()
        writer.send_signal(signal.SIGKILL)
        rest, _ = writer.communicate()
        told = int((rest.split() or ["0"])[-1])
        disk = Disk(path)
        kept = disk.read("pods")
        assert kept is not None
        assert kept.version >= told
        assert by_name(kept) == after[kept.version]
        disk.close()
        begin_anew(path)


def main() -> None:
    """Writes one state after the other, and says of each when it is there."""
    disk = Disk(Path(sys.argv[1]))
    for write in states(2000):
        disk.write([write])
        print(write.version, flush=True)


if __name__ == "__main__":
    main()


def test_a_write_that_cannot_be_leaves_nothing_open(disk: Disk) -> None:
    disk.write([ScopeWrite("pods", 5, [one("a", 3)])])
    with pytest.raises(DiskUnavailable):
        disk.write([ScopeWrite("pods", 6, [Stored("ns", "\ud800", "u", 4, b"raw")])])
    disk.write([ScopeWrite("pods", 7, [one("b", 6)])], durable=True)
    assert set(by_name(disk.read("pods"))) == {"a", "b"}


def test_a_damaged_scope_is_written_anew(disk: Disk) -> None:
    disk.write([ScopeWrite("pods", 5, [one("a", 3)])])
    disk._database.execute("UPDATE scopes SET count = 7")
    with pytest.raises(DiskDamaged):
        disk.write([ScopeWrite("pods", 6, [one("b", 6)])])
    disk.write([ScopeWrite("pods", 7, [one("c", 6)], anew=True)])
    assert set(by_name(disk.read("pods"))) == {"c"}
