"""Turns what the tunnel says of a stream into a Kubernetes `Status` that names the agent."""

from __future__ import annotations

from cloud_server.frontends.fleet.causes import cause
from cloud_server.frontends.http_answers import http_status
from tunnel.core.wire.errors import Code, StreamError
from tunnel.kubeapi.status import ApiError

_STREAM_TEXTS = {
    Code.NO_SERVICE: "agent {agent} does not offer exec and logs",
    Code.AGENT_AWAY: "agent {agent} is away: it is not connected to this server",
    Code.UNKNOWN_AGENT: "no agent named {agent} has joined this server",
    Code.NOT_ALLOWED: "agent {agent} does not allow this",
    Code.DEADLINE: "agent {agent} did not answer in time",
    Code.SESSION_LOST: "the connection to agent {agent} was lost",
    Code.SHUTTING_DOWN: "agent {agent} or this server is shutting down",
}


def from_stream_error(error: StreamError, agent: str) -> ApiError:
    """Returns the error of a stream to an agent as a `Status` that names the agent."""
    text = _STREAM_TEXTS.get(error.code, "agent {agent} cannot be reached").format(agent=agent)
    if agent in error.text:
        text = error.text
    elif error.text:
        text = f"{text} ({error.text})"
    return ApiError(http_status(error.code), text, cause=cause(error.fault))
