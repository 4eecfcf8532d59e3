"""A kubeconfig that is whole in itself."""

from __future__ import annotations

import base64

import yaml

from cloud_server.trust.ca import Issued
from cloud_server.trust.kubeconfig import kubeconfig


def test_it_has_everything_that_kubectl_needs() -> None:
    text = kubeconfig("https://[::1]:7445", b"the ca", "ann", Issued(b"the certificate", b"the key"))
    config = yaml.safe_load(text)
    assert (config["apiVersion"], config["kind"], config["current-context"]) == ("v1", "Config", "longline")
    (context,) = config["contexts"]
    assert context == {"name": "longline", "context": {"cluster": "longline", "user": "ann"}}
    (cluster,) = config["clusters"]
    assert cluster["name"] == "longline"
    assert cluster["cluster"]["server"] == "https://[::1]:7445"
    assert base64.b64decode(cluster["cluster"]["certificate-authority-data"]) == b"the ca"
    (user,) = config["users"]
    assert user["name"] == "ann"
    assert base64.b64decode(user["user"]["client-certificate-data"]) == b"the certificate"
    assert base64.b64decode(user["user"]["client-key-data"]) == b"the key"


def test_it_says_where_the_connect_listener_is() -> None:
    made = Issued(b"", b"")
    with_one = yaml.safe_load(kubeconfig("https://a:1", b"", "ann", made, "cloud.example.com:7444"))
    (cluster,) = with_one["clusters"]
    assert cluster["cluster"]["extensions"] == [
        {"name": "longline", "extension": {"connect": "cloud.example.com:7444"}}
    ]
    (without,) = yaml.safe_load(kubeconfig("https://a:1", b"", "ann", made))["clusters"]
    assert "extensions" not in without["cluster"]


def test_a_user_whose_name_is_yaml() -> None:
    config = yaml.safe_load(kubeconfig("https://a:1", b"", "1.0", Issued(b"", b"")))
    assert config["users"][0]["name"] == "1.0"
