"""Finds the certificates on a box whose end somebody has to know: what each is, until when, and what to do then.

What cannot be read is left out: that is told where it is used.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from edge_agent.identity.identity import Identity
from tunnel.aio.identity.certificate import read_own, read_pem
from tunnel.aio.identity.validity import ExpiryLog, Validity, Watched

LOOK_S = 600.0
"""The seconds between two looks for ends that are near; each is told once a day."""
_RENEWS = (
    "the agent renews it while it is connected, and the log says what keeps it from that; "
    "after its end only edge-agent join with a new token helps"
)
_COMES_BACK = "the agent renews it when it reaches the server, also after its end; the log says what keeps it from that"
_COMES_ALONG = "a renewal of the box's certificate brings the server's next one"
_ROTATES = "the kubelet renews it while it reaches the API server, and after its end asks with a bootstrap token"
_REPLACE = "replace the file; it is read for each connection"


@dataclass(frozen=True, slots=True)
class KubeletFiles:
    """The files of a `[kubelet]` section, or of `[autonomy]`, whose certificates expire."""

    client_cert: Path
    client_key: Path
    ca: Path


class Ends:
    """The watch over the ends of a running agent's certificates: it looks now and then, and tells the log."""

    def __init__(
        self, state: Path, kubelet: Callable[[], KubeletFiles | None], node: Callable[[], KubeletFiles | None]
    ) -> None:
        """Prepares the watch.

        Args:
            state: the state folder, whose certificates are looked at.
            kubelet: is asked at each look for the files of a real kubelet; None: there is none.
            node: is asked at each look for the files by which the kubelet is known to its API server.
        """
        self._state = state
        self._kubelet = kubelet
        self._node = node
        self.watched: list[Watched] = []
        """The certificates that the last look found; empty before the first."""

    async def run(self) -> None:
        """Looks every LOOK_S seconds until it is cancelled."""
        log = ExpiryLog()
        while True:
            self.watched = await asyncio.to_thread(watched, self._state, self._kubelet(), self._node())
            log.look(self.watched, datetime.now(UTC))
            await asyncio.sleep(LOOK_S)


def watched(state: Path, kubelet: KubeletFiles | None, node: KubeletFiles | None = None) -> list[Watched]:
    """Returns all certificates that there are: those of the state folder, those for a real kubelet, and the kubelet's
    own. Blocks.
    """
    found = list(_watched(state, kubelet))
    if node is not None and (validity := _own(node.client_cert, node.client_key)) is not None:
        what = f"the kubelet's certificate for the API server {node.client_cert}"
        found.append(Watched(name="autonomy.client_cert", what=what, validity=validity, remedy=_ROTATES))
    return found


# Internal


def _watched(state: Path, kubelet: KubeletFiles | None) -> Iterator[Watched]:
    box = Identity(state)
    if (validity := _own(box.certificate_path, box.key_path)) is not None:
        what = f"the box's certificate {box.certificate_path}"
        back = (recovery := _last_end(box.recovery_path)) is not None and datetime.now(UTC) < recovery.not_after
        remedy = _COMES_BACK if back else _RENEWS
        yield Watched(name="agent", what=what, validity=validity, remedy=remedy, heals=back)
    if (validity := _last_end(box.ca_path)) is not None:
        what = f"the authority of the server {box.ca_path}"
        yield Watched(name="ca", what=what, validity=validity, remedy=_COMES_ALONG)
    if kubelet is None:
        return
    if (validity := _own(kubelet.client_cert, kubelet.client_key)) is not None:
        what = f"the client certificate for the kubelet {kubelet.client_cert}"
        yield Watched(name="kubelet.client_cert", what=what, validity=validity, remedy=_REPLACE)
    if (validity := _last_end(kubelet.ca)) is not None:
        what = f"the kubelet's authority {kubelet.ca}"
        yield Watched(name="kubelet.ca", what=what, validity=validity, remedy=_REPLACE)


def _own(certificate: Path, key: Path) -> Validity | None:
    try:
        return read_own(certificate.read_bytes(), key.read_bytes()).validity
    except (OSError, ValueError):
        return None


def _last_end(path: Path) -> Validity | None:
    """Returns the validity of the certificate in a file, of several the last that ends; None when it cannot be read.

    Old and new stand beside each other while one takes the other's place.
    """
    try:
        found = read_pem(path.read_bytes())
    except (OSError, ValueError):
        return None
    return max((one.validity for one in found), key=lambda one: one.not_after)
