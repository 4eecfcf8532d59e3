"""An OpenID Connect issuer on real TLS: discovery, keys that rotate, code with PKCE, device code, refresh, revocation.

Small, and no part of ours: what it signs is signed by PyJWT, and it checks what a client sends as an issuer does.
"""

from __future__ import annotations

import base64
import hashlib
import json
import secrets
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, parse_qsl, urlencode, urlsplit

import jwt
from cryptography.hazmat.primitives.asymmetric import rsa
from jwt.algorithms import RSAAlgorithm

from tests.support.pki import Authority

CLIENT = "longline-cli"
LIFE_S = 600


def rsa_key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


@dataclass
class SigningKey:
    """One of an issuer's."""

    kid: str
    private: rsa.RSAPrivateKey = field(default_factory=rsa_key)

    @property
    def jwk(self) -> dict[str, Any]:
        """Its public part, as a JWKS has it."""
        made: dict[str, Any] = RSAAlgorithm.to_jwk(self.private.public_key(), as_dict=True)
        return {**made, "kid": self.kid, "use": "sig", "alg": "RS256"}

    def sign(self, claims: dict[str, Any], **headers: Any) -> str:
        named = {name: value for name, value in {"kid": self.kid, **headers}.items() if value is not None}
        return jwt.encode(claims, self.private, algorithm="RS256", headers=named)


class TestIssuer:
    """Changed by tests while it runs."""

    __test__ = False

    def __init__(self, folder: Path) -> None:
        self.authority = Authority("issuer's CA")
        self.ca_file = folder / "issuer-ca.crt"
        self.ca_file.write_bytes(self.authority.pem)
        self.keys = [SigningKey("first")]
        self.more_keys: list[dict[str, Any]] = []
        self.claims: dict[str, Any] = {"sub": "ann", "groups": ["ops"]}
        """Of whoever logs in."""
        self.life_s = LIFE_S
        self.asked: list[str] = []
        """Paths, in the order in which they were asked for."""
        self.down = False
        self.pending = 1
        """How often a device is told to wait."""
        self.refresh: set[str] = set()
        self._codes: dict[str, dict[str, str]] = {}
        self._devices: dict[str, int] = {}
        certificate, key = self.authority.issue(hosts=["127.0.0.1"]).write(folder, "issuer")
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate, key)
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._server.daemon_threads = True
        self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self.url = f"https://127.0.0.1:{self._server.server_address[1]}"

    def start(self) -> None:
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def rotate(self, kid: str, *, keep: bool = False) -> None:
        """Sign with another key from now on; the one before is gone, or stays among the published ones."""
        self.keys = [SigningKey(kid), *(self.keys if keep else [])]

    def token(self, **claims: Any) -> str:
        """An ID token; a claim that is None is left out."""
        now = int(time.time())  # noqa: TID251 - tokens go by the wall clock
        whole = {"iss": self.url, "aud": CLIENT, "iat": now, "exp": now + self.life_s, **self.claims, **claims}
        return self.keys[0].sign({name: value for name, value in whole.items() if value is not None})

    # Internal

    def get(self, path: str, query: dict[str, str]) -> tuple[int, dict[str, Any] | str]:
        match path:
            case "/.well-known/openid-configuration":
                return 200, {
                    "issuer": self.url,
                    "jwks_uri": f"{self.url}/keys",
                    "authorization_endpoint": f"{self.url}/authorize",
                    "token_endpoint": f"{self.url}/token",
                    "device_authorization_endpoint": f"{self.url}/device",
                    "revocation_endpoint": f"{self.url}/revoke",
                }
            case "/keys":
                return 200, {"keys": [*(key.jwk for key in self.keys), *self.more_keys]}
            case "/authorize":
                assert query["response_type"] == "code"
                assert query["code_challenge_method"] == "S256"
                assert query["client_id"] == CLIENT
                code = secrets.token_urlsafe(8)
                self._codes[code] = query
                return 302, f"{query['redirect_uri']}?{urlencode({'code': code, 'state': query['state']})}"
        return 404, {}

    def post(self, path: str, form: dict[str, str]) -> tuple[int, dict[str, Any]]:
        if path == "/revoke":
            self.refresh.discard(form["token"])
            return 200, {}
        if form.get("client_id") != CLIENT:
            return 401, {"error": "invalid_client"}
        if path == "/device":
            code = secrets.token_urlsafe(8)
            self._devices[code] = self.pending
            return 200, {
                "device_code": code, "user_code": "WDJB-MJHT", "verification_uri": f"{self.url}/go",
                "expires_in": 60, "interval": 0.05,
            }  # fmt: skip
        match form["grant_type"]:
            case "authorization_code":
                return self._redeem(form)
            case "urn:ietf:params:oauth:grant-type:device_code":
                left = self._devices[form["device_code"]]
                if left < 0:
                    return 400, {"error": "access_denied", "error_description": "the person said no"}
                self._devices[form["device_code"]] = left - 1
                return self._tokens() if left == 0 else (400, {"error": "authorization_pending"})
            case "refresh_token" if form["refresh_token"] in self.refresh:
                self.refresh.discard(form["refresh_token"])  # each is good once, as with Keycloak's rotation
                return self._tokens()
        return 400, {"error": "invalid_grant", "error_description": "Session not active"}

    def _redeem(self, form: dict[str, str]) -> tuple[int, dict[str, Any]]:
        asked = self._codes.pop(form["code"], None)
        challenge = base64.urlsafe_b64encode(hashlib.sha256(form["code_verifier"].encode()).digest()).rstrip(b"=")
        if asked is None or asked["code_challenge"] != challenge.decode():
            return 400, {"error": "invalid_grant"}
        if asked["redirect_uri"] != form["redirect_uri"]:
            return 400, {"error": "invalid_grant"}
        return self._tokens(nonce=asked["nonce"])

    def _tokens(self, **claims: Any) -> tuple[int, dict[str, Any]]:
        refresh = secrets.token_urlsafe(8)
        self.refresh.add(refresh)
        return 200, {"token_type": "Bearer", "id_token": self.token(**claims), "refresh_token": refresh}


@contextmanager
def running_issuer(folder: Path) -> Iterator[TestIssuer]:
    """An issuer that listens; it is gone at the end."""
    made = TestIssuer(folder)
    made.start()
    try:
        yield made
    finally:
        made.close()


def _handler(issuer: TestIssuer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            url = urlsplit(self.path)
            issuer.asked.append(url.path)
            if not issuer.down:
                query = {name: values[0] for name, values in parse_qs(url.query).items()}
                self._answer(*issuer.get(url.path, query))

        def do_POST(self) -> None:
            issuer.asked.append(self.path)
            body = self.rfile.read(int(self.headers["content-length"]))
            if not issuer.down:
                self._answer(*issuer.post(self.path, dict(parse_qsl(body.decode()))))

        def _answer(self, status: int, body: dict[str, Any] | str) -> None:
            text = b"" if isinstance(body, str) else json.dumps(body).encode()
            self.send_response(status)
            if isinstance(body, str):
                self.send_header("location", body)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        def log_message(self, *_args: object) -> None:
            pass

    return Handler
