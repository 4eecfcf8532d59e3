"""A cloud server and its boxes, set up by the commands that a user types and run as real processes on free ports."""

from __future__ import annotations

import base64
import contextlib
import json
import shutil
import socket
import ssl
import tempfile
import time
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import yaml

from tests.support.connect_client import connect_through
from tests.support.kubeconfig_files import client_context
from tests.support.policies import everybody_admin
from tests.support.ports import free_ports
from tests.support.processes import Daemon, run_command
from tests.support.waits import Deadline
from tunnel.kubeapi.kubeconfig import kubeconfig

Tables = Mapping[str, Any]
CLOUD_READY_S = 30.0
BOX_READY_S = 30.0
LEFT_S = 10.0
"""How long helpers of a daemon that was killed may take to see it."""


def edit_toml(path: Path, changes: Tables) -> None:
    """Replace top-level entries of a TOML file; a table's keys are merged, None removes an entry."""
    content = tomllib.loads(path.read_text())
    for name, value in changes.items():
        if value is None:
            content.pop(name, None)
        elif isinstance(value, dict):
            content[name] = {**content.get(name, {}), **value}
        else:
            content[name] = value
    path.write_text(_toml(content))


def _toml(content: Tables) -> str:
    lines = [f"{name} = {_value(value)}" for name, value in content.items() if not _is_table(value)]
    for name, value in content.items():
        if not _is_table(value):
            continue
        tables, head = (value, f"[[{name}]]") if isinstance(value, list) else ([value], f"[{name}]")
        for table in tables:
            lines += ["", head, *(f"{key} = {_value(entry)}" for key, entry in table.items())]
    return "\n".join(lines) + "\n"


def _is_table(value: object) -> bool:
    return isinstance(value, dict) or (isinstance(value, list) and bool(value) and isinstance(value[0], dict))


def _value(value: object) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key} = {_value(entry)}" for key, entry in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_value, value)) + "]"
    # JSON writes strings, numbers, true and false just as TOML does.
    return json.dumps(value)


@dataclass(kw_only=True)
class Box:
    """A joined box and its agent."""

    name: str
    state: Path
    agent: Daemon

    @property
    def config(self) -> Path:
        return self.state / "edge-agent.toml"

    def configure(self, changes: Tables) -> None:
        """Change its config; the agent sees it at its next start."""
        edit_toml(self.config, changes)


@dataclass(kw_only=True)
class Cluster:
    """Use `cluster()`, which ends and removes everything."""

    folder: Path
    host: str
    """The address that the server listens on for boxes."""
    tunnel_port: int
    connect_port: int
    fleet_port: int
    server: Daemon
    cloud_server: str = "cloud-server"
    """The server's command: that of this build, or the path of another one's."""
    boxes: dict[str, Box] = field(default_factory=dict)
    forwards: list[dict[str, str]] = field(default_factory=list)

    @property
    def config(self) -> Path:
        return self.folder / "cloud" / "cloud-server.toml"

    @property
    def unix_socket(self) -> Path:
        """The CONNECT front end's unix socket."""
        return self.folder / "cloud" / "connect.sock"

    @property
    def tunnel_address(self) -> str:
        return f"{self.host}:{self.tunnel_port}"

    def init(self, *, hosts: Sequence[str] = (), prefix: Sequence[str] = ()) -> None:
        """`cloud-server init`, behind these words, and the ports of this test in its config."""
        wanted = dict.fromkeys([self.host, "127.0.0.1", "localhost", *hosts])
        names = [word for name in wanted for word in ("--host", name)]
        run_command(self.cloud_server, "init", "--state", str(self.config.parent), *names, prefix=prefix)
        self.bind()
        self.configure(
            {
                "tunnel": {"listen": [f"{self.host}:{self.tunnel_port}"]},
                "connect": {"unix": "connect.sock", "listen": f"127.0.0.1:{self.connect_port}"},
                "fleet": {"listen": f"127.0.0.1:{self.fleet_port}"},
            }
        )

    @property
    def policy(self) -> Path:
        """The server's policy file."""
        return self.config.with_name("policy.toml")

    def bind(self, *users: str) -> None:
        """Write a policy by which the users of tests, and these, may do all."""
        self.policy.write_text(everybody_admin(*users))

    def configure(self, changes: Tables) -> None:
        """Change the server's config; it sees it at its next start."""
        edit_toml(self.config, changes)

    def forward(self, agent: str, target: str) -> int:
        """Add a static forward before the server starts; returns its port on loopback."""
        (port,) = free_ports(1)
        self.forwards.append({"listen": f"127.0.0.1:{port}", "agent": agent, "target": target})
        self.configure({"forward": self.forwards})
        return port

    def start(self) -> None:
        """Start the server and wait until it listens."""
        self.server.start().wait_ready(CLOUD_READY_S)

    def token(self, agent: str, *options: str) -> Path:
        """`cloud-server token create` into a file."""
        path = self.folder / f"{agent}.token"
        text = run_command(
            self.cloud_server, "token", "create", "--config", str(self.config), "--agent", agent, *options
        )
        path.write_text(text)
        path.chmod(0o600)
        return path

    def join(
        self, name: str, *, address: str = "", allow: Sequence[str] = (), host: Tables | None = None,
        prefix: Sequence[str] = (), edge_agent: str = "edge-agent",
    ) -> Box:  # fmt: skip
        """Token, `edge-agent join`, and what the box allows in its config.

        Args:
            name: The agent's.
            address: Where the box finds the server; the server's own when empty (else, say, a relay's).
            allow: Targets that the box allows.
            host: The `[host]` table: what kubectl may do there.
            prefix: What comes before the agent's commands, to enter a namespace.
            edge_agent: The agent's command: that of this build, or the path of another one's.
        """
        token = self.token(name)
        state = self.folder / name
        where = ["--server", address or self.tunnel_address, "--token-file", str(token), "--state", str(state)]
        run_command(edge_agent, "join", *where, prefix=prefix)
        agent = Daemon(
            name, [edge_agent, "run", "--config", str(state / "edge-agent.toml")], self.folder / f"{name}.log",
            prefix=prefix,
        )  # fmt: skip
        box = self.boxes[name] = Box(name=name, state=state, agent=agent)
        box.configure({"allow": [{"target": target} for target in allow] or None, "host": dict(host) if host else None})
        return box

    def start_box(self, name: str) -> Box:
        """Start a box's agent and wait until it has its session."""
        box = self.boxes[name]
        box.agent.start().wait_ready(BOX_READY_S)
        return box

    def kubeconfig(self, user: str = "admin") -> Path:
        """A kubeconfig with a certificate of `user` inside, for any client; the user is taken in if need be."""
        path = self.folder / f"{user}.kubeconfig"
        if not path.exists():  # it takes a command or two
            path.write_text(self._kubeconfig(user))
            path.chmod(0o600)
        return path

    def login(self, user: str, *options: str) -> Path:
        """`cloud-server user kubeconfig` for a user who is there."""
        path = self.folder / f"{user}.login.kubeconfig"
        path.write_text(self.typed("user", "kubeconfig", user, *options))
        path.chmod(0o600)
        return path

    def typed(self, *words: str) -> str:
        """What `cloud-server ... --config FILE` prints."""
        return run_command(self.cloud_server, *words, "--config", str(self.config))

    def user_token(self, user: str, *options: str) -> str:
        """A new token of a user, who is taken in if need be."""
        self.typed("user", "add", user)
        return self.typed("user", "token", user, *options).strip()

    def _kubeconfig(self, user: str) -> str:
        if self.cloud_server != "cloud-server":  # a build of before there were users
            return self.typed("kubeconfig", "--user", user)
        if user != "admin":  # `init` has taken that one in
            self.typed("user", "add", user)
        return self.with_certificate(user, self.typed("user", "certificate", user))

    def with_certificate(self, user: str, pem: str) -> str:
        """A kubeconfig with what `cloud-server user certificate` has printed."""
        certificate, key = pem.partition("-----BEGIN PRIVATE")[0], "".join(pem.partition("-----BEGIN PRIVATE")[1:])
        shown = {
            "client-certificate-data": base64.b64encode(certificate.encode()).decode(),
            "client-key-data": base64.b64encode(key.encode()).decode(),
        }
        ca_pem = (self.config.parent / "ca.crt").read_bytes()
        fleet = tomllib.loads(self.config.read_text())["fleet"]["listen"]
        return kubeconfig(f"https://{fleet}", ca_pem, user, shown, f"127.0.0.1:{self.connect_port}")

    def dial(self, target: str, *, glued: bytes = b"", timeout_s: float = 15.0) -> socket.socket:
        """Connect to `box:port` through the CONNECT front end's unix socket."""
        return connect_through(self.unix_socket, target, glued=glued, timeout_s=timeout_s)

    def dial_tls(
        self, target: str, *, glued: bytes = b"", timeout_s: float = 15.0, headers: str = "", certificate: bool = True
    ) -> socket.socket:
        """Connect to `box:port` through the CONNECT front end over TLS, with a user's certificate or without."""
        return connect_through(
            ("127.0.0.1", self.connect_port), target,
            tls=self.operator_tls(certificate=certificate), glued=glued, timeout_s=timeout_s, headers=headers,
        )  # fmt: skip

    def operator_tls(self, *, certificate: bool = True) -> ssl.SSLContext:
        """A client context that trusts the server, with the certificate of a user `dialer` or with none."""
        text = self.kubeconfig("dialer").read_text()
        return client_context(yaml.safe_load(text), certificate=certificate)

    def logs(self, lines: int = 25) -> str:
        """The tails of all logs, for people."""
        return "\n".join(daemon.tail(lines) for daemon in (self.server, *(box.agent for box in self.boxes.values())))

    def close(self) -> None:
        """End all processes, and remove all files."""
        for box in self.boxes.values():
            box.agent.close()
        self.server.close()
        left = self._processes_left()
        shutil.rmtree(self.folder, ignore_errors=True)
        assert not left, f"left running by this test: {', '.join(left)}"

    def _processes_left(self) -> list[str]:
        """Processes of ours that outlive their daemons, which are killed here; helpers of a daemon have a moment."""
        deadline = Deadline(LEFT_S)
        while (left := self._of_this_folder()) and not deadline.passed():
            time.sleep(0.02)
        # What its daemon was about to start a program in, and a file system holds, cannot be ended by anybody.
        named = [" ".join(process.info["cmdline"]) for process in left if not _has_not_begun(process.pid)]
        for process in left:
            process.kill()
        return named

    def _of_this_folder(self) -> list[psutil.Process]:
        state = f"{self.folder}/"
        return [
            process
            for process in psutil.process_iter(["cmdline"])
            if any(word.startswith(state) for word in process.info["cmdline"] or ())
        ]


def _has_not_begun(pid: int) -> bool:
    """Whether a process was forked and has not executed a program yet: the kernel's PF_FORKNOEXEC."""
    try:
        flags = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[6]
    except OSError:
        return True  # it is gone meanwhile
    return bool(int(flags) & 0x40)


@contextlib.contextmanager
def cluster(
    *,
    host: str = "127.0.0.1",
    hosts: Sequence[str] = (),
    prefix: Sequence[str] = (),
    cloud_server: str = "cloud-server",
) -> Iterator[Cluster]:
    """An initialised server that is not started yet; everything is gone at the end.

    Args:
        host: The address that it listens on for boxes.
        hosts: Other names and addresses of it, for its certificate.
        prefix: See `Cluster.init`.
        cloud_server: Its command: that of this build, or the path of another one's.
    """
    # A short folder: the path of a unix socket has no room for a test's.
    folder = Path(tempfile.mkdtemp(prefix="longline-"))
    tunnel, connect, fleet = free_ports(3)
    config = folder / "cloud" / "cloud-server.toml"
    server = Daemon("cloud-server", [cloud_server, "run", "--config", str(config)], folder / "cloud-server.log")
    made = Cluster(
        folder=folder, host=host, tunnel_port=tunnel, connect_port=connect, fleet_port=fleet, server=server,
        cloud_server=cloud_server,
    )  # fmt: skip
    try:
        made.init(hosts=hosts, prefix=prefix)
        yield made
    except BaseException as error:
        error.add_note(made.logs())
        raise
    finally:
        made.close()
