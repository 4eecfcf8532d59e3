"""The administration API's description, and its samples held against it: the command is tested with the same ones."""

from __future__ import annotations

import re
from typing import Any

import jsonschema
import pytest

from tests.support.admin_server import OPENAPI, PREFIX, SAMPLES

SCHEMAS = OPENAPI["components"]["schemas"]


def validator(name: str) -> jsonschema.Draft202012Validator:
    """Of one of the document's schemas; references are within the document."""
    return jsonschema.Draft202012Validator({**OPENAPI, "$ref": f"#/components/schemas/{name}"})


def operation(method: str, path: str) -> dict[str, Any] | None:
    """What the document says of a request."""
    path = PREFIX + path.partition("?")[0]
    for template, methods in OPENAPI["paths"].items():
        if re.fullmatch(re.sub(r"\{\w+\}", "[^/]+", template), path) and method.lower() in methods:
            found: dict[str, Any] = methods[method.lower()]
            return found
    return None


def schema_names(content: dict[str, Any]) -> set[str]:
    return {one["schema"]["$ref"].rpartition("/")[2] for one in content["content"].values()}


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda sample: f"{sample['method']} {sample['path']}")
def test_each_sample_fits(sample: dict[str, Any]) -> None:
    described = operation(sample["method"], sample["path"])
    assert described is not None
    answer = described["responses"]["default" if sample["status"] >= 400 else "200"]
    assert sample["schema"] in schema_names(answer)
    for document in sample.get("lines", [sample.get("body")]):
        validator(sample["schema"]).validate(document)
    if "request" in sample:
        (name,) = schema_names(described["requestBody"])
        validator(name).validate(sample["request"])


def test_each_operation_has_a_sample() -> None:
    described = {
        (method.upper(), path.removeprefix(PREFIX)) for path, methods in OPENAPI["paths"].items() for method in methods
    }
    seen = {
        (sample["method"], template)
        for sample in SAMPLES
        for method, template in described
        if method == sample["method"]
        and re.fullmatch(re.sub(r"\{\w+\}", "[^/]+", template), sample["path"].partition("?")[0])
    }
    assert described - seen <= {("POST", "agents/{name}/forget")}  # it answers as revoke does


@pytest.mark.parametrize("name", SCHEMAS)
def test_schemas_are_schemas(name: str) -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMAS[name])


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("Status", {"verdict": "fine"}),
        ("Status", {"since": "2026-11-27 07:00"}),
        ("Status", {"agents": {"joined": 1}}),
        ("Agent", {"state": "lost"}),
        ("Agent", {"rtt_s": "0.1"}),
    ],
)
def test_what_does_not_fit_is_seen(name: str, change: dict[str, Any]) -> None:
    good = next(sample["body"] for sample in SAMPLES if sample["schema"] == name)
    with pytest.raises(jsonschema.ValidationError):
        validator(name).validate({**good, **change})
