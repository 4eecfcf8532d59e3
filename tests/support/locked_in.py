"""Runs a command within what a unit's MemoryDenyWriteExecute= and SystemCallFilter=~@resources forbid, by the same
means of the kernel: `python locked_in.py COMMAND...`. It imports nothing of ours.
"""

import ctypes
import os
import struct
import sys

PR_SET_NO_NEW_PRIVS, PR_SET_SECCOMP, PR_SET_MDWE = 38, 22, 65
MODE_FILTER, MDWE_REFUSE_EXEC_GAIN = 2, 1
# `systemd-analyze syscall-filter @resources`, by their numbers on x86-64.
RESOURCES = (251, 237, 256, 279, 203, 314, 142, 144, 238, 450, 141, 160)
LOAD, EQUAL, RETURN = 0x20, 0x15, 0x06
ALLOW, EPERM = 0x7FFF0000, 0x00050001


def main() -> None:
    """Locks this process in, then becomes the command."""
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    code = [(LOAD, 0, 0, 0)]
    for index, number in enumerate(RESOURCES):
        code.append((EQUAL, len(RESOURCES) - index, 0, number))
    code += [(RETURN, 0, 0, ALLOW), (RETURN, 0, 0, EPERM)]
    packed = b"".join(struct.pack("HBBI", *one) for one in code)
    buffer = ctypes.create_string_buffer(packed)
    program = struct.pack("HxxxxxxP", len(code), ctypes.addressof(buffer))
    for words in (
        (PR_SET_MDWE, MDWE_REFUSE_EXEC_GAIN, 0, 0, 0),
        (PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0),
        (PR_SET_SECCOMP, MODE_FILTER, ctypes.c_char_p(program), 0, 0),
    ):
        if prctl(*words):
            sys.exit(f"prctl {words[0]}: {os.strerror(ctypes.get_errno())}")
    os.execvp(sys.argv[1], sys.argv[1:])


if __name__ == "__main__":
    main()
