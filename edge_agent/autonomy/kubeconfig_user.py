"""Tells whether the API proxy takes the user of a kubeconfig: the node itself by its certificate, others by a token.

A kubeconfig is read line by line here, as programs write it: the agent has no YAML.
"""

from __future__ import annotations

import re
from base64 import b64decode
from pathlib import Path

from tunnel.aio.identity.certificate import CertificateUnreadable, name_text, read_pem

_TOKEN = re.compile(r"^\s*(?:-\s+)?(?:token|tokenFile|exec):", re.MULTILINE)
_FILE = re.compile(r"^\s*(?:-\s+)?client-certificate:[ \t]*(\S+)[ \t]*$", re.MULTILINE)
_DATA = re.compile(r"^\s*(?:-\s+)?client-certificate-data:[ \t]*(\S+)[ \t]*$", re.MULTILINE)


def refused_user(text: str, folder: Path, own: Path) -> str:
    """Returns why the proxy refuses the user of a kubeconfig; empty when it takes it, or that cannot be told. Blocks.

    Args:
        text: the kubeconfig.
        folder: where it is, which its relative paths count from.
        own: the file with the node's own certificate.
    """
    if _TOKEN.search(text):
        return ""
    try:
        if found := _FILE.search(text):
            shown = (folder / found[1].strip("\"'")).read_bytes()
        elif found := _DATA.search(text):
            shown = b64decode(found[1])
        else:
            return ""
        subject = read_pem(shown)[0].subject_der
        if subject == read_pem(own.read_bytes())[0].subject_der:
            return ""
    except (OSError, CertificateUnreadable, ValueError):
        return ""
    return (
        f"it shows the certificate of {name_text(subject)}, and the proxy takes none but the node's own: give the"
        " component a ServiceAccount's token, or leave it at the API server"
    )
