"""Names the certificates and keys in a server's state folder."""

from __future__ import annotations

from typing import Final

CA_FILE: Final = "ca.crt"
"""The file of the authority's own certificate."""
CA_KEY_FILE: Final = "ca.key"
SERVER_FILE: Final = "server.crt"
"""The file of the server's certificate with its chain."""
SERVER_KEY_FILE: Final = "server.key"
SITE_PROXY_FILE: Final = "site-proxy.pem"
"""The file of the certificate and key of the CONNECT front end for the kubeconfigs of sites."""
