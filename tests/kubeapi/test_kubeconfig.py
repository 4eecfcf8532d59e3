"""A kubeconfig that is whole in itself."""

from __future__ import annotations

import base64

import yaml

from tunnel.kubeapi.kubeconfig import LOGIN, by_login, by_token, kubeconfig
from tunnel.tool import credential


def test_it_has_everything_that_kubectl_needs() -> None:
    text = kubeconfig("https://[::1]:7445", b"the ca", "ann", by_token("s3cret"))
    config = yaml.safe_load(text)
    assert (config["apiVersion"], config["kind"], config["current-context"]) == ("v1", "Config", "longline")
    (context,) = config["contexts"]
    assert context == {"name": "longline", "context": {"cluster": "longline", "user": "ann"}}
    (cluster,) = config["clusters"]
    assert cluster["name"] == "longline"
    assert cluster["cluster"]["server"] == "https://[::1]:7445"
    assert base64.b64decode(cluster["cluster"]["certificate-authority-data"]) == b"the ca"
    assert config["users"] == [{"name": "ann", "user": {"token": "s3cret"}}]


def test_a_login_is_for_the_plugin_and_stands_in_none_of_its_arguments() -> None:
    config = yaml.safe_load(kubeconfig("https://a:1", b"", "ann", by_login("https://a:1", "l0gin", "/opt/longline")))
    plugin = config["users"][0]["user"]["exec"]
    assert (plugin["command"], plugin["args"]) == ("/opt/longline", ["credential", "--server", "https://a:1"])
    assert plugin["env"] == [{"name": "LONGLINE_LOGIN", "value": "l0gin"}]
    assert (plugin["interactiveMode"], plugin["provideClusterInfo"]) == ("Never", True)
    assert credential.LOGIN == LOGIN  # written twice, so that a kept certificate is found without an import


def test_it_says_where_the_connect_listener_is() -> None:
    with_one = yaml.safe_load(kubeconfig("https://a:1", b"", "ann", {}, "cloud.example.com:7444"))
    (cluster,) = with_one["clusters"]
    assert cluster["cluster"]["extensions"] == [
        {"name": "longline", "extension": {"connect": "cloud.example.com:7444"}}
    ]
    (without,) = yaml.safe_load(kubeconfig("https://a:1", b"", "ann", {}))["clusters"]
    assert "extensions" not in without["cluster"]


def test_a_user_whose_name_is_yaml() -> None:
    config = yaml.safe_load(kubeconfig("https://a:1", b"", "1.0", {}))
    assert config["users"][0]["name"] == "1.0"
