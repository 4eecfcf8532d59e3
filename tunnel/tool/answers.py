"""What the documents look like that commands read: the administration API's, and the fleet API's as far as needed.

docs/admin-api.md and cloud_server/operate/openapi.json describe the former. Fields that are only printed as they are
stand here as ANY or not at all.
"""

from __future__ import annotations

from tunnel.tool.shapes import ANY, FLAG, MOMENT, NUMBER, TEXT, Named, Needed, Shape

_FILE: Shape = {"loaded": TEXT, "changed": [ANY], "needs_restart": [ANY]}
_SCOPE: Shape = Named([TEXT])
STATUS: Shape = {
    "verdict": Needed(TEXT),
    "since": TEXT,
    "warnings": [{}],
    "agents": {},
    "users": {"next_end": TEXT},
    "policy": _FILE,
    "config": _FILE,
    "parts": [{}],
    "limits": [{"name": Needed(TEXT), "limit": Needed(NUMBER), "used": Needed(NUMBER)}],
    "certificates": [{"days_left": NUMBER}],
}
AGENT: Shape = {
    "since": TEXT,
    "last_seen": TEXT,
    "joined": TEXT,
    "reason": TEXT,
    "rtt_s": NUMBER,
    "certificate_days_left": NUMBER,
    "labels": Named(ANY),
    "operator_labels": Named(ANY),
    "facts": [{"text": TEXT, "since": TEXT}],
}
AGENTS: Shape = {"agents": Needed([AGENT])}
USER: Shape = {
    "groups": [TEXT],
    "roles": [TEXT],
    "created": TEXT,
    "revoked": TEXT,
    "credentials": [{"created": TEXT, "last_used": TEXT, "scope": _SCOPE}],
}
USERS: Shape = {"users": Needed([USER])}
MADE_USER: Shape = {"groups": [TEXT]}
MADE_TOKEN: Shape = {"token": Needed(TEXT), "until": Needed(MOMENT)}
MADE_CERTIFICATE: Shape = {"certificate": Needed(TEXT), "until": Needed(MOMENT)}
FETCHED_CERTIFICATE: Shape = {"certificate": Needed(TEXT)}
WHOAMI: Shape = {"groups": [TEXT], "scope": _SCOPE}
_OPEN: Shape = {"since": TEXT, "bytes_to_agent": NUMBER, "bytes_from_agent": NUMBER}
OPENS: Shape = {"opens": Needed([_OPEN])}
OPEN_CHANGE: Shape = {"change": TEXT, "open": _OPEN}
EVENT: Shape = {"kind": TEXT, "agent": TEXT}
EVENTS: Shape = {"events": Needed([EVENT])}
_WEIGHED: Shape = {"effect": Needed(TEXT)}
EXPLANATION: Shape = {
    "allowed": Needed(FLAG),
    "rule": Needed(TEXT),
    "roles": Needed([TEXT]),
    "accounts": [TEXT],
    "matched": Needed([_WEIGHED]),
    "others": Needed([_WEIGHED]),
    "asked": Needed(
        {"kind": Needed(TEXT), "name": Needed(TEXT), "groups": [TEXT], "verb": Needed(TEXT), "frontend": Needed(TEXT)}
    ),
}
NODES: Shape = {
    "items": [
        {
            "metadata": Needed({"name": Needed(TEXT), "labels": Named(TEXT)}),
            "status": {
                "conditions": [{"type": TEXT, "status": TEXT, "lastTransitionTime": TEXT}],
                "nodeInfo": {},
                "addresses": [{"type": TEXT, "address": TEXT}],
            },
        }
    ]
}
ROWS: Shape = {"rows": [{"cells": Needed([ANY])}]}
POD: Shape = {
    "spec": Needed({"containers": [{"name": Needed(TEXT), "image": TEXT}]}),
    "status": Needed({"containerStatuses": [{"name": TEXT, "restartCount": NUMBER, "state": Named(ANY)}]}),
}
RECORDINGS: Shape = {"recordings": Needed([{"seconds": NUMBER, "bytes": NUMBER}])}
LOGIN: Shape = {
    "issuer": TEXT, "client_id": TEXT, "scopes": [TEXT], "issuer_ca": TEXT, "connect_port": NUMBER,
}  # fmt: skip
