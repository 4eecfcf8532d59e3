"""The network of an edge site: a node that nothing can reach, behind a router that hides the site's addresses.

Every site has the same ones, as real sites do: the cloud can tell them apart by nothing that IP knows.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager

from tests.e2e.cluster.namespaces import Namespaces
from tests.support.netns import BoxNamespace, box_namespace

NODE_ADDRESS = "192.168.1.10"
ROUTER_ADDRESS = "192.168.1.1"
ROUTER_RULES = (
    "-A FORWARD -i lan -j ACCEPT",
    "-A FORWARD -o lan -m conntrack --ctstate ESTABLISHED,RELATED -j ACCEPT",
    "-t nat -A POSTROUTING ! -o lan -j MASQUERADE",
)
NODE_RULES = (
    "-A INPUT -i eth0 -m conntrack --ctstate ESTABLISHED,RELATED -j ACCEPT",
    "-A INPUT -i eth0 -j DROP",
    "-A FORWARD -i eth0 -m conntrack --ctstate ESTABLISHED,RELATED -j ACCEPT",
    "-A FORWARD -i eth0 -j DROP",
)
"""What pods do among themselves and towards the outside is none of the firewall's business."""


@contextmanager
def router() -> Iterator[BoxNamespace]:
    """A router with this machine on its outer side; nothing comes in that was not asked for."""
    with box_namespace() as made:
        made.run("sysctl", "-qw", "net.ipv4.ip_forward=1")
        for rule in ROUTER_RULES:
            made.run("iptables", "-w", *rule.split())
        yield made


@contextmanager
def routers(sites: Iterable[str]) -> Iterator[dict[str, BoxNamespace]]:
    """One for each site, by its name."""
    with ExitStack() as stack:
        yield {name: stack.enter_context(router()) for name in sites}


def outside(behind: Mapping[str, BoxNamespace]) -> str:
    """An address of this machine that every site's way out leads to: its own on the way to the first one's router."""
    return next(iter(behind.values())).host_address


def connect(node: Namespaces, behind: BoxNamespace) -> None:
    """Plug a node into a router, and put up its firewall."""
    behind.run("ip", "link", "add", "lan", "type", "veth", "peer", "name", "eth0", "netns", str(node.pid))
    behind.run("ip", "addr", "add", f"{ROUTER_ADDRESS}/24", "dev", "lan")
    behind.run("ip", "link", "set", "lan", "up")
    node.run("ip", "addr", "add", f"{NODE_ADDRESS}/24", "dev", "eth0")
    node.run("ip", "link", "set", "eth0", "up")
    node.run("ip", "route", "add", "default", "via", ROUTER_ADDRESS)
    node.run("sysctl", "-qw", "net.ipv4.ip_forward=1")
    for rule in NODE_RULES:
        node.run("iptables", "-w", *rule.split())
