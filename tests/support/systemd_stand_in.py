"""What systemd-run(1) and systemctl(1) do with a unit of a command, as far as the agent's service uses them.

Run as either, by its name; what runs stands in files beside the program.
"""

import os
import pwd
import signal
import sys
import time
from pathlib import Path

HERE = Path(sys.argv[0]).parent
KNOWN = {"--quiet", "--pipe", "--wait", "--collect"}


def systemd_run(words: list[str]) -> None:
    """Become the command, as the account."""
    options, argv = words[: words.index("--")], words[words.index("--") + 1 :]
    valued = dict(
        word.split("=", 1) for word in options if "=" in word and not word.startswith(("--property", "--set"))
    )
    flags = {word for word in options if "=" not in word}
    if flags - KNOWN or valued.keys() - {"--service-type", "--unit", "--slice", "--uid"}:
        sys.exit(f"unknown option in {options}")
    environment = dict(word.removeprefix("--setenv=").split("=", 1) for word in options if word.startswith("--setenv="))
    (HERE / valued["--unit"]).write_text(str(os.getpid()))
    entry = pwd.getpwnam(valued["--uid"])
    os.umask(0o022)
    os.chdir(entry.pw_dir if Path(entry.pw_dir).is_dir() else "/")
    os.initgroups(entry.pw_name, entry.pw_gid)
    os.setgid(entry.pw_gid)
    os.setuid(entry.pw_uid)
    # systemd.service(5): $NAME is a variable, $$ a dollar.
    assert all("$" not in word.replace("$$", "") for word in argv)
    os.execvpe(argv[0], [word.replace("$$", "$") for word in argv], environment)


def systemctl(words: list[str]) -> None:
    """Send a signal to all of a unit."""
    _, number, unit = words
    pid = int((HERE / unit).read_text())
    for _ in range(100):
        try:
            os.killpg(pid, signal.Signals[f"SIG{number.removeprefix('--signal=')}"])
            return
        except ProcessLookupError:
            time.sleep(0.001)


if __name__ == "__main__":
    {"systemd-run": systemd_run, "systemctl": systemctl}[Path(sys.argv[0]).name](sys.argv[1:])
