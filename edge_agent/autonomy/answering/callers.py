"""Knows who comes with a bearer token, and which lists they may see, also while nobody can be asked.

While the API server is reached, it says both: whose token it is (SelfSubjectReview) and whether its owner may list and
watch (SelfSubjectAccessReview), each asked with that very token and remembered for RECHECK_S. While it is away, a token
counts

1. if the API server has accepted it before, or has issued it to this node's kubelet for a pod that is here;
2. for the lists that its owner was allowed to see when that was asked last.

So nobody sees what they did not see, or could not have seen, before; no signature is looked at here, and none is made.
A token that has expired meanwhile is as good as it was: nobody can get another one, and the pod that has it runs on.
"""

from __future__ import annotations

import asyncio
import json
from base64 import urlsafe_b64decode
from collections.abc import Awaitable, Callable
from hashlib import sha256
from typing import NamedTuple
from weakref import WeakValueDictionary

from edge_agent.autonomy.asks import RESERVED, Scope
from edge_agent.autonomy.kept.disk import Kept, ScopeWrite, Stored
from edge_agent.autonomy.kept.keeper import Keeper
from edge_agent.autonomy.upward.passing import Unreached
from edge_agent.autonomy.upward.uplink import Uplink
from tunnel.aio.http.http1 import HeaderItems
from tunnel.kubeapi.status import Json

SCOPE = "!callers"
RECHECK_S = 300.0
"""Seconds after which somebody's rights are asked anew; what is taken from them counts here after so long. An API
server looks at them when a watch begins, and lets it run for five to ten minutes. Each answer is 2 kB.
"""
REFUSED_S = 600.0
"""Seconds for which the API server must refuse somebody before that is what counts while it is away: one that starts,
or has lost its database, refuses for a while what it allows otherwise.
"""
MAX_CALLERS = 256
"""How many tokens are known: each pod that asks the API server has one, and a new one each hour."""
MAX_PROOFS = 1024
"""For how many lists it is known who may see them."""
MAX_TOKEN_CHARS = 16 * 1024

_REVIEW: Json = {"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"}
REVIEW = "/apis/authentication.k8s.io/v1/selfsubjectreviews"
ACCESS = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"

Ask = Callable[[str, str, Json], Awaitable[tuple[int, Json]]]
"""A function that posts an object with a token: token, path, object. It returns the status and the answer, and raises
StreamError when there is none."""


class Issued(NamedTuple):
    """A token that the kubelet got for a pod."""

    user: str
    pod_uid: str


class Bearer:
    """The newest token of one user, with which lists are kept current in their name."""

    def __init__(self) -> None:
        self._token = ""
        self._there = asyncio.Event()

    def use(self, token: str) -> None:
        """Takes a token that the API server has accepted."""
        self._token = token
        self._there.set()

    def headers(self) -> HeaderItems:
        """Returns the header with it."""
        return [("authorization", f"Bearer {self._token}")]

    async def there(self) -> None:
        """Waits until there is one."""
        await self._there.wait()


class Callers:
    """Those who come with tokens."""

    def __init__(
        self, keeper: Keeper, uplink: Uplink, ask: Ask, issued: Callable[[str], Issued | None],
        is_here: Callable[[str], bool],
    ) -> None:  # fmt: skip
        """Reads nothing yet.

        Args:
            keeper: the disk.
            uplink: says whether the API server can be asked.
            ask: asks it.
            issued: tells whose a token is that the kubelet got; None for any other one.
            is_here: whether the pod of a uid is one of this node.
        """
        self._keeper = keeper
        self._uplink = uplink
        self._ask = ask
        self._issued = issued
        self._is_here = is_here
        self._users: dict[str, str] = {}
        """By the digest of a token, whose it is."""
        self._asked_s: dict[str, float] = {}
        """By the digest of a token, when the API server has accepted it last in this process."""
        self._proofs: dict[tuple[str, str], float] = {}
        """By user and the name of a scope, when it was allowed, on the loop's clock; -1: in an earlier process."""
        self._refused_s: dict[str, float] = {}
        """Since when tokens and rights are refused, on the loop's clock."""
        self._bearers: WeakValueDictionary[str, Bearer] = WeakValueDictionary()
        """By user, as long as a list is kept in their name."""
        self._latest: dict[str, str] = {}
        """By user, the token that was accepted last."""
        self._number = 0

    def restore(self, kept: Kept | None) -> None:
        """Takes what was on the disk."""
        for one in sorted(kept.objects if kept is not None else (), key=lambda one: one.version):
            self._number = max(self._number, one.version)
            kind, *rest = json.loads(one.raw)
            if kind == "token":
                self._users[rest[0]] = rest[1]
            else:
                self._proofs[rest[0], rest[1]] = -1.0

    def away(self) -> None:
        """Takes that the API server is away: refusals before and after that are not one that lasts."""
        self._refused_s.clear()

    def bearer(self, user: str) -> Bearer:
        """Returns the newest token of a user."""
        bearer = self._bearers.get(user)
        if bearer is None:
            bearer = self._bearers[user] = Bearer()
            if user in self._latest:
                bearer.use(self._latest[user])
        return bearer

    async def who(self, token: str) -> str | None:
        """Returns whose token it is; None when that is not known.

        Raises:
            StreamError: the API server has not answered.
        """
        if len(token) > MAX_TOKEN_CHARS:
            return None
        digest, now_s = _digest(token), asyncio.get_running_loop().time()
        if not self._uplink.is_up:
            user = self._known(token, digest)
            if user is not None:
                self._note_token(user, token)  # for when the API server is back, which looks at it then
            return user
        if now_s - self._asked_s.get(digest, -RECHECK_S) < RECHECK_S:
            return self._users.get(digest)
        try:
            status, answer = await self._ask(token, REVIEW, _REVIEW)
        except Unreached:
            status, answer = 503, {}
        if status >= 500 or status == 429:
            if f"token {digest}" in self._refused_s:  # what was refused is not allowed by silence
                return None
            return self._known(token, digest)
        if status == 401:
            is_known = digest in self._users or self._issued(token) is not None  # else there is nothing to forget
            if is_known and self._is_final(f"token {digest}", now_s):
                await self._forget_token(digest)
            return None
        self._refused_s.pop(f"token {digest}", None)
        named = _at(answer, "status", "userInfo", "username")
        if status not in (200, 201) or not isinstance(named, str):
            return None
        await self._remember_token(digest, named, now_s)
        self._note_token(named, token)
        return named

    async def may(self, token: str, user: str, scope: Scope) -> bool:
        """Returns whether a user may list and watch a scope. `token` is theirs; empty for the node itself.

        Raises:
            StreamError: the API server has not answered.
        """
        key, now_s = (user, scope.text()), asyncio.get_running_loop().time()
        proved_s = self._proofs.get(key)
        if not self._uplink.is_up:
            return proved_s is not None
        if proved_s is not None and proved_s >= 0 and now_s - proved_s < RECHECK_S:
            return True
        for verb in ("list", "watch"):
            try:
                status, answer = await self._ask(token, ACCESS, _access(scope, verb))
            except Unreached:
                status, answer = 503, {}
            if status == 401:  # which says nothing of what the user may; of the node see `Standing`
                return not token and proved_s is not None
            if status not in (200, 201):
                return proved_s is not None and _proof_name(key) not in self._refused_s  # it cannot say
            if _at(answer, "status", "allowed") is not True:
                if proved_s is not None:  # else there is nothing to take
                    self._proofs[key] = -1.0  # asked again each time
                    if self._is_final(_proof_name(key), now_s):
                        await self._disprove(key)
                return False
        self._refused_s.pop(_proof_name(key), None)
        await self._prove(key, now_s, is_new=proved_s is None)
        return True

    def was_allowed(self, user: str, scope: Scope) -> bool:
        """Returns whether a user was seen to be allowed a scope when that was asked last."""
        return (user, scope.text()) in self._proofs

    # Internal

    def _known(self, token: str, digest: str) -> str | None:
        issued = self._issued(token)
        user, pod_uid = issued if issued is not None else (self._users.get(digest), bound_pod(token))
        return user if not pod_uid or self._is_here(pod_uid) else None

    def _note_token(self, user: str, token: str) -> None:
        self._latest.pop(user, None)
        self._latest[user] = token
        if len(self._latest) > MAX_CALLERS:
            del self._latest[next(iter(self._latest))]
        if (bearer := self._bearers.get(user)) is not None:
            bearer.use(token)

    def _is_final(self, name: str, now_s: float) -> bool:
        """Returns whether a refusal counts for when nobody can be asked, too: it has lasted for REFUSED_S."""
        since_s = self._refused_s.setdefault(name, now_s)
        if len(self._refused_s) > MAX_PROOFS:
            del self._refused_s[next(iter(self._refused_s))]
        return now_s - since_s >= REFUSED_S

    async def _remember_token(self, digest: str, user: str, now_s: float) -> None:
        self._asked_s[digest] = now_s
        if self._users.get(digest) == user:
            return
        self._users[digest] = user
        gone = []
        while len(self._users) > MAX_CALLERS:
            oldest = next(iter(self._users))
            del self._users[oldest]
            self._asked_s.pop(oldest, None)
            gone.append(("", f"token {oldest}"))
        await self._write(f"token {digest}", ["token", digest, user], gone)

    async def _forget_token(self, digest: str) -> None:
        self._asked_s.pop(digest, None)
        if self._users.pop(digest, None) is not None:
            await self._keeper.write(ScopeWrite(SCOPE, self._number, removed=[("", f"token {digest}")]))

    async def _prove(self, key: tuple[str, str], now_s: float, *, is_new: bool) -> None:
        self._proofs.pop(key, None)
        self._proofs[key] = now_s  # at the end: the first ones were proved longest ago
        if not is_new:
            return
        gone = []
        while (oldest := self._superfluous(key[0])) is not None:
            del self._proofs[oldest]
            gone.append(("", _proof_name(oldest)))
        await self._write(_proof_name(key), ["proof", *key], gone)

    def _superfluous(self, user: str) -> tuple[str, str] | None:
        """Returns a proof for which there is no room any more, after one of a user: each has an eighth of it, and the
        node's own give way to nobody's.
        """
        if user not in RESERVED:
            own = [key for key in self._proofs if key[0] == user]
            if len(own) > MAX_PROOFS // 8:
                return own[0]
        if len(self._proofs) <= MAX_PROOFS:
            return None
        return next((key for key in self._proofs if key[0] not in RESERVED), next(iter(self._proofs)))

    async def _disprove(self, key: tuple[str, str]) -> None:
        if self._proofs.pop(key, None) is not None:
            await self._keeper.write(ScopeWrite(SCOPE, self._number, removed=[("", _proof_name(key))]))

    async def _write(self, name: str, content: list[str], gone: list[tuple[str, str]]) -> None:
        self._number += 1
        put = Stored("", name, "", self._number, json.dumps(content).encode())
        await self._keeper.write(ScopeWrite(SCOPE, self._number, puts=[put], removed=gone))


def bearer_of(authorization: str | None) -> str | None:
    """Returns the token of an `Authorization` header; None when there is none."""
    scheme, _, token = (authorization or "").partition(" ")
    return token.strip() or None if scheme.lower() == "bearer" else None


def claims_of(token: str) -> Json:
    """Returns what a token says of itself, which nobody has looked at; empty when it says nothing."""
    parts = token.split(".")
    if len(parts) != 3:
        return {}
    try:
        claims = json.loads(urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4)))
    except (ValueError, RecursionError):
        return {}
    return claims if isinstance(claims, dict) else {}


def bound_pod(token: str) -> str:
    """Returns the uid of the pod that a token says it is for; empty when it names none."""
    uid = _at(claims_of(token), "kubernetes.io", "pod", "uid")
    return uid if isinstance(uid, str) else ""


# Internal


def _digest(token: str) -> str:
    return sha256(token.encode()).hexdigest()


def _proof_name(key: tuple[str, str]) -> str:
    return f"proof {sha256(json.dumps(key).encode()).hexdigest()}"


def _at(value: object, *path: str) -> object:
    for name in path:
        value = value.get(name) if isinstance(value, dict) else None
    return value


def _access(scope: Scope, verb: str) -> Json:
    attributes: Json = {"group": scope.group, "version": scope.version, "resource": scope.resource, "verb": verb}
    if scope.namespace:
        attributes["namespace"] = scope.namespace
    name = scope.field_selector.removeprefix("metadata.name=")
    if name != scope.field_selector and "," not in name:
        attributes["name"] = name  # as an API server's authorizer sees it, too
    return {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SelfSubjectAccessReview",
        "spec": {"resourceAttributes": attributes},
    }
