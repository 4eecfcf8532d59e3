"""The names of the certificates and keys in a server's state folder."""

from __future__ import annotations

from typing import Final

CA_FILE: Final = "ca.crt"
"""The authority's own certificate."""
CA_KEY_FILE: Final = "ca.key"
SERVER_FILE: Final = "server.crt"
"""The server's certificate with its chain."""
SERVER_KEY_FILE: Final = "server.key"
SITE_PROXY_FILE: Final = "site-proxy.pem"
"""Certificate and key of the CONNECT front end for the kubeconfigs of sites."""
POLICY_FILE: Final = "policy.toml"
"""Who may do what, unless the configuration names another file."""
