"""Looks at the kubeconfigs of the node's components: where they lead, and whether the proxy takes their users."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from edge_agent.autonomy.check.findings import Finding, fault, good, warning
from edge_agent.autonomy.k3s import K3sAgent
from edge_agent.autonomy.kubeconfig_user import refused_user
from edge_agent.autonomy.switching import server_of

ABOUT = "component"


def components(kubeconfigs: Iterable[Path], url: str, own: Path) -> Iterator[Finding]:
    """Yields what is found in kubeconfigs. Blocks.

    Args:
        kubeconfigs: the files.
        url: of the proxy.
        own: the file with the node's own certificate.
    """
    for path in kubeconfigs:
        try:
            text = path.read_text()
            server = server_of(text)
        except OSError as error:
            yield fault(ABOUT, f"{path}: {error.strerror}", "run this as root")
            continue
        except ValueError as error:  # UnicodeDecodeError is one
            yield warning(
                ABOUT, f"{path} cannot be changed by us: {error}", "change it by hand: edge-agent explain LL1090"
            )
            continue
        is_led = server == url
        if refusal := refused_user(text, path.parent, own):
            kind, remedy = (
                (fault, "edge-agent autonomy disable") if is_led else (warning, "leave it as it is until then")
            )
            yield kind(ABOUT, f"{path}: {refusal}", remedy)
        else:
            where = "through the proxy" if is_led else f"to {server}, until `edge-agent autonomy enable`"
            yield good(ABOUT, f"{path} leads {where}")


def k3s_agent(agent: K3sAgent, url: str) -> Iterator[Finding]:
    """Yields what is found of a K3s agent. Blocks."""
    try:
        is_led = server_of(agent.copy.read_text()) == url and agent.settings.exists()
    except (OSError, ValueError):
        is_led = False
    where = f"through the proxy, by {agent.copy}" if is_led else "past the proxy, until `edge-agent autonomy enable`"
    yield good(ABOUT, f"the kubelet of K3s leads {where}")
    text = (
        "a K3s agent asks its server when it starts, and waits for that: after a reboot without the cloud its kubelet"
    )
    yield warning(ABOUT, f"{text} does not run", "count on K3s agents that stay up; docs/howto/autonomy.md says more")
