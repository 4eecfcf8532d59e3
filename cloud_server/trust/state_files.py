"""Names the certificates and keys in a server's state folder."""

from __future__ import annotations

from typing import Final

CA_FILE: Final = "ca.crt"
"""The authorities whose certificates are accepted: first the one that signs, then at most one beside it."""
CA_KEY_FILE: Final = "ca.key"
CA_BESIDE_KEY_FILE: Final = "ca-beside.key"
"""The key of a second authority. Which of the two keys belongs to which certificate is seen by trying."""
CROSS_FILE: Final = "ca-cross.crt"
"""The certificates of our authorities that the ones before them signed, the newest first."""
SERVER_FILE: Final = "server.crt"
"""The file of the server's certificate with its chain."""
SERVER_KEY_FILE: Final = "server.key"
SITE_PROXY_FILE: Final = "site-proxy.pem"
"""The file of the certificate and key of the CONNECT front end for the kubeconfigs of sites."""
OPERATORS_KUBECONFIG: Final = "admin.kubeconfig"
"""The kubeconfig that `init` makes for its user."""
POLICY_FILE: Final = "policy.toml"
"""The policy file, unless the configuration names another one."""
