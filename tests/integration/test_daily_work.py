"""Daily work with `longline` alone: every verb as a process, against a real server and three real boxes."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import pwd
import re
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
import yaml

from tests.support.cluster import Cluster, cluster
from tests.support.pages import commands
from tests.support.ports import free_ports
from tests.support.processes import BIN, environment
from tests.support.pty_session import PtySession
from tests.support.targets import Target, pattern
from tests.support.tunnel import exchange, read_to_end, wait_until
from tests.support.waits import scaled_s

SITES = {"box-1": "lyon", "box-2": "lyon", "box-3": "paris"}
MIB = 1024 * 1024
Ran = subprocess.CompletedProcess[bytes]


@dataclass
class Fleet:
    """Three boxes and an operator with a home of their own."""

    cluster: Cluster
    home: Path
    kubeconfig: Path
    target: Target
    """On the boxes: answers when it has seen the end of what it is sent."""

    @property
    def env(self) -> dict[str, str]:
        return environment({"KUBECONFIG": str(self.kubeconfig), "HOME": str(self.home)})

    def log(self, box: str) -> Path:
        """The file that a box offers; its container is `app.log`."""
        return self.cluster.folder / "logs" / box / "app.log"

    def argv(self, *words: str) -> list[str]:
        return [str(BIN / "longline"), *words]

    def run(self, *words: str, stdin: bytes = b"", code: int = 0, env: dict[str, str] | None = None) -> Ran:
        done = subprocess.run(
            self.argv(*words), input=stdin, capture_output=True, env=self.env | (env or {}), cwd=self.home,
            timeout=scaled_s(60),
        )  # fmt: skip
        assert done.returncode == code, (words, done)
        assert b"Traceback" not in done.stderr
        return done

    def out(self, *words: str) -> str:
        return self.run(*words).stdout.decode()

    def refused(self, *words: str, code: int = 1) -> str:
        """What a command says that fails: one line, and nothing on its output."""
        done = self.run(*words, code=code)
        assert done.stdout == b""
        return done.stderr.decode()

    @contextlib.contextmanager
    def running(self, *words: str) -> Iterator[subprocess.Popen[bytes]]:
        with subprocess.Popen(
            self.argv(*words), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=self.env,
            cwd=self.home, bufsize=0,
        ) as process:  # fmt: skip
            try:
                yield process
            finally:
                process.kill()


@contextlib.contextmanager
def fleet(names: Sequence[str] = tuple(SITES)) -> Iterator[Fleet]:
    me = pwd.getpwuid(os.geteuid()).pw_name
    with cluster() as made, Target("late-echo") as target:
        made.start()
        home = made.folder / "home"
        home.mkdir()
        for name in names:
            log = made.folder / "logs" / name / "app.log"
            log.parent.mkdir(parents=True)
            log.write_text("".join(f"{name} line {number}\n" for number in range(1, 6)))
            allow = [f"127.0.0.1:{target.port}"]
            box = made.join(name, allow=allow, host={"exec": True, "user": me, "files": [str(log)]})
            box.configure({"labels": {"site": SITES[name]}})
        for name in names:
            made.boxes[name].agent.start()
        for name in names:
            made.boxes[name].agent.wait_ready()
        yield Fleet(made, home, made.kubeconfig(), target)


@pytest.fixture(scope="module")
def shared() -> Iterator[Fleet]:
    with fleet() as made:
        yield made


# ------------------------------------------------------------------------------------------------------- ls, and names


def test_ls(shared: Fleet) -> None:
    lines = [line.split() for line in shared.out("ls").splitlines()]
    assert lines[0] == ["NAME", "STATE", "SINCE", "LABELS"]
    assert [(line[0], line[1], line[3]) for line in lines[1:]] == [
        (name, "up", f"site={site}") for name, site in SITES.items()
    ]
    assert shared.out("ls", "-l", "site=lyon", "-o", "name") == "box-1\nbox-2\n"
    assert "x86_64" in (wide := shared.out("ls", "-o", "wide")) or "amd64" in wide
    (paris,) = json.loads(shared.out("ls", "-l", "site!=lyon", "-o", "json"))
    assert (paris["name"], paris["state"], paris["labels"]) == ("box-3", "up", {"site": "paris"})
    assert shared.out("ls", "box-1", "-o", "name") == "host\napp.log\n"


def test_a_close_name_is_suggested(shared: Fleet) -> None:
    assert "there is no box named box-: did you mean box-" in shared.refused("ls", "box-", code=1)
    assert "there is no box named bux-1: did you mean box-1" in shared.refused("exec", "bux-1", "--", "true", code=255)
    assert "there is no box named zz: longline ls shows them" in shared.refused("logs", "zz")
    assert "no box has the labels site=rome" in shared.refused("exec", "-l", "site=rome", "--", "true", code=255)


def test_several_kubeconfigs_and_a_context(shared: Fleet) -> None:
    """The first file that names a thing wins, as with kubectl; one that is not there is left out."""
    other = shared.home / "other.kubeconfig"
    config = yaml.safe_load(shared.kubeconfig.read_text())
    config["clusters"][0]["cluster"]["server"] = "https://127.0.0.1:1"
    config["contexts"].append({**config["contexts"][0], "name": "second"})
    config["current-context"] = "second"
    other.write_text(yaml.safe_dump(config))
    both = {"KUBECONFIG": os.pathsep.join(map(str, [shared.home / "missing", shared.kubeconfig, other]))}
    assert b"box-1" in shared.run("ls", env=both).stdout
    assert b"box-1" in shared.run("ls", "--context", "second", env=both).stdout
    done = shared.run("ls", "--context", "third", env=both, code=1)
    assert b"has no context 'third', only: longline, second" in done.stderr
    done = shared.run("ls", "--kubeconfig", str(other), env=both, code=1)
    assert b"127.0.0.1:1: connection refused" in done.stderr


# ---------------------------------------------------------------------------------------------------------------- exec


def test_exec_passes_bytes_and_the_exit_code(shared: Fleet) -> None:
    said = os.urandom(3 * MIB)
    done = shared.run("exec", "-i", "box-1", "--", "sh", "-c", "cat; echo err >&2; exit 42", stdin=said, code=42)
    assert done.stdout == said
    assert done.stderr == b"err\n"


def test_exec_on_a_terminal(shared: Fleet) -> None:
    argv = shared.argv("exec", "-it", "box-1", "--", "sh")
    with PtySession(argv, env=shared.env, size=(30, 101), cwd=shared.home) as shell:
        shell.type("stty size\n")
        shell.expect("30 101")
        shell.resize(31, 99)
        shell.type("while [ \"$(stty size)\" != '31 99' ]; do :; done; echo resi''zed\n")
        shell.expect("resized")
        shell.type("sh -c 'echo slee\"\"ps; exec sleep 100'\n")
        shell.expect("sleeps")
        shell.type("\x03")  # goes to the box: it is not this command that ends
        shell.expect(r"\^C")
        shell.type("echo st''ill; exit 7\n")
        shell.expect("still")
        assert shell.wait() == 7


def test_exec_on_many_boxes(shared: Fleet) -> None:
    done = shared.run("exec", "-l", "site=lyon", "--", "sh", "-c", "echo one; echo two; echo three")
    rows = [line.split() for line in done.stdout.decode().splitlines()]
    assert rows[0] == ["BOX", "EXIT", "OUTPUT"]
    assert rows[1:] == [["box-1", "0", "one"], ["two"], ["three"], ["box-2", "0", "one"], ["two"], ["three"]]
    done = shared.run("exec", "-l", "site", "--lines", "1", "--", "sh", "-c", "seq 9; exit 3", code=1)
    assert done.stdout.decode().count("3   ") + done.stdout.decode().count("(+8 lines)") >= 3
    shown = json.loads(
        shared.run("exec", "-l", "site", "-o", "json", "--", "sh", "-c", "echo out; echo err >&2").stdout
    )
    assert [(one["box"], one["exit_code"], one["stdout"], one["stderr"]) for one in shown] == [
        (name, 0, "out\n", "err\n") for name in SITES
    ]


def test_an_interrupt_ends_it_everywhere(shared: Fleet) -> None:
    """Nobody waits for the slowest box, and nothing goes on there."""
    mark = shared.cluster.folder / "runs"
    command = f'echo $$ >>"{mark}"; exec sleep 1000'
    with shared.running("exec", "-l", "site=lyon", "--", "sh", "-c", command) as running:
        wait_until(lambda: mark.exists() and len(mark.read_text().split()) == 2, "both run")
        running.send_signal(signal.SIGINT)
        assert running.wait(scaled_s(5)) == 130
    for pid in mark.read_text().split():
        wait_until(lambda pid=pid: not psutil.pid_exists(int(pid)), "it has ended on the box")  # type: ignore[misc]


# ---------------------------------------------------------------------------------------------------------------- logs


def test_logs(shared: Fleet) -> None:
    assert shared.out("logs", "box-1") == "".join(f"box-1 line {number}\n" for number in range(1, 6))
    assert shared.out("logs", "box-1", str(shared.log("box-1")), "--tail", "1") == "box-1 line 5\n"
    assert "did you mean app.log" in shared.refused("logs", "box-1", "ap.log")
    assert shared.out("logs", "box-1,box-2", "--tail", "1") in (
        "box-1 | box-1 line 5\nbox-2 | box-2 line 5\n",
        "box-2 | box-2 line 5\nbox-1 | box-1 line 5\n",
    )
    with shared.running("logs", "-f", "--tail", "0", "box-2") as follower:
        assert follower.stdout is not None
        seen = bytearray()
        reader = threading.Thread(target=lambda: seen.extend(follower.stdout.readline()))  # type: ignore[union-attr]
        reader.start()
        written = 0
        while reader.is_alive():
            with shared.log("box-2").open("a") as log:
                log.write(f"more {written}\n")
            written += 1
            reader.join(0.2)
        assert seen.startswith(b"more ")


# ------------------------------------------------------------------------------------------------------------------ cp


def test_cp_of_a_file_both_ways(shared: Fleet) -> None:
    content = b"".join(pattern(5, 5 * MIB))
    (shared.home / "there.bin").write_bytes(content)
    (shared.home / "there.bin").chmod(0o640)
    away = shared.cluster.folder / "away"
    away.mkdir()
    shared.run("cp", "there.bin", f"box-1:{away}/")
    assert (away / "there.bin").read_bytes() == content
    assert (away / "there.bin").stat().st_mode & 0o777 == 0o640
    shared.run("cp", f"box-1:{away}/there.bin", "back.bin")
    assert (shared.home / "back.bin").read_bytes() == content
    assert (shared.home / "back.bin").stat().st_mode & 0o777 == 0o640
    shared.run("cp", "/dev/null", f"box-1:{away}/x", code=1)
    assert sorted(path.name for path in away.iterdir()) == ["there.bin"]


@pytest.mark.e2e
def test_cp_of_a_folder_both_ways(shared: Fleet) -> None:
    source = shared.home / "tree"
    names = ["a", "sub dir/b", "sub dir/ünï\ncode", "sub dir/-rf", "empty/", "*"]
    for name in names:
        path = source / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if name.endswith("/"):
            path.mkdir()
        else:
            path.write_bytes(os.urandom(len(name) * 1000))
    (source / "a").chmod(0o755)
    (source / "empty").chmod(0o700)
    (source / "link").symlink_to("/etc/passwd")
    away = shared.cluster.folder / "away-tree"
    done = shared.run("cp", "tree", f"box-2:{away}")
    assert b"link" in done.stderr
    shared.run("cp", f"box-2:{away}", "copied")
    for copy in (away, shared.home / "copied"):
        assert not (copy / "link").exists()
        for name in names:
            ours, theirs = source / name, copy / name
            assert ours.stat().st_mode == theirs.stat().st_mode
            assert ours.is_dir() or ours.read_bytes() == theirs.read_bytes()
    shared.run("cp", "tree", f"box-2:{away}")  # into the folder that is there now
    assert (away / "tree" / "a").exists()


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["nothing", "box-1:/tmp/x"], "nothing is not there"),
        (["box-1:/nothing", "."], "box-1:/nothing is not there"),
        (["box-1:/etc/hostname", "box-2:/tmp"], "one of the two is on a box"),
        (["/etc/hostname", "box-1:/nothing/there"], "was not copied: box-1:"),
        (["/etc/hostname", "box-1:/nothing/"], "box-1:/nothing/ is no folder"),
    ],
)
def test_cp_that_cannot_be(shared: Fleet, words: list[str], says: str) -> None:
    assert says in shared.refused("cp", *words, code=2 if "one of" in says else 1)


@pytest.mark.e2e
def test_a_server_killed_under_cp_leaves_no_half_file() -> None:
    with fleet(["box-1"]) as made:
        source, away = made.home / "big.bin", made.cluster.folder / "away.bin"
        with source.open("wb") as file:
            file.truncate(600 * MIB)  # it is read twice, for its checksum first
        away.write_text("what was there before")
        with made.running("cp", str(source), f"box-1:{away}") as copy:

            def parts() -> list[Path]:
                return list(away.parent.glob(".away.bin.*.part"))

            wait_until(lambda: any(part.stat().st_size > MIB for part in parts()), "bytes arrive", within_s=30)
            made.cluster.server.kill()
            assert copy.wait(scaled_s(30)) == 1
            assert copy.stderr is not None
            text = copy.stderr.read().decode()
        assert "was not copied: box-1: 127.0.0.1:" in text
        assert "the connection broke" in text
        assert text.count("\n") == 1
        assert away.read_text() == "what was there before"
        made.cluster.start()
        wait_until(lambda: not parts(), "the part is gone", within_s=20)


# ----------------------------------------------------------------------------------------------- ssh, forward, connect


def test_forward_carries_every_byte_and_half_closes(shared: Fleet) -> None:
    first, second = free_ports(2)
    target = f"box-1:{shared.target.port}"
    said = b"".join(pattern(9, 3 * MIB))
    with shared.running("forward", "-L", f"{first}:{target}", "-L", f"[::1]:{second}:{target}") as forward:
        assert forward.stderr is not None
        assert forward.stderr.readline().decode() == f"listening on 127.0.0.1:{first} for {target}\n"
        assert forward.stderr.readline().decode() == f"listening on [::1]:{second} for {target}\n"
        socks = [socket.create_connection((host, port), 30) for host, port in (("127.0.0.1", first), ("::1", second))]
        for sock in socks:
            threading.Thread(target=_say, args=(sock, said), daemon=True).start()
        for sock in socks:
            heard = read_to_end(sock)
            assert hashlib.sha256(heard).digest() == hashlib.sha256(said).digest()
            sock.close()
        forward.send_signal(signal.SIGINT)
        assert forward.wait(10) == 130


def _say(sock: socket.socket, data: bytes) -> None:
    sock.sendall(data)
    sock.shutdown(socket.SHUT_WR)


@pytest.mark.e2e
def test_forward_outlives_its_server() -> None:
    with fleet(["box-1"]) as made, Target("echo") as echo:
        made.cluster.boxes["box-1"].configure({"allow": [{"target": f"127.0.0.1:{echo.port}"}]})
        made.cluster.boxes["box-1"].agent.stop()
        made.cluster.start_box("box-1")
        with made.running("forward", "-L", f"0:box-1:{echo.port}") as forward:
            assert forward.stderr is not None
            port = int(forward.stderr.readline().split()[2].rpartition(b":")[2])
            first = socket.create_connection(("127.0.0.1", port), 30)
            assert exchange(first) == b"ping"
            made.cluster.server.kill()
            with first, pytest.raises(ConnectionResetError):  # never a clean end
                first.recv(1)

            def works() -> bool:
                """Whether a new connection is carried; while none can be, it is reset, perhaps before it is up."""
                with contextlib.suppress(ConnectionResetError):
                    with socket.create_connection(("127.0.0.1", port), 30) as sock:
                        assert exchange(sock) == b"ping"
                        return True
                return False

            assert not works()
            made.cluster.start()

            wait_until(works, "the next connection finds the server again", within_s=30)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("box-7:22", "write [BIND:]PORT:BOX:PORT"),
        ("99999:box-7:22", "write"),
        ("192.0.2.1:0:box-7:22", "cannot listen"),
    ],
)
def test_forwards_that_cannot_be(shared: Fleet, text: str, says: str) -> None:
    assert says in shared.refused("forward", "-L", text)


def test_via_is_remembered_and_comes_from_the_kubeconfig(shared: Fleet) -> None:
    """A kubeconfig of before, without the extension, needs --via once."""
    config = yaml.safe_load(shared.kubeconfig.read_text())
    del config["clusters"][0]["cluster"]["extensions"]
    old = shared.home / "old.kubeconfig"
    old.write_text(yaml.safe_dump(config))
    home = shared.home / "fresh"
    home.mkdir()
    env = {"KUBECONFIG": str(old), "HOME": str(home)}
    target = f"box-1:{shared.target.port}"
    done = shared.run("connect", target, env=env, code=1)
    assert b"give --via HOST:PORT once, it is remembered" in done.stderr
    via = f"127.0.0.1:{shared.cluster.connect_port}"
    shared.run("connect", "--via", "127.0.0.1:1", target, env=env, code=1)
    assert not (home / ".config").exists()  # it did not work
    assert shared.run("connect", "--via", via, target, stdin=b"hello", env=env).stdout == b"hello"
    assert shared.run("connect", target, stdin=b"again", env=env).stdout == b"again"
    remembered = home / ".config" / "longline" / "config.toml"
    assert remembered.stat().st_mode & 0o777 == 0o600
    assert via in remembered.read_text()
    assert shared.run("connect", target, stdin=b"by kubeconfig").stdout == b"by kubeconfig"


def test_ssh_is_the_systems_own(shared: Fleet) -> None:
    """A stand-in for ssh shows its words, and runs the ProxyCommand as ssh would."""
    tools = shared.home / "bin"
    tools.mkdir()
    ssh = tools / "ssh"
    ssh.write_text(
        '#!/bin/sh\nfor word; do echo "<$word>" >&2; case $word in ProxyCommand=*) proxy=${word#*=};; esac; done\n'
        f'exec sh -c "$(echo "$proxy" | sed "s/%h/box-1/; s/%p/{shared.target.port}/; s/%%/%/g")"\n'
    )
    ssh.chmod(0o755)
    env = {"PATH": f"{tools}:{shared.env['PATH']}"}
    done = shared.run("ssh", "root@box-1", "-p", "2222", "uptime", "-s", stdin=b"through", env=env)
    assert done.stdout == b"through"
    words = done.stderr.decode().splitlines()
    assert words[-5:] == ["<root@box-1>", "<-p>", "<2222>", "<uptime>", "<-s>"]
    assert "<HostKeyAlias=box-1.127.0.0.1>" in words


@pytest.mark.skipif(shutil.which("ssh") is None, reason="no ssh here")
def test_the_real_ssh_understands_what_it_is_given(shared: Fleet) -> None:
    """`ssh -G` says what it would do, and does nothing."""
    shown = shared.out("ssh", "root@box-1", "-G", "-p", "2222").splitlines()
    assert {"user root", "hostname box-1", "port 2222", "hostkeyalias box-1.127.0.0.1"} <= set(shown)
    (proxy,) = (line for line in shown if line.startswith("proxycommand "))
    assert proxy.endswith(" %h:%p")


# ------------------------------------------------------------------------------------------------------------ the page

GOES_ON = (" -f", " -it ", "longline ssh", "longline forward", "longline connect", " --follow", " --watch")
"""What ends only when somebody ends it, or needs an sshd: the tests above have it."""
OF_THE_SERVER = ("status", "agents", "opens", "events", "whoami")
"""tests/tool/test_commands_server.py has them."""


@pytest.mark.e2e
def test_the_commands_of_the_pages(shared: Fleet) -> None:
    """Each command of docs/daily-work.md and of README that ends by itself, with this fleet's names."""
    names = {"box-7": "box-1", "box-8": "box-2", "/var/log/app.log": str(shared.log("box-1"))}
    names |= {
        "/etc/nginx/conf.d/": f"{shared.home}/",
        "/etc/nginx": str(shared.log("box-1").parent),
        "~": str(shared.home),
    }
    (shared.home / "site.conf").write_text("x")
    (shared.home / "x").write_text("x")
    for folder in (".local/share/bash-completion/completions", ".zfunc", ".config/fish/completions"):
        (shared.home / folder).mkdir(parents=True, exist_ok=True)
    lines = [
        line
        for block in commands()
        if block.marker == "run: tests/integration/test_daily_work.py"
        for line in block.text.splitlines()
        if not any(part in f"{line} " for part in GOES_ON) and line.split()[1] not in OF_THE_SERVER
    ]
    assert len(lines) > 15
    for line in lines:
        command = re.sub("|".join(map(re.escape, names)), lambda match: names[match[0]], line)
        done = subprocess.run(
            ["bash", "-c", command], env=shared.env, cwd=shared.home, capture_output=True, timeout=scaled_s(60)
        )
        assert done.returncode == 0, (command, done)


# ---------------------------------------------------------------------------------------------------------- completion


def test_a_shell_completes_names(shared: Fleet) -> None:
    def completed(*words: str) -> list[str]:
        env = {"_LONGLINE_COMPLETE": "bash_complete", "COMP_WORDS": " ".join(["longline", *words]), "COMP_CWORD": "2"}
        env["COMP_CWORD"] = str(len(words))
        return [line.partition(",")[2] for line in shared.run(env=env).stdout.decode().splitlines()]

    assert completed("exec", "box-") == ["box-1", "box-2", "box-3"]
    assert completed("logs", "box-1", "") == ["app.log"]
    assert completed("ssh", "root@box-1") == ["root@box-1"]
    assert completed("cp", "box-3") == ["box-3:"]
    nowhere = {
        "KUBECONFIG": "/nowhere",
        "_LONGLINE_COMPLETE": "bash_complete",
        "COMP_WORDS": "longline exec b",
        "COMP_CWORD": "2",
    }
    started_s = time.monotonic()
    assert shared.run(env=nowhere).stdout.strip() == b""
    assert time.monotonic() - started_s < scaled_s(10)
    for shell in ("bash", "zsh", "fish"):
        assert "_LONGLINE_COMPLETE" in shared.out("completion", shell)
