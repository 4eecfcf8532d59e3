from __future__ import annotations

import platform
import subprocess
import sys


def test_the_settings_are_taken_and_the_program_lives() -> None:
    """In a process of its own: the settings stay for the life of a process."""
    program = (
        "from tunnel.aio.process.malloc import tune; print(tune()); x = [bytearray(600_000) for _ in range(100)]; del x"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=20, check=True)
    assert done.stdout.strip() == str(platform.libc_ver()[0] == "glibc")


def test_another_c_library_is_left_alone() -> None:
    program = (
        "import ctypes; ctypes.CDLL = lambda name: object(); from tunnel.aio.process.malloc import tune; print(tune())"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=20, check=True)
    assert done.stdout.strip() == "False"
