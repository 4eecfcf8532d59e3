"""Ends what users do when the credential that they showed is taken away or runs out, or when the rules change.

Everything that lasts takes a `Hold`: connections, watches, lists that are followed. A loss costs what it affects, and
is spread over time, so that a user with thousands of streams delays nobody else.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
from collections import deque
from collections.abc import Callable
from datetime import UTC, datetime

import structlog

from cloud_server.trust.authenticator import LoginRefused
from cloud_server.trust.caller import Caller
from tunnel.aio.process.turns import PIECE_S
from tunnel.core.wire.errors import Code, OpenRefused
from tunnel.core.wire.faults import (
    BUG,
    CREDENTIAL_EXPIRED,
    CREDENTIAL_LOST,
    CREDENTIAL_RAN_OUT,
    RECORD_UNREADABLE,
)
from tunnel.core.wire.principal import Principal, PrincipalKind

LOOK_AGAIN_S = 30.0
"""Seconds after which the ends are looked at again, so that a changed clock is noticed: ends are times of day, and the
timer of the event loop is not."""
ENDS_WITHIN_S = 0.6
"""Seconds over which ends are spread that come at once. A reset to the box, the client's socket and two records follow
of each, some 0.2 ms; one after another they would leave nothing to others for as long. The change of a record is
noticed within 0.1 s, so all are over within the second that is promised."""
ENDS_PER_S = 1000.0
"""The ends of a second in any case, so that few are over at once."""
ENDS_EVERY_S = 0.001
"""Seconds between two looks at which ends are due."""
ENDS_IN_A_TURN = 4
"""The ends that one turn of the event loop has. Ends make a turn longer, and in a longer turn more become due: without
a bound some turns would last as long as all of the ends."""
ENDS_AT_LATEST_S = 0.9
"""Seconds within which all are to be over though turns are long for other reasons. Where they would not be, a turn has
more ends: the `LEAST_TURNS`th part of all."""
LEAST_TURNS = 100
"""The turns over which even those are spread."""
MAX_DEAD = 64
"""The number of ends of credentials without holds that may wait in the queue in any case. Beyond it, as many may wait
as there are other ends."""

OnLost = Callable[[OpenRefused], None]
"""A function that ends something, for the given reason. It is called in the event loop, and may neither block nor
raise."""
Objection = Callable[[Caller], OpenRefused | None]
"""A function that says why the rules do not allow any more what a caller does; None when they allow it. It is called in
the event loop, and may neither block nor raise."""

_log = structlog.get_logger("cloud.standing")


class _Credential:
    """One credential that a caller showed, with the holds on it."""

    __slots__ = ("caller", "holds", "key", "queued", "waits")

    def __init__(self, caller: Caller, key: object) -> None:
        self.caller = caller
        """The caller, as far as is known now."""
        self.key = key
        self.waits = False
        """Whether it is in the queue of ends."""
        self.holds: dict[Hold, None] = {}
        self.queued = False
        """Whether it waits to be looked at."""


class Hold:
    """One thing that a caller may do for as long as their credential and the rules allow it: until it is released or
    lost.
    """

    __slots__ = ("caller", "credential", "doubted", "losing", "objection", "on_lost", "over", "standing")

    def __init__(
        self,
        standing: Standing,
        caller: Caller,
        credential: _Credential | None,
        on_lost: OnLost,
        objection: Objection | None,
    ) -> None:
        self.standing = standing
        self.caller = caller
        """The caller as they are now. Their groups may differ from those that they came with."""
        self.credential = credential
        """The credential that the caller showed; None for a caller that showed nothing which could be lost."""
        self.on_lost = on_lost
        self.objection = objection
        self.doubted = False
        """Whether it waits for a new decision by the rules."""
        self.losing = False
        """Whether it waits for its end, which is certain."""
        self.over = False

    def release(self) -> None:
        """Tells that the thing is over, so that nobody need end it. Calling it again does nothing."""
        if not self.over:
            self.over = True
            self.standing.released(self)


class Standing:
    """The table of all holds."""

    def __init__(self, again: Callable[[Caller], Caller] | None = None) -> None:
        """Starts without holds.

        Args:
            again: returns a caller as they are now, and raises LoginRefused; see `Authenticator.again`. None where no
                credential is ever taken away.
        """
        self._again = again or (lambda caller: caller)
        self._credentials: dict[object, _Credential] = {}
        """The credentials of users that have holds."""
        self._of_user: dict[str, dict[_Credential, None]] = {}
        self._others: dict[Hold, None] = {}
        """The holds of callers that showed nothing which could be lost. The rules may change for them, too."""
        self._ends: list[tuple[datetime, int, _Credential]] = []
        """The heap of the ends of credentials."""
        self._dead = 0
        """The number of entries in the heap whose credentials have no holds any more."""
        self._numbers = itertools.count()
        self._timer: asyncio.TimerHandle | None = None
        self._looked_at: deque[_Credential] = deque()
        self._losing: deque[tuple[Hold, OpenRefused]] = deque()
        self._doubted: deque[Hold] = deque()
        self._at_work = False
        self._ended = 0
        """The ends since there was nothing to do."""
        self._spread = 0
        """The ends since `_losing` was empty, which was at `_spread_since_s` of the loop's time."""
        self._spread_since_s = 0.0

    def __len__(self) -> int:
        return len(self._others) + sum(len(one.holds) for one in self._credentials.values())

    # Public

    def hold(self, caller: Caller, on_lost: OnLost, objection: Objection | None = None) -> Hold:
        """Notes a thing that lasts, and returns the hold on it.

        The caller of this must release the hold when the thing is over.

        Args:
            caller: whom it is done for.
            on_lost: ends it.
            objection: decides again whether the rules allow it; None for what the rules say nothing about.

        Raises:
            OpenRefused: NOT_ALLOWED, what the caller showed has been taken away, or has run out, since they came.
        """
        if caller.principal.kind is not PrincipalKind.USER:
            hold = Hold(self, caller, None, on_lost, objection)
            self._others[hold] = None
            return hold
        try:
            caller = self._again(caller)
        except LoginRefused as refused:
            raise OpenRefused(refused.text, Code.NOT_ALLOWED, refused.fault) from refused
        acted_with = caller.by and caller.principal.groups
        key = (*_users(caller), caller.principal.proof, caller.shown, caller.until, acted_with)
        credential = self._credentials.get(key) or self._noted(caller, key)
        hold = Hold(self, caller, credential, on_lost, objection)
        credential.holds[hold] = None
        return hold

    def changed(self, user: str) -> None:
        """Tells that a user, or a credential of theirs, has changed, so that all their holds are looked at."""
        for credential in self._of_user.get(user, ()):
            self._look_at(credential)

    def lose(self, is_meant: Callable[[Principal], bool], lost: OpenRefused) -> None:
        """Ends all holds of users whose credentials are of a kind that counts no more.

        `is_meant` tells that by the principal; `lost` is the reason that the holds are told.
        """
        for credential in self._credentials.values():
            if is_meant(credential.caller.by or credential.caller.principal):
                self._lose_all(credential, lost)
        self._begin()

    def rules_changed(self) -> None:
        """Tells that the rules have changed, so that every hold is decided again."""
        for hold in self._others:
            self._doubt(hold)
        for credential in self._credentials.values():
            for hold in credential.holds:
                self._doubt(hold)

    # Internal - called by holds

    def released(self, hold: Hold) -> None:
        """Forgets a hold, and with the last hold of a credential the credential."""
        credential = hold.credential
        if credential is None:
            del self._others[hold]
            return
        del credential.holds[hold]
        if not credential.holds:
            self._forget(credential)

    # Internal - what stands

    def _noted(self, caller: Caller, key: object) -> _Credential:
        credential = self._credentials[key] = _Credential(caller, key)
        for user in _users(caller):
            self._of_user.setdefault(user, {})[credential] = None
        if caller.until is not None:
            credential.waits = True
            heapq.heappush(self._ends, (caller.until, next(self._numbers), credential))
            if self._ends[0][2] is credential:
                self._wait_for_end()
        return credential

    def _forget(self, credential: _Credential) -> None:
        del self._credentials[credential.key]
        for user in _users(credential.caller):
            del self._of_user[user][credential]
            if not self._of_user[user]:
                del self._of_user[user]
        if credential.waits:
            self._dead += 1
            if self._dead > max(MAX_DEAD, len(self._ends) // 2):
                self._ends = [end for end in self._ends if end[2].holds]
                heapq.heapify(self._ends)
                self._dead = 0

    # Internal - ends

    def _wait_for_end(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._ends:
            left_s = (self._ends[0][0] - datetime.now(UTC)).total_seconds()
            self._timer = asyncio.get_running_loop().call_later(min(max(left_s, 0.0), LOOK_AGAIN_S), self._look_at_ends)

    def _look_at_ends(self) -> None:
        self._timer = None
        now = datetime.now(UTC)
        while self._ends and (self._ends[0][0] <= now or not self._ends[0][2].holds):
            _, _, credential = heapq.heappop(self._ends)
            credential.waits = False
            if credential.holds:
                self._look_at(credential)
            else:
                self._dead -= 1
        self._wait_for_end()

    # Internal - work, in pieces

    def _look_at(self, credential: _Credential) -> None:
        if not credential.queued:
            credential.queued = True
            self._looked_at.append(credential)
            self._begin()

    def _doubt(self, hold: Hold) -> None:
        if hold.objection is not None and not hold.doubted and not hold.losing:
            hold.doubted = True
            self._doubted.append(hold)
            self._begin()

    def _begin(self) -> None:
        if not self._at_work:
            self._at_work = True
            asyncio.get_running_loop().call_soon(self._piece)

    def _piece(self) -> None:
        """Ends what is due, examines and decides for a while, and leaves the rest to another turn of the event loop."""
        loop = asyncio.get_running_loop()
        more_due = self._end_due(loop.time())
        until_s = loop.time() + PIECE_S
        while self._step():
            if loop.time() >= until_s:
                loop.call_soon(self._piece)
                return
        if self._losing:
            if more_due:
                loop.call_soon(self._piece)
            else:
                loop.call_later(ENDS_EVERY_S, self._piece)
            return
        self._at_work = False
        if self._ended:
            _log.info("what is not allowed any more was ended", ended=self._ended)
            self._ended = 0

    def _step(self) -> bool:
        """Examines or decides one thing. Returns False when there is none."""
        if self._looked_at:
            self._examine(self._looked_at.popleft())
        elif self._doubted:
            self._decide(self._doubted.popleft())
        else:
            return False
        return True

    def _end_due(self, now_s: float) -> bool:
        """Ends some of `_losing` that should have ended by now. Returns whether there are more of them."""
        if not self._spread:
            self._spread_since_s = now_s - ENDS_EVERY_S
        in_all = self._spread + len(self._losing)
        since_s = now_s - self._spread_since_s
        due = since_s * max(ENDS_PER_S, in_all / ENDS_WITHIN_S)
        is_late = self._spread < since_s * in_all / ENDS_AT_LATEST_S
        until = self._spread + (max(in_all / LEAST_TURNS, ENDS_IN_A_TURN) if is_late else ENDS_IN_A_TURN)
        while self._losing and self._spread < min(due, until):
            self._spread += self._end(*self._losing.popleft())
        more_due = self._spread < due
        if not self._losing:
            self._spread = 0
        return more_due

    def _examine(self, credential: _Credential) -> None:
        credential.queued = False
        try:
            caller = self._again(credential.caller)
        except LoginRefused as refused:
            if refused.fault is RECORD_UNREADABLE:  # which says nothing about the user
                return
            ran_out = refused.fault is CREDENTIAL_EXPIRED
            fault = CREDENTIAL_RAN_OUT if ran_out else CREDENTIAL_LOST
            lost = OpenRefused(refused.text, Code.STANDING_LOST, fault)
            self._lose_all(credential, lost)
            return
        if caller is not credential.caller:
            credential.caller = caller
            for hold in credential.holds:
                hold.caller = caller
                self._doubt(hold)

    def _decide(self, hold: Hold) -> None:
        hold.doubted = False
        objection = hold.objection
        if hold.over or hold.losing or objection is None:
            return
        try:
            lost = objection(hold.caller)
        except Exception:  # noqa: BLE001 - whatever it is: what cannot be decided is not allowed
            _log.exception("it cannot be decided whether something may go on", code=BUG.code)
            lost = OpenRefused("a fault of the server, whose log says more", Code.STANDING_LOST)
        if lost is not None:
            self._lose(hold, lost)

    def _lose_all(self, credential: _Credential, lost: OpenRefused) -> None:
        for hold in credential.holds:
            self._lose(hold, lost)

    def _lose(self, hold: Hold, lost: OpenRefused) -> None:
        """Has a hold wait for its end, once, however often its credential or the rules change until then."""
        if not hold.losing:
            hold.losing = True
            self._losing.append((hold, lost))

    def _end(self, hold: Hold, lost: OpenRefused) -> bool:
        """Ends a hold. Returns False when it is over already."""
        if hold.over:
            return False
        hold.release()
        self._ended += 1
        try:
            hold.on_lost(lost)
        except Exception:  # noqa: BLE001 - whatever it is, the others must end
            _log.exception("something that is not allowed any more could not be ended", code=BUG.code)
        return True


# Internal


def _users(caller: Caller) -> tuple[str, ...]:
    """Returns the names of the users whose changes concern a caller: the user, and whoever acts as the user."""
    name = caller.principal.name
    return (name,) if caller.by is None or caller.by.name == name else (name, caller.by.name)
