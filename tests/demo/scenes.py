"""The scenes of the demo, in order: each shows one thing, and checks that it is so."""

from __future__ import annotations

import contextlib
import hashlib
import os
import pwd
import shutil
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path

from tests.demo.stage import Stage, StepFailed
from tests.support.cluster import edit_toml
from tests.support.connect_client import connect_through
from tests.support.kubectl_choice import find_kubectl
from tests.support.netns import BoxNamespace, missing_for_namespaces
from tests.support.ports import free_ports
from tests.support.processes import environment
from tests.support.pty_session import PtySession
from tests.support.relay_process import RelayProcess
from tests.support.targets import TargetProcess
from tests.support.tunnel import read_to_end

BOX = "box-7"
COPY_BYTES = 20 * 1024 * 1024
LOG_LINES = 5
HELLO = "hello from behind the firewall"


class Demo:
    """The scenes, in order."""

    def __init__(self, stage: Stage, namespace: BoxNamespace | None) -> None:
        self.stage = stage
        self.inside: tuple[str, ...] = tuple(namespace.command([])) if namespace else ()
        self.host = namespace.host_address if namespace else "127.0.0.1"
        self.box_address = namespace.address if namespace else "127.0.0.1"
        self.tunnel_port, self.connect_port, self.fleet_port = free_ports(3)

    def run(self) -> None:
        """All of it.

        Raises:
            StepFailed: a step did not show what it should.
        """
        self.cloud()
        self.behind_nat()
        self.join()
        self.nodes_and_exec()
        self.logs()
        self.copies()
        self.web()
        self.cut()

    def cloud(self) -> None:
        stage = self.stage
        stage.step("The cloud: one server, one port that boxes dial")
        hosts = " ".join(f"--host {host}" for host in dict.fromkeys([self.host, "127.0.0.1"]))
        stage.run(f"cloud-server init --state cloud {hosts}")
        edit_toml(
            stage.folder / "cloud" / "cloud-server.toml",
            {
                "tunnel": {"listen": [f"{self.host}:{self.tunnel_port}"]},
                "connect": {"unix": "connect.sock", "listen": f"127.0.0.1:{self.connect_port}"},
                "fleet": {"listen": f"127.0.0.1:{self.fleet_port}"},
            },
        )
        stage.say("(The demo puts free ports into cloud/cloud-server.toml, so that it disturbs nothing here.)")
        stage.start("cloud-server run --config cloud/cloud-server.toml", name="cloud-server")
        stage.run("cloud-server user kubeconfig admin --config cloud/cloud-server.toml --out demo.kubeconfig")
        stage.env["KUBECONFIG"] = str(stage.folder / "demo.kubeconfig")

    def behind_nat(self) -> None:
        stage = self.stage
        self.link = stage.enter(RelayProcess((self.host, self.tunnel_port), listen=(self.host, 0)))
        self.web_port = stage.enter(TargetProcess(["web"], host="0.0.0.0", prefix=self.inside)).ports["web"]
        if not self.inside:
            stage.step("The box: a plain process, for this is not root")
            stage.say(f"({missing_for_namespaces()}: nothing keeps others out of this box. `sudo make demo` shows it.)")
            return
        stage.step("The box: in a network of its own, behind a firewall that drops whatever comes in")
        stage.run("ip -brief address; iptables -S", where=BOX, prefix=self.inside)
        stage.say(f"Its web server listens on port {self.web_port}. From here it cannot be reached:")
        curl = f"curl --silent --show-error --connect-timeout 2 http://{self.box_address}:{self.web_port}/"
        if shutil.which("curl"):
            stage.run(curl, fails=True)
        else:
            stage.run(f"timeout 2 bash -c 'echo > /dev/tcp/{self.box_address}/{self.web_port}'", fails=True)

    def join(self) -> None:
        stage = self.stage
        stage.step("The box joins: it dials out, with a token that works once")
        stage.run(f"cloud-server token create --config cloud/cloud-server.toml --agent {BOX} --out {BOX}.token")
        stage.run(
            f"edge-agent join --server {self.link.address} --token-file {BOX}.token --state box",
            where=BOX,
            prefix=self.inside,
        )
        log = stage.folder / "app.log"
        log.touch()
        edit_toml(
            stage.folder / "box" / "edge-agent.toml",
            {
                "allow": [{"target": f"127.0.0.1:{self.web_port}"}],
                "host": {"exec": True, "user": pwd.getpwuid(os.geteuid()).pw_name, "files": [str(log)]},
            },
        )
        stage.say(
            "What the box allows is in its own file, and the cloud cannot widen it. The demo has listed there the "
            "web server, commands, and a log:"
        )
        stage.run("cat box/edge-agent.toml", where=BOX)
        stage.start("edge-agent run --config box/edge-agent.toml", where=BOX, prefix=self.inside, name="edge-agent")

    def nodes_and_exec(self) -> None:
        stage = self.stage
        stage.step("A stock kubectl, on a box without Kubernetes")
        self.expect(f"{BOX} ", stage.run("kubectl get nodes -o wide"))
        stage.run("kubectl get pods -o wide")
        # Without a namespace the box is this machine, which may have no `ip`.
        command, told = ("ip -brief -4 address", self.box_address) if self.inside else ("uname -n", os.uname().nodename)
        self.expect(told, stage.run(f"kubectl exec {BOX} -- sh -c 'echo \"pid $$ on:\"; {command}'"))
        stage.say("Its exit code is the command's:")
        stage.run(f"kubectl exec {BOX} -- sh -c 'exit 3'; test $? = 3")

    def logs(self) -> None:
        stage = self.stage
        stage.step("Following a log")
        stage.say("On the box something writes a line into app.log from time to time:")
        with _writing(stage.folder / "app.log"):
            stage.follow(f"kubectl logs -f {BOX} -c app.log --tail 2", LOG_LINES)

    def copies(self) -> None:
        stage = self.stage
        stage.step(f"Copying {COPY_BYTES // 1024 // 1024} MB there and back")
        content = os.urandom(COPY_BYTES)
        (stage.folder / "image.bin").write_bytes(content)
        away = stage.folder / "on-the-box"
        away.mkdir()
        stage.run(f"time -p kubectl cp image.bin {BOX}:{away}/image.bin")
        stage.run(f"kubectl cp {BOX}:{away}/image.bin back.bin")
        sums = stage.run("sha256sum image.bin on-the-box/image.bin back.bin")
        if sums.count(hashlib.sha256(content).hexdigest()) != 3:
            raise StepFailed("the copies differ")

    def web(self) -> None:
        stage = self.stage
        stage.step("Any TCP service: curl to the box's own web server, through CONNECT")
        stage.run("cloud-server user certificate admin --config cloud/cloud-server.toml --out admin.pem")
        if not shutil.which("curl"):
            stage.say("(curl is not installed: Python speaks CONNECT in its place)")
            address = ("127.0.0.1", self.connect_port)
            context = ssl.create_default_context(cafile=str(stage.folder / "cloud" / "ca.crt"))
            context.load_cert_chain(stage.folder / "admin.pem")
            with connect_through(address, f"{BOX}:{self.web_port}", tls=context) as sock:
                sock.sendall(b"GET / HTTP/1.0\r\n\r\n")
                answer = read_to_end(sock).decode()
            stage.show(answer)
            self.expect(HELLO, answer)
            return
        (stage.folder / "proxy.curlrc").write_text(
            f'proxytunnel\nproxy = "https://127.0.0.1:{self.connect_port}"\nproxy-cacert = "cloud/ca.crt"\n'
            'proxy-cert = "admin.pem"\nsilent\nshow-error\n'
        )
        stage.run("cat proxy.curlrc")
        self.expect(HELLO, stage.run(f"curl --config proxy.curlrc http://{BOX}:{self.web_port}/"))
        stage.say("What the box does not allow is refused by the box itself:")
        self.expect("403", stage.run(f"curl --config proxy.curlrc --include http://{BOX}:22/", fails=True))

    def cut(self) -> None:
        stage = self.stage
        stage.step("The link is cut while a shell is open")
        stage.show_command(f"kubectl exec -it {BOX} -- sh")
        argv: list[str | Path] = [find_kubectl(), "exec", "-it", BOX, "--", "sh"]
        env = environment(stage.env)
        with PtySession(argv, env=env, cwd=stage.folder) as shell:
            before = self.ask(shell, "before")
            stage.say("Now every connection between the box and the cloud is reset, three times:")
            for _ in range(3):
                stage.say(f"  cut: {self.link.cut()} connection")
                if self.ask(shell, "after") != before:
                    raise StepFailed("that is not the same shell")
            shell.type("exit\n")
            if shell.wait() != 0:
                raise StepFailed("the shell did not end well")
        stage.say("It is the same shell: the session lives on in the next connection, and nothing typed is lost.")

    def ask(self, shell: PtySession, word: str) -> str:
        """Have the shell say a word and its process id; returns the id."""
        shell.type(f"echo {word} in shell $$\n")
        try:
            found = shell.expect(rf"{word} in shell (\d+)", 15)
        except AssertionError as gone:
            raise StepFailed(f"the shell does not answer: {gone}") from gone
        self.stage.show(f"# echo {word} in shell $$\n{found.group(0)}")
        return found.group(1)

    def expect(self, text: str, shown: str) -> None:
        if text not in shown:
            raise StepFailed(f"{text!r} is not in that output")


@contextlib.contextmanager
def _writing(path: Path) -> Iterator[None]:
    """Append a numbered line every 300 ms meanwhile."""
    leave = threading.Event()

    def write() -> None:
        number = 0
        while not leave.wait(0.3):
            number += 1
            with path.open("a") as log:
                log.write(f"measurement {number}: all is well\n")

    writer = threading.Thread(target=write)
    writer.start()
    try:
        yield
    finally:
        leave.set()
        writer.join()
