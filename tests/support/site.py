"""A server and a box behind NAT for the end-to-end tests, with a stock kubectl for it."""

from __future__ import annotations

import contextlib
import os
import pwd
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.support.cluster import Box, Cluster, cluster
from tests.support.kubectl_choice import find_kubectl
from tests.support.netns import BoxNamespace, box_namespace, missing_for_namespaces
from tests.support.processes import environment
from tests.support.pty_session import PtySession
from tests.support.relay_process import RelayProcess
from tests.support.targets import TargetProcess
from tests.support.tunnel import BOX
from tests.support.waits import scaled_s

KUBECTL_S = 30.0


@dataclass(kw_only=True)
class Site:
    """What `site()` made."""

    cluster: Cluster
    box: Box
    link: RelayProcess
    """Between box and server; the box is the one that dials through it."""
    namespace: BoxNamespace | None
    """The box's own network; None where none can be made, and the box is a plain process."""
    ports: dict[str, int]
    """The targets that listen on the box's loopback."""
    log: Path
    """The file that the box offers to `kubectl logs`; its container is `app.log`."""
    folder: Path
    """Scratch; the box sees the same one."""
    kubeconfig: Path

    @property
    def env(self) -> dict[str, str]:
        """What kubectl runs with."""
        return environment({"KUBECONFIG": str(self.kubeconfig), "HOME": str(self.folder)})

    def run_kubectl(
        self, *args: str, stdin: bytes = b"", timeout_s: float = KUBECTL_S
    ) -> subprocess.CompletedProcess[bytes]:
        """Run kubectl to its end, whatever its exit code."""
        return subprocess.run(
            [find_kubectl(), *args], input=stdin, capture_output=True, env=self.env, cwd=self.folder,
            timeout=scaled_s(timeout_s),
        )  # fmt: skip

    def kubectl(self, *args: str, stdin: bytes = b"", timeout_s: float = KUBECTL_S) -> str:
        """Run kubectl, and return what it prints.

        Raises:
            AssertionError: it did not exit with 0.
        """
        done = self.run_kubectl(*args, stdin=stdin, timeout_s=timeout_s)
        assert done.returncode == 0, f"kubectl {' '.join(args)}: {done.stdout.decode()}{done.stderr.decode()}"
        return done.stdout.decode()

    @contextlib.contextmanager
    def follow(self, *args: str) -> Iterator[subprocess.Popen[str]]:
        """A kubectl that runs on, with a pipe from its output."""
        with subprocess.Popen(
            [find_kubectl(), *args], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            env=self.env, cwd=self.folder, text=True,
        ) as process:  # fmt: skip
            try:
                yield process
            finally:
                process.kill()

    def shell(self, *args: str, size: tuple[int, int] = (24, 80)) -> PtySession:
        """A kubectl on a terminal."""
        return PtySession([find_kubectl(), *args], env=self.env, size=size, cwd=self.folder)


@contextlib.contextmanager
def site(behaviours: Sequence[str] = ("echo", "source", "count", "web")) -> Iterator[Site]:
    """A site that is up; everything is gone at the end."""
    with contextlib.ExitStack() as stack:
        namespace = None if missing_for_namespaces() else stack.enter_context(box_namespace())
        prefix = namespace.command([]) if namespace else []
        made = stack.enter_context(cluster(hosts=[namespace.host_address] if namespace else []))
        targets = stack.enter_context(TargetProcess(behaviours, prefix=prefix))
        made.start()
        outside = namespace.host_address if namespace else "127.0.0.1"
        link = stack.enter_context(RelayProcess(("127.0.0.1", made.tunnel_port), listen=(outside, 0)))
        folder = made.folder / "scratch"
        folder.mkdir()
        log = folder / "app.log"
        log.write_text("".join(f"line {number}\n" for number in range(1, 101)))
        box = made.join(
            BOX,
            address=link.address,
            allow=[f"127.0.0.1:{port}" for port in targets.ports.values()],
            host={"exec": True, "user": pwd.getpwuid(os.geteuid()).pw_name, "files": [str(log)]},
            prefix=prefix,
        )
        made.start_box(BOX)
        yield Site(
            cluster=made, box=box, link=link, namespace=namespace, ports=targets.ports, log=log, folder=folder,
            kubeconfig=made.kubeconfig(),
        )  # fmt: skip
