"""An administrator who writes objects without a kubectl, of which each call takes a tenth of a second."""

from __future__ import annotations

import contextlib
import http.client
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from tests.support.kubeconfig_files import client_context

Json = dict[str, Any]


class ApiWriter:
    """Use `api_writer()`."""

    def __init__(self, kubeconfig: Path) -> None:
        config = yaml.safe_load(kubeconfig.read_text())
        where = config["clusters"][0]["cluster"]["server"].removeprefix("https://")
        self._connection = http.client.HTTPSConnection(where, context=client_context(config), timeout=20)

    def create(self, path: str, **content: Any) -> Json:
        """Post an object to the path of its list."""
        return self._ask("POST", path, content)

    def merge(self, path: str, **content: Any) -> Json:
        """Change an object by a merge patch."""
        return self._ask("PATCH", path, content, "application/merge-patch+json")

    def delete(self, path: str) -> None:
        """Delete an object."""
        self._ask("DELETE", path, {})

    def read(self, path: str) -> Json:
        """Read a list or an object."""
        return self._ask("GET", path, None)

    def close(self) -> None:
        """End the connection; the next request makes another one."""
        self._connection.close()

    # Internal

    def _ask(self, method: str, path: str, content: Json | None, media_type: str = "application/json") -> Json:
        body = json.dumps(content).encode() if content is not None else None
        self._connection.request(method, path, body, {"Content-Type": media_type} if body is not None else {})
        answer = self._connection.getresponse()
        said = answer.read()
        assert answer.status < 300, f"{method} {path}: {said.decode()}"
        return dict(json.loads(said))


@contextlib.contextmanager
def api_writer(kubeconfig: Path) -> Iterator[ApiWriter]:
    """One with the certificate of a kubeconfig."""
    made = ApiWriter(kubeconfig)
    try:
        yield made
    finally:
        made.close()
