"""Importing a module of ours does nothing: whoever reads, tests or embeds one gets names, and no surprises."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.support.pages import TOP
from tests.support.waits import scaled_s

PACKAGES = ("tunnel", "cloud_server", "edge_agent", "protos")
MODULES = [
    ".".join(path.relative_to(TOP).with_suffix("").parts).removesuffix(".__init__")
    for package in PACKAGES
    for path in sorted((TOP / package).rglob("*.py"))
]

WATCHER = """
import gc, importlib, logging, os, signal, sys, threading, warnings

OURS = tuple(os.path.join(os.getcwd(), name) + os.sep for name in {packages!r})
WATCHED = ("open", "socket.", "subprocess.", "os.system", "os.exec", "os.posix_spawn", "os.fork", "os.mkdir",
           "os.remove", "os.rename", "os.putenv", "os.unsetenv", "ctypes.dlopen", "fcntl.", "signal.", "time.sleep")
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGPIPE)
LIBRARY = ("_pb2.py", "gettext.py")
"Generated code, which protobuf is the author of; and the language of the messages of click, asked for once by click."
did = []

def ours(frame):
    "Whether code of ours asked for it, and not the import system, or a library while it is imported."
    while frame is not None:
        name = frame.f_code.co_filename
        if name.endswith(LIBRARY):
            return None
        if name.startswith(OURS):
            return f"{{os.path.relpath(name)}}:{{frame.f_lineno}}"
        if name.startswith("<frozen importlib"):
            return None
        frame = frame.f_back
    return None

def hook(event, arguments):
    if event.startswith(WATCHED) and (where := ours(sys._getframe(1))):
        did.append(f"{{where}}: {{event}} {{arguments!r}}")

real = os._Environ.__getitem__
def read(self, key):
    if where := ours(sys._getframe(1)):
        did.append(f"{{where}}: reads the environment: {{key}}")
    return real(self, key)

def state():
    return {{
        "threads": sorted(thread.name for thread in threading.enumerate()),
        "signals": [signal.getsignal(number) for number in SIGNALS],
        "log handlers": list(logging.root.handlers),
        "collector": (gc.get_threshold(), gc.isenabled(), gc.get_freeze_count()),
        "streams": (sys.stdout, sys.stderr, sys.excepthook),
        "recursion": sys.getrecursionlimit(),
        "left out": sorted(name for name, module in sys.modules.items() if module is None),
    }}

before = state()
os._Environ.__getitem__ = read
sys.addaudithook(hook)
for name in {modules!r}:
    importlib.import_module(name)
os._Environ.__getitem__ = real
import structlog
after = state()
did += [f"{{name}}: {{before[name]}} became {{after[name]}}" for name in before if before[name] != after[name]]
did += ["structlog is configured"] if structlog.is_configured() else []
print("\\n".join(did), end="")
"""


def run(modules: list[str]) -> str:
    code = WATCHER.format(packages=PACKAGES, modules=modules)
    argv = [sys.executable, "-W", "error", "-c", code]
    done = subprocess.run(argv, cwd=TOP, capture_output=True, text=True, timeout=scaled_s(50), check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_every_module_is_imported_without_doing_anything() -> None:
    assert run(MODULES) == ""


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("import os; os.environ.get('HOME')", "reads the environment: HOME"),
        ("open('/dev/null')", "open ('/dev/null'"),
        ("import socket; socket.socket().close()", "socket.__new__"),
        ("import threading; threading.Thread(target=threading.Event().wait, daemon=True).start()", "threads: "),
        ("import structlog; structlog.configure()", "structlog is configured"),
    ],
)
def test_what_a_module_does_is_seen(line: str, said: str) -> None:
    """The watcher itself: a module of a package of ours that does something is caught."""
    code = WATCHER.format(packages=PACKAGES, modules=[])
    done = f"exec(compile({line!r}, os.path.join(os.getcwd(), 'tunnel', 'x.py'), 'exec'))"
    code = code.replace("os._Environ.__getitem__ = real", f"{done}\nos._Environ.__getitem__ = real")
    ran = subprocess.run(
        [sys.executable, "-c", code], cwd=TOP, capture_output=True, text=True, timeout=scaled_s(50), check=True
    )
    assert said in ran.stdout
