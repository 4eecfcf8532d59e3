from __future__ import annotations

import subprocess
import sys

PROGRAM = """
import gc, weakref
from tunnel.aio.process.garbage import YOUNG_OBJECTS, settle
class Node: pass
def ring():
    one = Node(); one.self = one
    return weakref.ref(one)
before = ring()
settle()
print(before() is None, gc.get_freeze_count() > 1000, gc.get_threshold()[0] == YOUNG_OBJECTS)
after, kept = ring(), [[] for _ in range(YOUNG_OBJECTS + 100)]
print(after() is None)
"""


def test_what_is_there_stays_and_rings_made_later_are_found() -> None:
    """In a process of its own: the settings stay for the life of a process."""
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=20, check=True)
    assert done.stdout.split() == ["True", "True", "True", "True"]
