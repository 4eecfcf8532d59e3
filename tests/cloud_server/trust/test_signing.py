"""What the signer signs and what it denies, whoever asks: a server that somebody has taken asks for anything."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from cloud_server.trust import signing_rules
from cloud_server.trust.ca import CertificateAuthority
from cloud_server.trust.signing import DENIED, Asker, Signing
from tests.support.waits import scaled_s
from tunnel.aio.identity.keys import request_for
from tunnel.aio.process.files import write_together
from tunnel.core.path.rate import Rate

DAY = timedelta(days=1)
TOKEN_ID = "0" * 32
AUTHORITY = CertificateAuthority.create("longline")
OTHER = CertificateAuthority.create("longline")
ELSEWHERE = CertificateAuthority.create("elsewhere")
KEY, NEW_KEY = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())


def csr(key: ec.EllipticCurvePrivateKey) -> str:
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return base64.b64encode(request_for(pem)).decode()


def shown(pem: bytes) -> str:
    return base64.b64encode(x509.load_pem_x509_certificate(pem).public_bytes(serialization.Encoding.DER)).decode()


def agent(**changed: str) -> dict[str, str]:
    of_box = shown(AUTHORITY.issue_agent("box-7", KEY.public_key()))
    return {"ask": "agent", "name": "box-7", "csr": csr(KEY), "shown": of_box, **changed}


def user(**changed: str) -> dict[str, str]:
    return {"ask": "user", "name": "ann", "csr": csr(KEY), "life_s": "3600", **changed}


def join(**changed: str) -> dict[str, str]:
    return {"ask": "join", "token": TOKEN_ID, "agent": "box-7", "life_s": "3600", **changed}


class Place:
    def __init__(self, folder: Path) -> None:
        write_together(AUTHORITY.files(folder))
        (folder / "hosts").write_text("cloud.example.com\n")
        self.folder = folder
        self.signing = Signing(folder, "longline")
        self.noted: list[tuple[str, Mapping[str, object]]] = []
        self.server = Asker(limited=True, noted=lambda event, /, **about: self.noted.append((event, about)))

    def ask(self, question: Mapping[str, object], asker: Asker | None = None) -> dict[str, str]:
        return self.signing.answer(json.dumps(question).encode(), asker or self.server)


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def recovery(name: str, key: ec.EllipticCurvePrivateKey = KEY) -> str:
    return shown(AUTHORITY.issue_recovery(name, key.public_key()))


def token(pattern: str, life: timedelta = DAY) -> str:
    return shown(AUTHORITY.issue_join(TOKEN_ID, life, pattern).certificate_pem)


@pytest.mark.parametrize(
    "question",
    [
        agent(),
        agent(csr=csr(NEW_KEY)),  # rotate-key
        agent(shown=recovery("box-7")),
        agent(shown=token("box-7"), csr=csr(NEW_KEY)),
        agent(shown=token("box-*")),
        user(),
        user(life_s=str(365 * 86400)),
        join(),
        join(agent="lyon-*", life_s=str(395 * 86400)),
        {"ask": "server"},
    ],
)
def test_what_is_signed_is_recorded_before_it_is_handed_out(place: Place, question: dict[str, str]) -> None:
    answer = place.ask(question)
    assert "certificate" in answer
    ((kind, about),) = place.noted
    pem = answer["certificate"].encode()
    if not pem.startswith(b"-----"):
        pem = b"-----BEGIN CERTIFICATE-----\n" + pem + b"\n-----END CERTIFICATE-----\n"
    made = x509.load_pem_x509_certificate(pem)
    assert (kind, about["kind"], about["serial"]) == ("signed", question["ask"], f"{made.serial_number:x}")
    assert not made.extensions.get_extension_for_class(x509.BasicConstraints).value.ca


@pytest.mark.parametrize(
    ("question", "text"),
    [
        (agent(name="box-8"), "shows a certificate of agent box-7 gets none of agent box-8"),
        (agent(name="Box"), "not the name of an agent"),
        (agent(name="../user/ann"), "not the name of an agent"),
        (agent(shown=recovery("box-7"), csr=csr(NEW_KEY)), "no certificate for another key"),
        (agent(shown=recovery("box-8")), "of recover box-8 gets none"),
        (agent(shown=token("box-8")), "is for box-8, not for box-7"),
        (agent(shown=token("lyon-*")), r"is for lyon-\*, not for box-7"),
        (agent(shown=token("box-7", -timedelta(minutes=1))), "not valid now"),
        (agent(shown=shown(OTHER.issue_agent("box-7", KEY.public_key()))), "not signed by this authority"),
        (agent(shown=shown(ELSEWHERE.issue_agent("box-7", KEY.public_key()))), "trust domain 'elsewhere'"),
        (agent(shown=shown(AUTHORITY.issue_user("box-7", KEY.public_key(), DAY))), "of user box-7 gets none"),
        (agent(shown=shown(AUTHORITY.pem)), "none of ours"),
        (agent(shown=base64.b64encode(b"rubbish").decode()), "none of ours"),
        (user(name="ann/../../agent/box-7"), "not the name of a user"),
        (user(name=""), "not the name of a user"),
        (user(life_s=str(366 * 86400)), "365 days at most"),
        (user(life_s="-1"), "cannot have ended before"),
        (user(life_s="inf"), "no time in seconds"),
        (user(life_s="nan"), "no time in seconds"),
        (join(life_s=str(396 * 86400)), "395 days at most"),
        (join(agent="*/x"), "neither the name of an agent nor a pattern"),
        (join(token="../agent/box-7"), "not the id of a join token"),
        ({"ask": "authority-key"}, "nothing that is answered"),
        ({"name": "box-7"}, "no question"),
        ({"ask": ["agent"]}, "no question"),
        ([], "no question"),
    ],
)  # fmt: skip
def test_what_the_rules_do_not_know_is_denied_and_noted(place: Place, question: dict[str, str], text: str) -> None:
    answer = place.ask(question)
    assert answer.keys() == {"denied"}
    with pytest.raises(AssertionError, match=text):
        raise AssertionError(answer["denied"])
    assert [kind for kind, _ in place.noted] == [DENIED]


def test_names_of_the_server_come_from_the_folder_of_the_authority_alone(place: Place) -> None:
    answer = place.ask({"ask": "server", "hosts": "bank.example.com"})
    names = x509.load_pem_x509_certificate(answer["certificate"].encode()).extensions
    found = names.get_extension_for_class(x509.SubjectAlternativeName).value.get_values_for_type(x509.DNSName)
    assert found == ["cloud.example.com", "localhost"]


def test_the_authority_is_renewed_when_it_is_due_and_not_for_the_asking(place: Place) -> None:
    before = (place.folder / "ca.crt").read_bytes()
    assert place.ask({"ask": "authority"}) == {}
    assert (place.folder / "ca.crt").read_bytes() == before
    assert place.noted == []


@pytest.mark.parametrize(
    ("question", "rate"),
    [
        (agent(), signing_rules.EACH_AGENT),
        (user(), signing_rules.USERS),
        ({"ask": "server"}, signing_rules.SERVERS),
    ],
)
def test_each_kind_has_a_rate_that_root_is_not_held_to(place: Place, question: dict[str, str], rate: Rate) -> None:
    signed = 0
    while "denied" not in (answer := place.ask(question)):
        signed += 1
    assert rate.at_once <= signed <= rate.at_once + scaled_s(10) * rate.per_s
    assert "too many certificates" in answer["denied"]
    assert "certificate" in place.ask(question, Asker(limited=False))


def test_what_cannot_be_recorded_is_not_handed_out(place: Place) -> None:
    def full(_event: str, /, **_about: object) -> None:
        raise OSError(28, "No space left on device")

    asker = Asker(limited=True, noted=full)
    for question in (agent(), user(), join(), {"ask": "server"}):
        assert place.ask(question, asker) == {"failed": "[Errno 28] No space left on device"}


def test_a_life_without_end_is_for_whoever_may_read_the_key(place: Place) -> None:
    root = Asker(limited=False)
    assert "certificate" in place.ask(user(life_s=str(3000 * 86400)), root)
    assert "denied" in place.ask(user(name="ann/x"), root)
