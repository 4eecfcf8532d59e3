"""Leads the kubelet of a K3s agent to the API proxy of its node, and back.

K3s writes its kubeconfigs anew at each start (k3s v1.34 `pkg/agent/config/config.go`). So they stay as they are: the
kubelet is told another one, by an argument that takes the place of K3s' own (`pkg/util/args.go`), in a file of ours
beside the operator's configuration (`config.yaml.d`, whose keys with a `+` add to what others say).

What else K3s runs has certificates of its own, which are not the node's: kube-proxy and K3s itself go on to ask the
API server.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from edge_agent.autonomy.switching import NotSwitched, led_through, read_file, server_of, write_files
from tunnel.aio.process.files import PUBLIC, NewFile, make_folder

COPY = "kubelet.longline.kubeconfig"
"""The name of the kubelet's other kubeconfig, beside that of K3s."""
SETTINGS = "zz-longline.yaml"
"""Of several files the last by name counts, unless all say `kubelet-arg+`."""


@dataclass(frozen=True, slots=True)
class K3sAgent:
    """Where a K3s agent keeps what is changed; its usual places."""

    data: Path = Path("/var/lib/rancher/k3s/agent")
    """The folder of its kubeconfigs."""
    configuration: Path = Path("/etc/rancher/k3s/config.yaml.d")
    """The folder of more configuration files, which may not exist."""

    @property
    def kubeconfig(self) -> Path:
        """Returns the kubeconfig that K3s writes for its kubelet."""
        return self.data / "kubelet.kubeconfig"

    @property
    def copy(self) -> Path:
        """Returns the kubeconfig that the kubelet is told of in its place."""
        return self.data / COPY

    @property
    def settings(self) -> Path:
        """Returns the configuration file that tells it."""
        return self.configuration / SETTINGS


def enable(agent: K3sAgent, url: str, authority: Path) -> str | None:
    """Leads the kubelet through the proxy, from the next start of K3s on. Blocks.

    Returns:
        Where it led before; None when it leads through the proxy already, as K3s would now.

    Raises:
        NotSwitched: all stays as it is.
    """
    own = read_file(agent.kubeconfig)
    try:
        text = own.data.decode()
        server, copy = server_of(text), led_through(text, url, authority).encode()
    except ValueError as error:
        raise NotSwitched(f"{agent.kubeconfig} cannot be used: {error}") from error
    settings = _settings(agent.copy)
    if _holds(agent.copy, copy) and _holds(agent.settings, settings):
        return None
    try:
        make_folder(agent.configuration)
    except OSError as error:
        raise NotSwitched(f"{agent.configuration}: {error.strerror}") from error
    write_files([replace(own, path=agent.copy, data=copy), NewFile(agent.settings, settings, PUBLIC)])
    return server


def disable(agent: K3sAgent) -> str | None:
    """Leads the kubelet to the API server again, from the next start of K3s on. Blocks.

    Returns:
        Where it leads then; None when it did not lead through the proxy.

    Raises:
        NotSwitched: a file stays.
    """
    try:
        server = server_of(read_file(agent.kubeconfig).data.decode())
    except ValueError as error:
        raise NotSwitched(f"{agent.kubeconfig} cannot be used: {error}") from error
    there = [path for path in (agent.settings, agent.copy) if path.exists()]
    if agent.settings in there and not _holds(agent.settings, _settings(agent.copy)):
        raise NotSwitched(f"{agent.settings} was changed since: take the line with kubeconfig= out by hand")
    try:
        for path in there:  # the settings first: they name the other one
            path.unlink()
    except OSError as error:
        raise NotSwitched(f"{error.filename}: {error.strerror}") from error
    return server if there else None


# Internal


def _settings(copy: Path) -> bytes:
    return (
        f'# Written by `edge-agent autonomy enable`; `disable` removes it.\nkubelet-arg+:\n  - "kubeconfig={copy}"\n'
    ).encode()


def _holds(path: Path, data: bytes) -> bool:
    try:
        return path.read_bytes() == data
    except OSError:
        return False
