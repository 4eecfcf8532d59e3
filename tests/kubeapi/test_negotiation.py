from __future__ import annotations

import pytest

from tunnel.kubeapi.negotiation import Accepted, negotiate, wants_table
from tunnel.kubeapi.status import ApiError

FORMS = {"Table": ("meta.k8s.io", ("v1", "v1beta1"))}


@pytest.mark.parametrize(
    ("accept", "form"),
    [
        (None, Accepted()),
        ("", Accepted()),
        ("*/*", Accepted()),
        ("application/json", Accepted()),
        ("application/vnd.kubernetes.protobuf,application/json", Accepted()),
        ("application/json;as=Table;v=v1;g=meta.k8s.io,application/json", Accepted("Table", "v1")),
        ("application/json; as=Table; v=v1beta1; g=meta.k8s.io", Accepted("Table", "v1beta1")),
        ("application/json;as=Table;v=v2;g=meta.k8s.io,application/json", Accepted()),
        ("application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io,application/json", Accepted()),
        ("text/html;q=0.9, application/json;q=0.1", Accepted()),
    ],
)
def test_the_first_form_that_is_spoken_is_taken(accept: str | None, form: Accepted) -> None:
    assert negotiate(accept, FORMS) == form


@pytest.mark.parametrize("accept", ["text/html", "application/yaml", "application/json;q=0", "application/json;as=X"])
def test_nothing_spoken_is_406(accept: str) -> None:
    with pytest.raises(ApiError) as caught:
        negotiate(accept, FORMS)
    assert caught.value.code == 406


@pytest.mark.parametrize(
    ("accept", "table"),
    [
        (None, False),
        ("application/json", False),
        ("application/json;as=Table;v=v1;g=meta.k8s.io,application/json", True),
        ("application/json;as=Table;v=v9;g=meta.k8s.io,application/json", False),
    ],
)
def test_a_table_is_for_who_asks_for_one(accept: str | None, table: bool) -> None:
    assert wants_table(accept) is table
