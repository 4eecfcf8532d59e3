"""Talks to an OpenID Connect issuer as a public client: code with PKCE (RFC 7636), device code (RFC 8628), refresh.

An ID token comes straight from the issuer's token endpoint over TLS, which stands for its signature here (OpenID
Connect Core 3.1.3.7, point 6); the server verifies that.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import secrets
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http.client import HTTPException, HTTPMessage
from typing import IO, Any
from urllib.parse import urlencode, urlsplit

import orjson

from tunnel.core.wire.faults import LOGIN_FAILED, NOT_LOGGED_IN, FaultError
from tunnel.core.wire.limits import LAST_MOMENT_S
from tunnel.core.wire.spoken import printable
from tunnel.tool.credential import now_s

TIMEOUT_S = 15.0
"""The most seconds for each answer of the issuer."""
MAX_ANSWER_BYTES = 256 * 1024
MAX_SAID_CHARS = 300
DEVICE_POLL_S = 5.0
"""The seconds between two questions where the issuer does not say them (RFC 8628 3.2)."""
SLOWER_S = 5.0
"""The seconds that `slow_down` adds (RFC 8628 3.5)."""
MAX_DEVICE_S = 1800.0
DISCOVERY = "/.well-known/openid-configuration"


class LoginRefused(FaultError):
    """The issuer does not log anybody in. The text is for the person at the terminal."""

    default_fault = LOGIN_FAILED


@dataclass(frozen=True, slots=True, kw_only=True)
class Client:
    """This program as the issuer knows it."""

    issuer: str
    client_id: str
    scopes: tuple[str, ...]
    issuer_ca: str = field(default="", repr=False)
    """The PEM of the authorities to trust there; empty for those that the system trusts."""
    client_secret: str = field(default="", repr=False)
    """The secret that some issuers give to programs on people's machines, where it stays no secret; empty for a public
    client."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tokens:
    """The tokens that the issuer gave."""

    id_token: str = field(repr=False)
    refresh_token: str = field(repr=False)
    """The token that prolongs the login; empty when it cannot be prolonged."""
    expires_s: float
    """When the ID token ends, in seconds since 1970."""
    claims: Mapping[str, Any]


class Issuer:
    """One issuer. Its methods block."""

    def __init__(self, client: Client) -> None:
        """Asks the issuer where its endpoints are.

        Raises:
            LoginRefused: it does not say, or says that it is another issuer.
        """
        self.client = client
        self._opener = _opener(client)
        self._endpoints = self._ask(client.issuer.rstrip("/") + DISCOVERY)
        if self._endpoints.get("issuer") != client.issuer:
            raise LoginRefused(f"{client.issuer} says that it is {printable(str(self._endpoints.get('issuer')))[:200]}")

    def authorization_url(self, redirect: str, proof: Proof) -> str:
        """Where a browser logs somebody in, and comes back to the redirect: an https:// address that can be printed.

        Raises:
            LoginRefused: the issuer names no such address.
        """
        query = {
            "response_type": "code",
            "client_id": self.client.client_id,
            "redirect_uri": redirect,
            "scope": " ".join(self.client.scopes),
            "state": proof.state,
            "nonce": proof.nonce,
            "code_challenge": proof.challenge,
            "code_challenge_method": "S256",
        }
        endpoint = self._endpoint("authorization_endpoint")
        _check_https(endpoint)
        return f"{endpoint}{'&' if urlsplit(endpoint).query else '?'}{urlencode(query)}"  # RFC 6749 3.1: both stay

    def redeem(self, code: str, redirect: str, proof: Proof) -> Tokens:
        """Trades the code that a browser brought back for tokens.

        Raises:
            LoginRefused: the issuer does not accept the code, or the token is not for this login.
        """
        form = {"grant_type": "authorization_code", "code": code, "redirect_uri": redirect}
        tokens = self._tokens({**form, "code_verifier": proof.verifier})
        if tokens.claims.get("nonce") != proof.nonce:
            raise LoginRefused("the issuer's token is that of another login (nonce)")
        return tokens

    def by_device(self, show: Callable[[str, str, str], None]) -> Tokens:
        """Logs in with a code that a person types into a browser elsewhere, and waits until they did.

        Args:
            show: is given the URL, the code, and a URL with the code inside, which may be empty.

        Raises:
            LoginRefused: nobody did so in time, or the issuer refuses.
        """
        asked = {"client_id": self.client.client_id, "scope": " ".join(self.client.scopes)}
        told = self._ask(self._endpoint("device_authorization_endpoint"), self._with_secret(asked))
        try:
            url, code, device = (str(told[name]) for name in ("verification_uri", "user_code", "device_code"))
            until_s = time.monotonic() + min(float(told.get("expires_in", 600)), MAX_DEVICE_S)
            pace_s = float(told.get("interval", DEVICE_POLL_S))
        except (KeyError, TypeError, ValueError) as error:
            raise LoginRefused(f"{self.client.issuer} gave no device code that can be used: {error}") from error
        whole = str(told.get("verification_uri_complete") or "")
        for shown in filter(None, (url, whole)):
            _check_https(shown)
        show(url, printable(code), whole)
        form = {"grant_type": "urn:ietf:params:oauth:grant-type:device_code", "device_code": device}
        while time.monotonic() < until_s:
            time.sleep(pace_s)
            try:
                return self._tokens(form)
            except _ErrorAnswer as error:
                if error.error == "slow_down":
                    pace_s += SLOWER_S
                elif error.error != "authorization_pending":
                    raise
        raise LoginRefused("nobody entered the code in time")

    def refresh(self, refresh_token: str) -> Tokens:
        """Gets another ID token for the refresh token of the last answer.

        Raises:
            LoginRefused: the issuer gives none; the fault is NOT_LOGGED_IN when the login is over.
        """
        try:
            made = self._tokens({"grant_type": "refresh_token", "refresh_token": refresh_token})
        except _ErrorAnswer as error:
            if error.error == "invalid_grant":
                raise LoginRefused(f"the login is over ({error.text}): longline login", NOT_LOGGED_IN) from error
            raise
        if made.refresh_token:
            return made
        return Tokens(id_token=made.id_token, refresh_token=refresh_token, expires_s=made.expires_s, claims=made.claims)

    def revoke(self, refresh_token: str) -> bool:
        """Ends the login at the issuer (RFC 7009). Returns False when the issuer does not offer that.

        Raises:
            LoginRefused: the issuer does not end it.
        """
        if not isinstance(self._endpoints.get("revocation_endpoint"), str):
            return False
        form = {"token": refresh_token, "token_type_hint": "refresh_token", "client_id": self.client.client_id}
        self._ask(self._endpoint("revocation_endpoint"), self._with_secret(form))
        return True

    # Internal

    def _endpoint(self, name: str) -> str:
        found = self._endpoints.get(name)
        if not isinstance(found, str):
            hint = ": log in with a browser, without --device" if name.startswith("device") else ""
            raise LoginRefused(f"{self.client.issuer} has no {name}{hint}")
        return found

    def _with_secret(self, form: dict[str, str]) -> dict[str, str]:
        return {**form, "client_secret": self.client.client_secret} if self.client.client_secret else form

    def _tokens(self, form: dict[str, str]) -> Tokens:
        form = self._with_secret({**form, "client_id": self.client.client_id})
        answer = self._ask(self._endpoint("token_endpoint"), form)
        id_token = answer.get("id_token")
        if not isinstance(id_token, str):
            raise LoginRefused(f"{self.client.issuer} gave no ID token: is openid among [oidc] scopes of the server?")
        claims = _claims(id_token)
        aud = claims.get("aud")
        if claims.get("iss") != self.client.issuer or self.client.client_id not in (
            aud if isinstance(aud, list) else [aud]
        ):
            raise LoginRefused(f"{self.client.issuer} gave an ID token for somebody else: {aud!r}"[:MAX_SAID_CHARS])
        expires_s = claims.get("exp")
        if not isinstance(expires_s, int | float) or not now_s() < expires_s < LAST_MOMENT_S:
            raise LoginRefused("the issuer's ID token is over already, or has no end: look at this machine's clock")
        refresh = answer.get("refresh_token")
        return Tokens(
            id_token=id_token,
            refresh_token=refresh if isinstance(refresh, str) else "",
            expires_s=float(expires_s),
            claims=claims,
        )

    def _ask(self, url: str, form: dict[str, str] | None = None) -> dict[str, Any]:
        """Returns the JSON object of an answer; empty when it has no body."""
        _check_https(url)
        data = urlencode(form).encode() if form is not None else None
        request = urllib.request.Request(url, data, {"Accept": "application/json"})  # noqa: S310 - https, as checked
        try:
            with self._opener.open(request, timeout=TIMEOUT_S) as answer:
                body = answer.read(MAX_ANSWER_BYTES + 1)
        except urllib.error.HTTPError as error:
            with error:
                raise _refusal(url, error.code, error.read(MAX_ANSWER_BYTES)) from error
        except (urllib.error.URLError, OSError, HTTPException) as error:
            why = getattr(error, "reason", None) or error
            raise LoginRefused(f"{url} cannot be reached: {why}") from error
        if len(body) > MAX_ANSWER_BYTES:
            raise LoginRefused(f"{url} gives too long an answer")
        return _object(body) if body.strip() else {}


class Proof:
    """The random values that tie an answer of the issuer to one login of ours."""

    def __init__(self) -> None:
        self.state = secrets.token_urlsafe(24)
        self.nonce = secrets.token_urlsafe(24)
        self.verifier = secrets.token_urlsafe(48)
        digest = hashlib.sha256(self.verifier.encode()).digest()
        self.challenge = base64.urlsafe_b64encode(digest).rstrip(b"=").decode()


# Internal


class _ErrorAnswer(LoginRefused):
    """The issuer gave the reason for its refusal (RFC 6749 5.2)."""

    def __init__(self, text: str, error: str) -> None:
        super().__init__(text)
        self.error = error


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """Follows no redirect: an endpoint that is elsewhere would get what is secret."""

    def redirect_request(
        self, _req: urllib.request.Request, _fp: IO[bytes], _code: int, _msg: str, _headers: HTTPMessage, _newurl: str
    ) -> None:
        """Follows no redirect."""
        return


def _opener(client: Client) -> urllib.request.OpenerDirector:
    try:
        context = ssl.create_default_context(cadata=client.issuer_ca or None)
    except (ssl.SSLError, ValueError) as error:
        raise LoginRefused(f"the authority of {client.issuer} that the server names cannot be used: {error}") from error
    return urllib.request.build_opener(urllib.request.HTTPSHandler(context=context), _NoRedirects)


def _check_https(url: str) -> None:
    """Makes sure of an address that a document of the issuer's names. It is asked, printed, or given to a browser: that
    may be a program that takes what begins with `-` for an option.

    Raises:
        LoginRefused: it is none of ours to use.
    """
    plain = url.isascii() and url.isprintable() and " " not in url  # urlsplit passes over what is not
    try:
        good = plain and url.lower().startswith("https://") and bool(urlsplit(url).hostname)
    except ValueError:  # such as https://[
        good = False
    if not good:
        raise LoginRefused(f"{printable(url)[:200]!r} is no https:// address")


def _refusal(url: str, status: int, body: bytes) -> LoginRefused:
    try:
        said = _object(body)
    except LoginRefused:
        said = {}
    error = str(said.get("error") or "")
    if not error:
        return LoginRefused(f"{url} answers with status {status}")
    text = printable(str(said.get("error_description") or error))[:MAX_SAID_CHARS]
    return _ErrorAnswer(f"{urlsplit(url).netloc} refuses: {text}", error)


def _object(body: bytes) -> dict[str, Any]:
    try:
        found = orjson.loads(body)
    except ValueError as error:
        raise LoginRefused("the issuer's answer is no JSON") from error
    if not isinstance(found, dict):
        raise LoginRefused("the issuer's answer is no JSON object")
    return found


def _claims(id_token: str) -> dict[str, Any]:
    try:
        _, body, _ = id_token.split(".")
        return _object(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)))
    except (ValueError, binascii.Error) as error:
        raise LoginRefused("the issuer's ID token cannot be read") from error
