"""`Status` objects: the cause of an error stands where kubectl shows nothing of it, and takes nobody else's place."""

from __future__ import annotations

from tunnel.kubeapi.status import ApiError, Cause, invalid, not_found

AWAY = Cause("LL4002", "The agent is away")
OTHER = Cause("LL5002", "The fleet API has no such object")


def test_an_error_says_its_own_cause_before_that_of_its_status() -> None:
    body = ApiError(503, "agent box-7 is away", cause=AWAY).body(OTHER)
    assert body["details"] == {"causes": [{"reason": "LL4002", "message": "The agent is away"}]}
    assert (body["message"], body["reason"], body["code"]) == ("agent box-7 is away", "ServiceUnavailable", 503)


def test_what_the_details_say_already_stays() -> None:
    body = not_found("", "pods", "box-9").body(OTHER)
    assert body["details"] == {"name": "box-9", "kind": "pods", "causes": [OTHER._asdict()]}
    causes = invalid("ListOptions", "meta.k8s.io", "limit", "Invalid value").body(OTHER)["details"]["causes"]
    assert [cause["reason"] for cause in causes] == ["FieldValueInvalid"]


def test_without_a_cause_there_are_no_details_that_nobody_gave() -> None:
    assert "details" not in ApiError(404, "no").body()
    assert ApiError(404, "no", details={}).body()["details"] == {}
