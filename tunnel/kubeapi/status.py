"""Makes Kubernetes `Status` answers: every error that clients of our Kubernetes APIs see, worded for a person."""

from __future__ import annotations

from typing import Any, NamedTuple

Json = dict[str, Any]

_REASONS = {
    400: "BadRequest",
    401: "Unauthorized",
    403: "Forbidden",
    404: "NotFound",
    405: "MethodNotAllowed",
    406: "NotAcceptable",
    409: "Conflict",
    410: "Expired",
    413: "RequestEntityTooLarge",
    415: "UnsupportedMediaType",
    422: "Invalid",
    429: "TooManyRequests",
    431: "RequestHeaderFieldsTooLarge",
    500: "InternalError",
    501: "NotImplemented",
    502: "BadGateway",
    503: "ServiceUnavailable",
    504: "Timeout",
}


class Cause(NamedTuple):
    """The reason behind an error, as an entry of `details.causes`."""

    reason: str
    """The reason as one word, for programs."""
    message: str
    """The same for people, as a sentence."""


class ApiError(Exception):
    """An error that is answered to the client as a `Status`.

    Attributes:
        code: the HTTP status.
        message: what kubectl prints behind `Error from server (Reason):`.
        reason: the word for programs, such as `NotFound`; by default the one that Kubernetes has for the HTTP status.
        details: the `details` of the `Status`; None leaves them out.
        cause: the reason behind the error; None where nothing but the status tells of it.
    """

    def __init__(
        self, code: int, message: str, reason: str = "", details: Json | None = None, cause: Cause | None = None
    ) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.reason = reason or _REASONS.get(code, "Unknown")
        self.details = details
        self.cause = cause

    def body(self, otherwise: Cause | None = None) -> Json:
        """Returns the `Status` object.

        Args:
            otherwise: the cause to name, where the error itself names none and its details have none.
        """
        cause = self.cause or otherwise
        details = self.details
        if cause is not None and "causes" not in (details or {}):
            details = {**(details or {}), "causes": [cause._asdict()]}
        status: Json = {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": self.message,
            "reason": self.reason,
            "code": self.code,
        }
        if details is not None:
            status["details"] = details
        return status


def about(group: str, resource: str, name: str = "") -> Json:
    """Returns the `details` of an error: which object, or which resource, it is about."""
    details = {"name": name, "group": group, "kind": resource}
    return {field: value for field, value in details.items() if value}


def not_found(group: str, resource: str, name: str, meant: str = "") -> ApiError:
    """Makes the error that an object does not exist, worded as an API server does, since scripts look for it.

    Args:
        group: the API group of the resource, empty for the core group.
        resource: such as `pods`.
        name: the object's name.
        meant: text that is put behind the message as it is.
    """
    qualified = f"{resource}.{group}" if group else resource
    return ApiError(404, f'{qualified} "{name}" not found{meant}', details=about(group, resource, name))


def no_such_path() -> ApiError:
    """Makes the error that a path is no part of this API."""
    # kubectl looks into the details of a 404 without looking whether there are any.
    return ApiError(404, "the server could not find the requested resource", details={})


def invalid(kind: str, group: str, field: str, message: str) -> ApiError:
    """Makes the error that a field of an object, or an option of a request, makes no sense.

    Args:
        kind: the kind that the field is part of, such as `ListOptions`.
        group: the API group of that kind.
        field: the field's name.
        message: what is wrong, beginning with the error's type as a Kubernetes API server words it.
    """
    qualified = f"{kind}.{group}" if group else kind
    reason = {"Forbidden": "FieldValueForbidden", "Required": "FieldValueRequired"}.get(
        message.partition(":")[0].partition(" ")[0], "FieldValueInvalid"
    )
    causes = [{"reason": reason, "message": message, "field": field}]
    details = {"group": group, "kind": kind, "causes": causes}
    return ApiError(422, f'{qualified} "" is invalid: {field}: {message}', details=details)


def expired(resource_version: int, oldest: int) -> ApiError:
    """Makes the error that a list, a page or a watch asks for a past that is not kept any more; clients list again."""
    return ApiError(410, f"too old resource version: {resource_version} ({oldest})")
