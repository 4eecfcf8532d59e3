"""A kube-apiserver, and a node that asks it through the agent, over a link that can be cut. There is no kubelet."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tests.e2e.cluster.build import programs
from tests.e2e.cluster.control_plane import ControlPlane, control_plane
from tests.e2e.cluster.pki import ClusterPki
from tests.support.cluster import Box, Cluster, cluster
from tests.support.kubectl_user import KubectlUser
from tests.support.ports import free_ports
from tests.support.relay_process import RelayProcess
from tests.support.tunnel import BOX, wait_until

NODE = "node-1"
OTHER_NODE = "node-2"


@dataclass(kw_only=True)
class ProxiedApi:
    """Use `proxied_api()`."""

    made: Cluster
    box: Box
    control: ControlPlane
    pki: ClusterPki
    link: RelayProcess
    """From the agent to the API server."""
    folder: Path
    port: int
    """Of the proxy."""

    def user(self, name: str, credentials: Mapping[str, str]) -> KubectlUser:
        """Somebody at the proxy."""
        path = self.folder / f"{name}.kubeconfig"
        where = {
            "server": f"https://127.0.0.1:{self.port}",
            "certificate-authority": str(self.box.state / "api-proxy.crt"),
        }
        content = {
            "apiVersion": "v1", "kind": "Config", "current-context": "it",
            "clusters": [{"name": "it", "cluster": where}], "users": [{"name": "it", "user": dict(credentials)}],
            "contexts": [{"name": "it", "context": {"cluster": "it", "user": "it"}}],
        }  # fmt: skip
        path.write_text(yaml.safe_dump(content))
        user = KubectlUser()
        user.kubeconfig, user.folder = path, self.folder
        return user

    @property
    def node(self) -> KubectlUser:
        """The node itself at the proxy."""
        certificate, key = self.pki.folder / "kubelet.crt", self.pki.folder / "kubelet.key"
        return self.user("node", {"client-certificate": str(certificate), "client-key": str(key)})

    def account(self, name: str, role: str) -> KubectlUser:
        """A new ServiceAccount with a ClusterRole everywhere, at the proxy with a token, as pods have it."""
        api = self.control.api
        api.kubectl("create", "serviceaccount", name)
        api.kubectl("create", "clusterrolebinding", name, f"--clusterrole={role}", f"--serviceaccount=default:{name}")
        return self.user(name, {"token": api.kubectl("create", "token", name).strip()})

    @contextlib.contextmanager
    def cut(self) -> Iterator[None]:
        """The agent's connections break, and no other comes about."""
        self.link.refuse()
        self.link.cut()
        try:
            yield
        finally:
            self.link.heal()


class ProxiedApis:
    """One at a time, which takes ten seconds to start, for whichever test comes first. Call `end` at the end."""

    def __init__(self, folder: Callable[[], Path]) -> None:
        """`folder` makes one for each."""
        self._folder = folder
        self._stack = contextlib.ExitStack()
        self._made: ProxiedApi | None = None

    def get(self) -> ProxiedApi:
        """The one that is there, or a new one."""
        if self._made is None:
            self._made = self._stack.enter_context(proxied_api(self._folder()))
        return self._made

    def end(self) -> None:
        """End the one that is there."""
        self._made = None
        self._stack.close()


@contextlib.contextmanager
def proxied_api(
    folder: Path, more: Callable[[ControlPlane], Mapping[str, Any]] = lambda _control: {}
) -> Iterator[ProxiedApi]:
    """All of it, up; everything is gone at the end.

    Args:
        folder: For its data; there already.
        more: Returns more of the agent's `[autonomy]`, once there is an API server.
    """
    pki = ClusterPki(folder / "pki")
    certificate, key = pki.issue("kubelet", f"system:node:{NODE}", group="system:nodes")
    with contextlib.ExitStack() as stack:
        control = stack.enter_context(
            control_plane(folder / "control", programs(), pki, address="127.0.0.1", nodes=[NODE])
        )
        made = stack.enter_context(cluster())
        control.start()
        made.start()
        (port,) = free_ports(1)
        api_port = int(control.api.server.rpartition(":")[2])
        link = stack.enter_context(RelayProcess(("127.0.0.1", api_port)))
        box = made.join(BOX)
        control.wait_ready()
        box.configure({
            "autonomy": {
                "listen": f"127.0.0.1:{port}", "server": link.address, "ca": str(pki.ca),
                "client_cert": str(certificate), "client_key": str(key), **more(control),
            }
        })  # fmt: skip
        made.start_box(BOX)
        wait_until((box.state / "api-proxy.crt").exists, "the proxy has a certificate")
        control.api.apply(
            *({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}} for name in (NODE, OTHER_NODE))
        )
        yield ProxiedApi(made=made, box=box, control=control, pki=pki, link=link, folder=folder, port=port)
