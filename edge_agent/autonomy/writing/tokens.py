"""Keeps the tokens that the kubelet got for its pods, for when it asks again and the API server is away.

A kubelet has them in memory only, so after a restart each pod asks again. What is answered then is what the API server
signed for that very request: the same ServiceAccount, audiences and pod. Nothing is ever signed here. A token that has
expired is handed out with its true time: a pod could not start without one, and the kubelet asks for a new one each
minute by itself (kubelet v1.34 `pkg/kubelet/token`).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from hashlib import sha256
from typing import NamedTuple

from edge_agent.autonomy.answering.callers import Issued, bound_pod, claims_of
from edge_agent.autonomy.kept.disk import Kept, ScopeWrite, Stored
from edge_agent.autonomy.kept.keeper import Keeper
from tunnel.aio.http.http1 import Request, Response
from tunnel.kubeapi.codecs import PROTOBUF
from tunnel.kubeapi.request_info import RequestInfo
from tunnel.kubeapi.wire_scan import open_envelope, text_at

SCOPE = "!tokens"
MAX_TOKENS = 512
"""How many are kept: a node has 110 pods by default, of which each asks for one or a few."""


class Answered(NamedTuple):
    """An answer that was kept."""

    token: str
    """The token in it, if it is for the API server; else empty, since it is no proof of anything here."""
    content_type: str
    body: bytes


class Tokens:
    """The tokens, the one that was got last at the end."""

    def __init__(self, keeper: Keeper) -> None:
        """Reads nothing yet."""
        self._keeper = keeper
        self._tokens: dict[str, Answered] = {}
        self._issued: dict[str, Issued] = {}
        """By the tokens for the API server that are in these."""
        self._number = 0
        """Counts what was written, so that the order is kept."""

    def __len__(self) -> int:
        return len(self._tokens)

    def restore(self, kept: Kept | None) -> None:
        """Takes what was on the disk."""
        for one in sorted(kept.objects if kept is not None else (), key=lambda one: one.version):
            self._number = max(self._number, one.version)
            head, _, body = one.raw.partition(b"\n")
            audience, _, content_type = head.decode().partition(" ")
            self._keep(one.name, content_type, body, is_for_api=audience == "api")

    async def note(self, info: RequestInfo, request: Request, sent: bytes, head: Response, body: bytes) -> None:
        """Keeps an answer, in the place of an earlier one of the same request."""
        if head.status not in (200, 201) or (head.headers.get("content-encoding") or "identity") != "identity":
            return
        name = _name(info, request, sent)
        content_type, is_for_api = head.headers.get("content-type") or "", _is_for_api(request, sent)
        self._forget(name)
        self._keep(name, content_type, body, is_for_api=is_for_api)
        self._number += 1
        gone = []
        while len(self._tokens) > MAX_TOKENS:
            oldest = next(iter(self._tokens))
            self._forget(oldest)
            gone.append(("", oldest))
        raw = f"{'api' if is_for_api else 'other'} {content_type}".encode() + b"\n" + body
        put = Stored("", name, "", self._number, raw)
        await self._keeper.write(ScopeWrite(SCOPE, self._number, puts=[put], removed=gone, is_secret=True))

    def find(self, info: RequestInfo, request: Request, sent: bytes) -> Answered | None:
        """Returns the answer to the same request as this; None when none is kept."""
        return self._tokens.get(_name(info, request, sent))

    def issued(self, token: str) -> Issued | None:
        """Returns whose token it is, if it is one that the kubelet got for the API server; None when it is not."""
        return self._issued.get(token)

    # Internal

    def _keep(self, name: str, content_type: str, body: bytes, *, is_for_api: bool) -> None:
        token = _token_in(content_type, body) if is_for_api else ""
        self._tokens[name] = Answered(token, content_type, body)
        user = claims_of(token).get("sub")
        if isinstance(user, str):
            self._issued[token] = Issued(user, bound_pod(token))

    def _forget(self, name: str) -> None:
        answered = self._tokens.pop(name, None)
        if answered is not None:
            self._issued.pop(answered.token, None)


def is_token_request(info: RequestInfo) -> bool:
    """Returns whether a request asks for a ServiceAccount's token."""
    return (info.verb, info.group, info.resource, info.subresource) == ("create", "", "serviceaccounts", "token")


# Internal


def _is_for_api(request: Request, sent: bytes) -> bool:
    """Returns whether a token is asked for without an audience, which then is the API server."""
    try:
        if (request.headers.get("content-type") or "").startswith(PROTOBUF.media_type):
            return text_at(open_envelope(sent).raw, 2, 1) == ""  # spec.audiences of authentication/v1 TokenRequest
        return not (json.loads(sent).get("spec") or {}).get("audiences")
    except (ValueError, AttributeError, RecursionError):
        return False


def _token_in(content_type: str, body: bytes) -> str:
    """Returns the token in an answer; empty when it cannot be found."""
    try:
        if content_type.startswith(PROTOBUF.media_type):
            return text_at(open_envelope(body).raw, 3, 1)  # status.token of authentication/v1 TokenRequest
        status = json.loads(body).get("status") or {}
        return str(status.get("token", ""))
    except (ValueError, AttributeError, RecursionError):
        return ""


def _name(info: RequestInfo, request: Request, sent: bytes) -> str:
    """Returns what a request is known by: all of it that has a say in the answer. A kubelet writes the same request in
    the same bytes.
    """
    headers: Mapping[str, str | None] = {name: request.headers.get(name) for name in ("accept", "content-type")}
    about = json.dumps([info.namespace, info.name, headers["accept"], headers["content-type"]]).encode()
    return sha256(about + b"\n" + sent).hexdigest()
