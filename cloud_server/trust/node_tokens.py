"""Tells by which name a node of a Kubernetes cluster may join: the cluster's API says it of the token that is shown.

The kubelet gives such a token to a pod, for an audience and for minutes (a projected ServiceAccount token). In it
stands on which node the pod runs, and a kubelet gets none for pods of other nodes. So a node can be nobody but itself.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection

from cloud_server.kubernetes.access import ClusterUnavailable, Reviewed
from tunnel.core.wire.faults import NODE_TOKEN_REFUSED, FaultError
from tunnel.core.wire.names import AGENT_NAME_RULE, is_agent_name

NODE_NAME = "authentication.kubernetes.io/node-name"
"""The extra of a user by which the API says on which node the pod of a token runs. (Kubernetes 1.32; 1.30 with the
feature gate ServiceAccountTokenPodNodeInfo, which is on by default there.)"""
POD_NAME = "authentication.kubernetes.io/pod-name"
MAX_TOKEN_CHARS = 16 * 1024
"""The longest token that is shown to the API; one of a ServiceAccount has some 1,200 characters."""
ACCOUNT_PREFIX = "system:serviceaccount:"

Review = Callable[[str, str], Awaitable[Reviewed]]
"""A function that asks the cluster's API about a token for an audience, and raises ClusterUnavailable."""


class NodeTokenRefused(FaultError):
    """The token does not say which node may join, or not here; the text is for the node's owner."""

    default_fault = NODE_TOKEN_REFUSED


class NodeTokens:
    """Looks at the tokens of nodes. `use` says which are taken, at any time."""

    def __init__(self, review: Review) -> None:
        """Takes no token yet. `review` asks the cluster."""
        self._review = review
        self._accounts: Collection[str] = ()
        self._audience = ""

    def use(self, accounts: Collection[str], audience: str) -> None:
        """Takes tokens of these ServiceAccounts (`namespace/name`) for this audience from now on, and no others."""
        self._accounts = accounts
        self._audience = audience

    async def node_of(self, token: str) -> str:
        """Returns the name of the node whose pod has a token.

        Raises:
            NodeTokenRefused: it is no such token, or not of an account that may join, or the API cannot be asked.
        """
        if not self._accounts:
            raise NodeTokenRefused("this server takes no tokens of nodes: list their account in [kubernetes] join")
        if not token or len(token) > MAX_TOKEN_CHARS:
            raise NodeTokenRefused("the join token wants a node's token beside it: --kubernetes-token-file")
        try:
            found = await self._review(token, self._audience)
        except ClusterUnavailable as error:
            raise NodeTokenRefused(f"the cluster's API cannot be asked about the node's token: {error}") from error
        if not found.authenticated or self._audience not in found.audiences:
            raise NodeTokenRefused(f"the cluster's API does not know the node's token, for audience {self._audience}")
        account = found.user.removeprefix(ACCOUNT_PREFIX).replace(":", "/", 1)
        if not found.user.startswith(ACCOUNT_PREFIX) or account not in self._accounts:
            raise NodeTokenRefused(f"{found.user[:200]} is not among the accounts of [kubernetes] join")
        nodes = found.extra.get(NODE_NAME, ())
        if len(nodes) != 1 or not found.extra.get(POD_NAME):
            raise NodeTokenRefused(
                "the token is bound to no pod on a node: it has to be a projected one, of Kubernetes 1.32 or later"
            )
        if not is_agent_name(nodes[0]):
            raise NodeTokenRefused(f"the node {nodes[0][:80]!r} cannot name an agent: {AGENT_NAME_RULE}")
        return nodes[0]
