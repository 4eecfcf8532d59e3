"""Files and texts that people and peers write: policy, configurations, tokens, kubeconfigs, recordings, selectors."""

from __future__ import annotations

import base64
import contextlib
import json
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path

from cloud_server.config import load_server_config
from cloud_server.rights.policy_file import first_policy, load_policy
from cloud_server.trust.authenticator import LoginRefused
from cloud_server.trust.fields import Fields
from cloud_server.trust.oidc.keys import KeySet
from cloud_server.trust.oidc.settings import OidcSettings
from cloud_server.trust.oidc.verifier import Verifier
from cloud_server.trust.site_kubeconfig import SiteUnusable, read_site
from edge_agent.config import load_agent_config
from edge_agent.hostkubelet.journal import _stamped as journal_entry
from tests.fuzz.engine import TOP, Target
from tunnel.aio.identity.join_token import PREFIX, JoinToken, TokenUnusable
from tunnel.aio.process.config import ConfigError
from tunnel.core.wire.asciicast import Event, Header, NotAsciicast, parse_events, parse_header
from tunnel.kubeapi.listing import ListSplitter
from tunnel.kubeapi.negotiation import negotiate
from tunnel.kubeapi.protobuf import decode_object
from tunnel.kubeapi.selectors import parse
from tunnel.kubeapi.status import ApiError
from tunnel.tool.kubeconfig import KubeconfigUnusable, load_access

_TOML = (
    b"[[role]]\n",
    b"[[role.allow]]\n",
    b"[[binding]]\n",
    b"[[test]]\n",
    b"name = ",
    b'"a"',
    b"['a']",
    b"{a = 1}",
    b"inf",
    b"nan",
    b"1979-05-27",
    b"= ",
    b"'''",
)


def targets() -> list[Target]:
    """Returns the targets of this file."""
    return [
        _policy(), _config("server-config", load_server_config, "cloud-server"),
        _config("agent-config", load_agent_config, "edge-agent"), _join_token(), _id_token(), _kubeconfig(),
        _site_kubeconfig(), _asciicast(), _selectors(), _reviews(), _lists(), _fields(), _journal(),
    ]  # fmt: skip


@cache
def _folder() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="longline-fuzz-")


def _reading(name: str, read: Callable[[Path], object]) -> Callable[[bytes], object]:
    """Returns a function that reads an input as a file."""

    def run(data: bytes) -> object:
        path = Path(_folder().name) / name
        path.write_bytes(data)
        return read(path)

    return run


def _corpus(name: str) -> bytes:
    return (TOP / "tests" / "fuzz" / "corpus" / name).read_bytes()


def _policy() -> Target:
    text = first_policy(["ann"])
    whole = "\n".join(
        line.removeprefix("# ") if line.startswith("# ") and ("=" in line or "[[" in line) else line
        for line in text.splitlines()
    )
    return Target(
        name="policy",
        seeds=[text.encode(), whole.encode(), _corpus("policy.toml")],
        run=_reading("policy.toml", load_policy),
        allowed=(ConfigError,),
        words=_TOML,
        max_bytes=4000,
    )


def _config(name: str, load: Callable[[Path], object], file: str) -> Target:
    examples = [path.read_bytes() for path in (TOP / "deploy").rglob(f"{file}*.toml")]
    return Target(
        name=name,
        seeds=[_corpus(f"{file}.toml"), *examples],
        run=_reading(f"{file}.toml", load),
        allowed=(ConfigError,),
        words=_TOML,
        max_bytes=4000,
    )


def _join_token() -> Target:
    values = {
        "agent": "a",
        "expires": 1,
        "ca": "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
        "certificate": "c",
        "key": "k",
    }

    def run(data: bytes) -> None:
        # Half of the inputs are the JSON inside, which no change of the outer text would leave readable.
        text = data.decode("latin-1")
        JoinToken.decode(
            text if text.startswith(PREFIX) else PREFIX + base64.urlsafe_b64encode(data).decode().rstrip("=")
        )

    inside = json.dumps(values).encode()
    return Target(
        name="join-token",
        seeds=[inside, PREFIX.encode() + base64.urlsafe_b64encode(inside)],
        run=run,
        allowed=(TokenUnusable,),
        words=(b'"expires": ', b'"ca": ', b"1e400", b"-----BEGIN "),
    )


def _id_token() -> Target:
    @cache
    def verifier() -> Verifier:
        import jwt
        from cryptography.hazmat.primitives.asymmetric import ec

        key = ec.generate_private_key(ec.SECP256R1()).public_key()
        made = json.loads(jwt.algorithms.ECAlgorithm.to_jwk(key)) | {"kid": "k", "use": "sig", "alg": "ES256"}
        found = Verifier(OidcSettings(issuer="https://x", client_id="c", audiences=("c",)))
        found.use(KeySet({"keys": [made]}, ("ES256",)))
        return found

    def run(data: bytes) -> None:
        text = data.decode("latin-1")
        if text.count(".") != 2:
            text = ".".join(base64.urlsafe_b64encode(part).decode().rstrip("=") for part in data.split(b"\n"))
        verifier().verify(text, "192.0.2.1")

    head = b'{"alg":"ES256","kid":"k","typ":"JWT"}'
    body = b'{"iss":"https://x","aud":"c","sub":"ann","exp":9999999999,"iat":1,"groups":["a"]}'
    return Target(
        name="id-token",
        seeds=[head + b"\n" + body + b"\n" + bytes(64), b"a.b.c"],
        run=run,
        allowed=(LoginRefused,),
        words=(b"[" * 3000, b'"alg":"none"', b'"crit":["a"]', b'"kid":', b'"exp":'),
    )


_YAML = (
    b"&a ",
    b"*a",
    b"<<: ",
    b"!!python/object:os.system",
    b"- ",
    b": ",
    b"? ",
    b"null",
    b"2026-01-01",
    b"https://[",
    b"https://x:99999",
    b"0x1F",
    b"!!binary ",
)


def _kubeconfig() -> Target:
    def read(path: Path) -> None:
        access = load_access([path])
        assert access.address
        assert access.url.hostname

    return Target(
        name="kubeconfig",
        seeds=[_corpus("kubeconfig.yaml"), _corpus("kubeconfig.yaml").replace(b"user: u", b"user: v")],
        run=_reading("kubeconfig", read),
        allowed=(KubeconfigUnusable,),
        words=_YAML,
        max_bytes=3000,
    )


def _site_kubeconfig() -> Target:
    return Target(
        name="site-kubeconfig",
        seeds=[_corpus("kubeconfig.yaml")],
        run=_reading("site", read_site),
        allowed=(SiteUnusable, OSError),
        words=_YAML,
        max_bytes=3000,
    )


def _asciicast() -> Target:
    def run(data: bytes) -> None:
        lines = iter(data.split(b"\n"))
        parse_header(next(lines))
        for event in parse_events(lines):
            assert event.at_s >= 0

    lines = (
        Header(columns=80, rows=24, began=1, title="t", command="sh").line()
        + Event(0.5, "o", "hi").line()
        + Event(1, "r", "80x24").line()
    )
    return Target(
        name="asciicast",
        seeds=[lines],
        run=run,
        allowed=(NotAsciicast,),
        words=(b"[1, ", b'"o"', b'"r"', b"Infinity", b"[" * 2000),
    )


def _selectors() -> Target:
    def run(data: bytes) -> None:
        labels, _, rest = data.decode("latin-1").partition("\n")
        fields, _, accept = rest.partition("\n")
        negotiate(accept, {"Table": ("meta.k8s.io", ("v1",))})
        item = {"metadata": {"name": "a", "labels": {"a": "5"}}}
        parse("pods", labels, fields).matches(item)

    seeds = [
        b"a=b,c!=d,e in (f,g),!h,i>5\nmetadata.name=a,status.phase!=x\napplication/json;as=Table;v=v1;g=meta.k8s.io,*/*"
    ]
    return Target(
        name="selectors",
        seeds=seeds,
        run=run,
        allowed=(ApiError,),
        words=(b" in (", b" notin (", b"a/", b",", b">9", b"\xb2", b"==", b";q=0"),
    )


def _reviews() -> Target:
    spec = bytes.fromhex("0a0c0a01611203676574 2a02706f".replace(" ", ""))
    kind = b"\x0a\x1b\x0a\x02v1\x12\x17SelfSubjectAccessReview"[:2] + b"\x0a\x02v1\x12\x17SelfSubjectAccessReview"
    kind = b"\x0a" + bytes([len(kind) - 2]) + kind[2:]
    raw = b"\x12" + bytes([len(spec)]) + spec
    seed = b"k8s\x00" + kind + b"\x12" + bytes([len(raw)]) + raw
    return Target(
        name="protobuf-reviews",
        seeds=[seed],
        run=decode_object,
        allowed=(ValueError,),
        words=(b"k8s\x00", b"\x0a", b"\x12", b"\xff" * 9, b"\x80" * 11),
    )


def _lists() -> Target:
    def run(data: bytes) -> None:
        splitter = ListSplitter(2000)
        whole = ListSplitter(2000)
        items = [item for at in range(0, len(data), 7) for item in splitter.feed(data[at : at + 7])]
        at_once = list(whole.feed(data))
        splitter.frame()  # of what is no list nothing is kept
        whole.frame()
        assert items == at_once, "pieces make a difference"

    seeds = [b'{"kind":"PodList","items":[{"a":"}\\"]"},{"b":[1,{}]}],"x":{"items":[{}]}}', b'{"items":null}']
    return Target(
        name="lists",
        seeds=seeds,
        run=run,
        allowed=(ValueError,),
        words=(b'"items":[', b'{"', b'"}', b"\\", b"[[", b"]]"),
        max_bytes=2000,
    )


def _fields() -> Target:
    def run(data: bytes) -> None:
        fields = Fields(data)
        for read in (fields.text, fields.moment, fields.texts, fields.labels, fields.count, fields.flag):
            with contextlib.suppress(TypeError, ValueError):
                read("a")

    seeds = [b'{"a": "2026-01-01T00:00:00+00:00"}', b'{"a": ["b"]}', b'{"a": {"b": "c"}}', b'{"a": 5}']
    return Target(name="records", seeds=seeds, run=run, allowed=(TypeError, ValueError), words=(b'"a": ', b"[" * 5000))


def _journal() -> Target:
    return Target(
        name="journal", seeds=[b'{"MESSAGE":"a","__REALTIME_TIMESTAMP":"1","PRIORITY":"6"}'], run=journal_entry
    )
