"""Stands in for a kube-apiserver, as far as routing reads one: it has nodes and nothing else, and its watches tell
nothing. Real ones are in tests/e2e.
"""

from __future__ import annotations

import json
import select
import threading
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self
from urllib.parse import parse_qs, urlsplit

LOOK_S = 0.05


class ApiStandIn:
    """Use as a context manager."""

    def __init__(self, nodes: Mapping[str, str]) -> None:
        """`nodes`: their host names, by the names of the nodes."""
        self.nodes = nodes
        self.watches = 0
        """Watches that are open."""
        self.closing = False
        self._lock = threading.Lock()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = False  # waited for by `server_close`
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": LOOK_S})

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_exc: object) -> None:
        self.closing = True
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(10)

    def kubeconfig(self, path: Path) -> Path:
        """Writes one that leads here."""
        server = f"http://127.0.0.1:{self._server.server_port}"
        context = {"name": "c", "context": {"cluster": "c", "user": "u"}}
        content = {
            "clusters": [{"name": "c", "cluster": {"server": server}}], "users": [{"name": "u", "user": {}}],
            "contexts": [context], "current-context": "c",
        }  # fmt: skip
        path.write_text(json.dumps(content))  # which YAML is, too
        return path

    def count(self, change: int) -> None:
        """A watch came (1) or went (-1)."""
        with self._lock:
            self.watches += change

    def listed(self, resource: str) -> dict[str, Any]:
        """Returns the list of a resource."""
        items = [
            {
                "metadata": {"name": name, "resourceVersion": "5"},
                "spec": {},
                "status": {"addresses": [{"type": "Hostname", "address": host}]},
            }
            for name, host in self.nodes.items()
        ]
        return {"metadata": {"resourceVersion": "5"}, "items": items if resource == "nodes" else []}

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        api = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                url = urlsplit(self.path)
                self.send_response(200)
                self.send_header("Content-Type", "application/json")
                if parse_qs(url.query).get("watch", ["false"]) != ["false"]:
                    self._watch()
                    return
                body = json.dumps(api.listed(url.path.rpartition("/")[2])).encode()
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def _watch(self) -> None:
                self.send_header("Transfer-Encoding", "chunked")
                self.end_headers()
                self.close_connection = True
                api.count(1)
                while not api.closing and not select.select([self.connection], [], [], LOOK_S)[0]:
                    pass
                api.count(-1)

            def log_message(self, *_words: object) -> None:
                """Nobody reads it."""

        return Handler
