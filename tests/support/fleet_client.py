"""A client of a fleet API that sees whole answers, codes and all: what kubectl makes of them it does not see."""

from __future__ import annotations

import asyncio
import functools
import http.client
import json
import ssl
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from tests.support.fleet import Fleet
from tests.support.kubeconfig_files import client_context
from tests.support.waits import scaled_s

TIMEOUT_S = 20.0


async def ask(
    fleet: Fleet,
    path: str,
    *,
    method: str = "GET",
    headers: Mapping[str, str] | None = None,
    body: str = "",
    certificate: bool = True,
) -> tuple[int, Any]:
    """The code and the decoded body of an answer; of one that is no JSON, its text.

    Args:
        fleet: whose API is asked.
        path: with its query.
        method: of HTTP.
        headers: beside those that there always are.
        body: empty for none.
        certificate: whether the user's certificate is shown.
    """
    return await asyncio.to_thread(_ask, fleet, path, method, dict(headers or {}), body, certificate)


def _ask(
    fleet: Fleet, path: str, method: str, headers: dict[str, str], body: str, certificate: bool
) -> tuple[int, Any]:
    context = _context(fleet.kubeconfig, certificate)
    connection = http.client.HTTPSConnection(f"127.0.0.1:{fleet.port}", context=context, timeout=scaled_s(TIMEOUT_S))
    try:
        connection.request(method, path, body=body or None, headers=headers)
        answer = connection.getresponse()
        data = answer.read()
    finally:
        connection.close()
    try:
        return answer.status, json.loads(data)
    except ValueError:
        return answer.status, data.decode()


@functools.lru_cache(maxsize=8)
def _context(kubeconfig: Path, certificate: bool) -> ssl.SSLContext:
    return client_context(yaml.safe_load(kubeconfig.read_text()), certificate=certificate)
