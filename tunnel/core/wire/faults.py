"""The table of error codes: one for each cause that a person can meet and do something about.

A code stands in everything that tells of its cause: log lines (`code=`), failures of commands, reason phrases of
CONNECT answers, `Status` objects for kubectl. Its page, docs/errors/LLnnnn.md, says what to do; `longline explain
LLnnnn` prints it. The first digit says where the cause lies:

    LL1  commands and configuration          LL4  opens: names, routes, policies, targets
    LL2  certificates and identity           LL5  the fleet API, kubelets, the cluster's own API
    LL3  the link between agent and server   LL6  the process: listeners, log, systemd, faults of ours

A code is never given to another cause, and never used again. How to add one is in CONTRIBUTING.md.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import ClassVar, Final

_CODE = re.compile(r"(LL[1-9][0-9]{3}): ")


@dataclass(frozen=True, slots=True)
class Fault:
    """One cause of failure, with its code and its title."""

    code: str
    """The code: `LL` and four digits."""
    title: str
    """The cause in a few words, for lists and as the title of its page."""

    def __str__(self) -> str:
        return self.code


# Commands and configuration

USAGE: Final = Fault("LL1001", "The command line cannot be understood")
CONFIG_UNREADABLE: Final = Fault("LL1002", "The configuration file cannot be read")
CONFIG_NOT_TOML: Final = Fault("LL1003", "The configuration file is not TOML")
CONFIG_INVALID: Final = Fault("LL1004", "A setting in the configuration file cannot be used")
PACKAGE_MISSING: Final = Fault("LL1005", "A Python package that the command needs is not installed")
STATE_NOT_WRITABLE: Final = Fault("LL1006", "The state folder cannot be written")
STATE_IN_USE: Final = Fault("LL1007", "The state folder has a certificate authority already")
HOST_NAME_INVALID: Final = Fault("LL1008", "A --host is neither a DNS name nor an IP address")
AGENT_NAME_INVALID: Final = Fault("LL1009", "The name cannot be that of an agent")
USER_NAME_INVALID: Final = Fault("LL1010", "The name cannot be that of a user")
AUTHORITY_IS_YOURS: Final = Fault("LL1011", "Certificates come from an authority of your own")
NO_FLEET_API: Final = Fault("LL1012", "The configuration has no fleet API")
NO_SUCH_CLUSTER: Final = Fault("LL1013", "The configuration has no cluster of that name")
NO_KUBECTL_PROXY: Final = Fault("LL1014", "The configuration has no proxy for kubectl")
AGENT_NOT_JOINED: Final = Fault("LL1015", "No agent of that name has joined")
KUBECONFIG_UNUSABLE: Final = Fault("LL1016", "The kubeconfig cannot be used")
SITE_KUBECONFIG_UNUSABLE: Final = Fault("LL1017", "The kubeconfig of a site cannot be used")
HOSTS_FILE_UNUSABLE: Final = Fault("LL1018", "The list of the server's names cannot be used")
TARGET_INVALID: Final = Fault("LL1019", "The target is not written like one")
VIA_INVALID: Final = Fault("LL1020", "--via does not name a server")
VIA_UNREACHABLE: Final = Fault("LL1021", "The server named by --via cannot be reached")
VIA_REFUSED: Final = Fault("LL1022", "The server named by --via refused without a code")
VIA_NO_PROXY: Final = Fault("LL1023", "What --via names is not a CONNECT front end")
VIA_SILENT: Final = Fault("LL1024", "The server named by --via does not answer in time")
VIA_NOT_TRUSTED: Final = Fault("LL1025", "The certificate of the server named by --via is not trusted")
CONNECTION_BROKE: Final = Fault("LL1026", "The connection broke while it was in use")
OUTPUT_CLOSED: Final = Fault("LL1027", "Nobody reads the command's output any more")
PROXY_INVALID: Final = Fault("LL1028", "The HTTP proxy is not written like one")
NO_SUCH_CODE: Final = Fault("LL1029", "There is no error code of that number")
HOST_SECTION_INVALID: Final = Fault("LL1030", "The [host] section cannot be used on this box")
OUTPUT_UNUSABLE: Final = Fault("LL1031", "The file of --out cannot be made")
NO_SUCH_TOKEN: Final = Fault("LL1032", "There is no token of that id or user")
API_REFUSED: Final = Fault("LL1041", "The server's API refused the request or did not answer it")
COMMAND_LOST: Final = Fault("LL1042", "The connection was lost while a command ran on a box")
COPY_FAILED: Final = Fault("LL1043", "A file or folder was not copied")
NOTHING_SELECTED: Final = Fault("LL1044", "No box has the labels")
MEMORY_UNREADABLE: Final = Fault("LL1045", "What the command remembers cannot be read")
SSH_MISSING: Final = Fault("LL1046", "There is no ssh program")
USER_UNKNOWN: Final = Fault("LL1047", "There is no user of that name")
LABEL_INVALID: Final = Fault("LL1048", "A label cannot be that of an agent")
POLICY_MISSING: Final = Fault("LL1060", "There is no policy file, so that users may do nothing")
POLICY_INVALID: Final = Fault("LL1061", "The policy file cannot be used")
POLICY_THERE: Final = Fault("LL1062", "There is a policy file already")
ASK_UNCLEAR: Final = Fault("LL1063", "What the policy is asked about cannot be understood")
RECORDING_UNUSABLE: Final = Fault("LL1070", "The recording cannot be read")
LOGIN_FAILED: Final = Fault("LL1080", "The login at the issuer failed")
NOT_LOGGED_IN: Final = Fault("LL1081", "There is no login on this machine")
NO_ISSUER: Final = Fault("LL1082", "The server knows no issuer to log in at")
KUBECONFIG_NOT_SWITCHED: Final = Fault("LL1090", "A component of the node cannot be led through the API proxy")
NODE_NOT_READY: Final = Fault("LL1091", "The node would not work through the API proxy")
NO_AUTONOMY: Final = Fault("LL1092", "The agent runs without [autonomy]")

# Certificates and identity

CERTIFICATE_EXPIRED: Final = Fault("LL2001", "A certificate is not valid now")
CERTIFICATE_UNREADABLE: Final = Fault("LL2002", "A certificate cannot be read")
CERTIFICATE_ENDS_SOON: Final = Fault("LL2003", "A certificate ends soon and nothing has renewed it")
IDENTITY_MISSING: Final = Fault("LL2004", "The box has not joined yet")
IDENTITY_UNUSABLE: Final = Fault("LL2005", "The box's certificate and key cannot be used")
CREDENTIALS_UNUSABLE: Final = Fault("LL2006", "Certificate, key and authority do not work together")
AUTHORITY_MISSING: Final = Fault("LL2007", "The certificate authority is missing or damaged")
SIGNER_FAILED: Final = Fault("LL2008", "The server cannot sign certificates now")
REQUEST_REFUSED: Final = Fault("LL2009", "A certificate request is refused")
TOKEN_DAMAGED: Final = Fault("LL2010", "The join token cannot be read")
TOKEN_UNKNOWN: Final = Fault("LL2011", "The join token is not known to this server")
TOKEN_USED: Final = Fault("LL2012", "The join token was used already")
TOKEN_EXPIRED: Final = Fault("LL2013", "The join token has expired")
AGENT_UNKNOWN: Final = Fault("LL2014", "The box has not joined this server")
AGENT_REVOKED: Final = Fault("LL2015", "The agent was revoked")
AGENT_KEY_DIFFERS: Final = Fault("LL2016", "The agent's name belongs to another key")
KEYS_UNAVAILABLE: Final = Fault("LL2017", "The box cannot make or use its key")
CLOCK_WRONG: Final = Fault("LL2018", "The clock of a box is wrong")
RENEWAL_FAILED: Final = Fault("LL2019", "A certificate could not be renewed")
AGENTS_LOCKED_OUT: Final = Fault("LL2020", "Agents will be locked out soon")
PEER_CERTIFICATE_REFUSED: Final = Fault("LL2021", "A peer's certificate was refused in the TLS handshake")
PEER_ROLE_REFUSED: Final = Fault("LL2022", "A certificate does not say what it is used for")
CREDENTIAL_MISSING: Final = Fault("LL2023", "No credential of a known user was given")
STATE_UNREADABLE: Final = Fault("LL2024", "What is kept of agents, users and tokens cannot be read")
RECORD_UNREADABLE: Final = Fault("LL2025", "One record of an agent, user or token cannot be read")
CERTIFICATE_NOT_RELOADED: Final = Fault("LL2026", "A new certificate cannot be used, the old one stays")
ENROLLMENT_REFUSED: Final = Fault("LL2027", "The server will not issue a certificate")
ADMIN_REFUSED: Final = Fault("LL2028", "An account may not administer this daemon")
RENEWED_TOO_OFTEN: Final = Fault("LL2029", "A box asks for certificates too often")
CREDENTIAL_UNKNOWN: Final = Fault("LL2040", "The credential is not known to this server")
USER_REVOKED: Final = Fault("LL2041", "The user was revoked")
CREDENTIAL_OUTDATED: Final = Fault("LL2042", "The credential was made before the user was taken in again")
CREDENTIAL_EXPIRED: Final = Fault("LL2043", "The credential has expired")
OUT_OF_SCOPE: Final = Fault("LL2044", "The credential was not made for this")
LOGIN_ONLY: Final = Fault("LL2045", "A login gets certificates and opens nothing else")
JOIN_NAME_REFUSED: Final = Fault("LL2046", "The join token does not let a box have that name")
CERTIFICATES_TOO_FAST: Final = Fault("LL2047", "A user asks for certificates too fast")
COPIED_DISK: Final = Fault("LL2050", "A copy of a box's disk asks for a certificate")
ANSWER_REFUSED: Final = Fault("LL2051", "The server's answer to a renewal is not taken")
NO_SECOND_AUTHORITY: Final = Fault("LL2052", "That step of a change of authority cannot be taken now")
AGENTS_BEHIND: Final = Fault("LL2053", "Agents or users would be locked out with the authority that is to go")
KEY_NOT_ROTATED: Final = Fault("LL2054", "The box's key was not replaced")
RENEWAL_AHEAD: Final = Fault("LL2055", "A box counts more renewals than the server has kept")
SIGNING_DENIED: Final = Fault("LL2056", "The signer does not sign what its rules do not allow")
NODE_TOKEN_REFUSED: Final = Fault("LL2057", "A node's token of Kubernetes is not taken")
ID_TOKEN_REFUSED: Final = Fault("LL2060", "An ID token is not taken")
ISSUER_UNREACHABLE: Final = Fault("LL2061", "The keys of the issuer of ID tokens cannot be fetched")

# The link between agent and server

SERVER_NAME_NOT_FOUND: Final = Fault("LL3001", "The server's name is not found in DNS")
SERVER_UNREACHABLE: Final = Fault("LL3002", "No TCP connection to the server comes about")
PROXY_REFUSED: Final = Fault("LL3003", "The HTTP proxy does not let the link through")
SERVER_SPEAKS_NO_TLS: Final = Fault("LL3004", "What listens there does not speak TLS")
SERVER_SPEAKS_NO_HTTP2: Final = Fault("LL3005", "What listens there speaks TLS but not HTTP/2")
SERVER_NAME_DIFFERS: Final = Fault("LL3006", "The server's certificate has other names")
SERVER_CERTIFICATE_TIME: Final = Fault("LL3007", "By this box's clock the server's certificate is not valid")
SERVER_NOT_TRUSTED: Final = Fault("LL3008", "The box does not trust the server's certificate")
BOX_NOT_ACCEPTED: Final = Fault("LL3009", "The server does not accept the box's certificate")
BOX_CERTIFICATE_TIME: Final = Fault("LL3010", "The box's own certificate is not valid now")
SERVER_SILENT: Final = Fault("LL3011", "The server does not answer in time")
LINK_BROKE: Final = Fault("LL3012", "The link to the server broke")
LINK_DOES_NOT_HOLD: Final = Fault("LL3013", "The link is lost as soon as it is up")
SESSION_LOST: Final = Fault("LL3014", "The session could not be resumed, its connections were reset")
VERSION_NOT_SPOKEN: Final = Fault("LL3015", "The two ends have no protocol version in common")
REPLACED: Final = Fault("LL3016", "Another process took over the agent's name")
PROTOCOL_BROKEN: Final = Fault("LL3017", "The other side broke the protocol")
SHUTTING_DOWN: Final = Fault("LL3018", "The other side is stopping")
PEER_SAID_NOTHING: Final = Fault("LL3019", "Connections of agents that say nothing are closed")
NOT_A_LONGLINE_SERVER: Final = Fault("LL3020", "What answers is not a Longline server of this version")
LINKS_TOO_OFTEN: Final = Fault("LL3021", "A box makes its link anew too often")
LINK_FLOODED: Final = Fault("LL3022", "One side of a link floods the other with what moves no bytes")

# Opens

AGENT_NOT_KNOWN: Final = Fault("LL4001", "No agent of that name is known")
AGENT_AWAY: Final = Fault("LL4002", "The agent is away")
NO_ROUTE: Final = Fault("LL4003", "No agent is responsible for the host")
NAME_INVALID: Final = Fault("LL4004", "The name has no form that is known")
AMBIGUOUS: Final = Fault("LL4005", "More than one agent might be meant")
NODE_WITHOUT_AGENT: Final = Fault("LL4006", "No agent is on the node")
SERVICE_WITHOUT_PORT: Final = Fault("LL4007", "The Kubernetes service has no such port")
SERVICE_WITHOUT_ENDPOINT: Final = Fault("LL4008", "The Kubernetes service has no ready endpoint")
KUBELET_BY_CONNECT: Final = Fault("LL4009", "A kubelet is not reached by CONNECT")
NOT_ALLOWED: Final = Fault("LL4101", "The policy does not allow this")
NOT_ALLOWED_BY_BOX: Final = Fault("LL4102", "The box's own rules do not allow the target")
NOT_EXPOSED: Final = Fault("LL4103", "The server exposes no such target to agents")
NO_SERVICE: Final = Fault("LL4104", "The far end offers no service of that name")
FAR_END_TOO_OLD: Final = Fault("LL4105", "The far end is too old for what it was asked to connect to")
NOT_FORWARDED: Final = Fault("LL4106", "The connection was meant for another agent and is not forwarded")
RULE_FOR_OTHERS: Final = Fault("LL4110", "The box's rule for the target is for other users or groups")
METADATA_NOT_NAMED: Final = Fault("LL4111", "A link-local or metadata address must be named by itself")
TARGET_REFUSED: Final = Fault("LL4201", "The target refused the connection")
TARGET_UNREACHABLE: Final = Fault("LL4202", "The target cannot be reached from the far end")
TARGET_SILENT: Final = Fault("LL4203", "The target does not answer")
TARGET_NAME_NOT_FOUND: Final = Fault("LL4204", "The target's name does not resolve at the far end")
FAR_END_EXHAUSTED: Final = Fault("LL4205", "The far end has no sockets or memory left to dial")
TOO_MANY_STREAMS: Final = Fault("LL4301", "Too many connections are open on one link")
NO_MEMORY_FOR_STREAM: Final = Fault("LL4302", "No memory is left for another connection")
OPENS_TOO_FAST: Final = Fault("LL4303", "Connections are opened too fast")
OPEN_TIMED_OUT: Final = Fault("LL4304", "The far end did not answer within the deadline")
GIVEN_UP: Final = Fault("LL4305", "The side that asked gave up")
CONNECTION_RESET: Final = Fault("LL4306", "The connection was reset by its other end")
NO_LINK: Final = Fault("LL4307", "The agent has no link to the cloud")
ONLY_TCP: Final = Fault("LL4308", "Only TCP is carried")
CONNECT_INVALID: Final = Fault("LL4309", "The request is not one for a CONNECT front end")
TOO_MANY_CLIENTS: Final = Fault("LL4310", "A listener refuses connections beyond its limit")
KILLED: Final = Fault("LL4311", "An operator ended the connection")
STANDING_LOST: Final = Fault("LL4312", "The rules do not allow the connection any more")
OPEN_UNKNOWN: Final = Fault("LL4313", "No connection of that id is open")
CREDENTIAL_LOST: Final = Fault("LL4314", "What the connection was opened with was revoked")
CREDENTIAL_RAN_OUT: Final = Fault("LL4315", "What the connection was opened with has expired")
NOBODY_READS: Final = Fault("LL4316", "The user has gone, and the other end reads nothing of what was sent")

# The fleet API, kubelets, the cluster's own API

API_REQUEST_INVALID: Final = Fault("LL5001", "The fleet API does not understand the request")
API_NOT_FOUND: Final = Fault("LL5002", "The fleet API has no such object")
API_READ_ONLY: Final = Fault("LL5003", "The fleet API does not take that kind of request")
KUBELET_SILENT: Final = Fault("LL5004", "The kubelet at the agent does not answer in time")
KUBELET_BROKEN: Final = Fault("LL5005", "The kubelet at the agent gave an answer that cannot be used")
UPGRADE_MISSING: Final = Fault("LL5006", "The client does not ask for a WebSocket")
BROWSER_REFUSED: Final = Fault("LL5007", "A web page may not use a client certificate")
HOST_RUNS_NO_COMMANDS: Final = Fault("LL5008", "The box runs no commands for kubectl")
UNIT_UNKNOWN: Final = Fault("LL5009", "The box has no such systemd unit")
JOURNAL_UNREADABLE: Final = Fault("LL5010", "The box's journal cannot be read")
LOG_FILE_UNREADABLE: Final = Fault("LL5011", "A log file on the box cannot be read")
TOO_MANY_COMMANDS: Final = Fault("LL5012", "The box runs as many commands as it may")
CONTAINER_UNKNOWN: Final = Fault("LL5013", "The box offers no such container")
COMMAND_NOT_STARTED: Final = Fault("LL5014", "The command cannot be started on the box")
NO_PREVIOUS_RUN: Final = Fault("LL5015", "There is no log of a previous run")
NOT_ON_A_PLAIN_BOX: Final = Fault("LL5016", "A plain box cannot be attached to")
REAL_KUBELET_UNREACHABLE: Final = Fault("LL5017", "The agent cannot reach the box's kubelet")
CLUSTER_UNAVAILABLE: Final = Fault("LL5018", "The cluster's API server cannot be reached")
CLUSTER_KUBECONFIG_UNUSABLE: Final = Fault("LL5019", "The kubeconfig for the cluster cannot be used")
CLUSTER_FORBIDS: Final = Fault("LL5020", "The account may not read what routing needs")
USAGE_UNKNOWN: Final = Fault("LL5021", "It is not known what a box or pod uses")
PODS_INCOMPLETE: Final = Fault("LL5023", "Not all pods that a box lists are shown")
COMMAND_NOT_LISTED: Final = Fault("LL5030", "The box lets its caller run other commands only")
ACCOUNT_NOT_ALLOWED: Final = Fault("LL5031", "The server allows none of the accounts that the box would use")
NOT_RECORDED: Final = Fault("LL5032", "The session cannot be recorded, and must be")
API_SERVER_AWAY: Final = Fault("LL5040", "The API server of the node is not reached")
SCOPE_NOT_KEPT: Final = Fault("LL5041", "A part of the API is not kept for when the API server is away")
KEPT_DAMAGED: Final = Fault("LL5042", "A part of what was kept of the API is damaged")
NOT_TOLD: Final = Fault("LL5043", "What was written while the API server was away is of no use any more")
KUBELET_CERTIFICATE_ENDED: Final = Fault("LL5047", "The kubelet's certificate has ended")
NODE_REFUSED: Final = Fault("LL5048", "The API server does not take the node's certificate")
NOT_THE_KUBELET: Final = Fault("LL5049", "A client without a certificate is not taken for the kubelet")
OPERATOR_UNKNOWN: Final = Fault("LL5050", "The token of the node's local operator is not taken")
OPERATOR_MAY_NOT: Final = Fault("LL5051", "The node's local operator may not do that")
KUBELET_REFUSES_AGENT: Final = Fault("LL5052", "The node's kubelet does nothing for the agent")

# The process

BUG: Final = Fault("LL6001", "A fault of Longline itself")
CANNOT_LISTEN: Final = Fault("LL6002", "A listener cannot be opened")
PART_ENDED: Final = Fault("LL6003", "A part of the daemon has ended by itself")
DRAIN_CUT: Final = Fault("LL6004", "Connections were still open at the end of the drain")
SYSTEMD_NOT_TOLD: Final = Fault("LL6005", "systemd could not be told how the daemon stands")
LOG_LINES_LOST: Final = Fault("LL6006", "Log lines were lost")
CALL_HANGS: Final = Fault("LL6007", "A call to the operating system does not return")
TASKS_HANG: Final = Fault("LL6008", "Parts of the daemon do not end")
STOPPED_AT_ONCE: Final = Fault("LL6009", "A further signal ended the daemon before it had finished")
GRPC_SAYS: Final = Fault("LL6010", "A message of the gRPC library")
PART_DOWN: Final = Fault("LL6011", "A part of the daemon is down")
SYSTEM_REFUSED: Final = Fault("LL6012", "The operating system refused what the daemon needs")
LINKS_STAND_STILL: Final = Fault("LL6013", "Links stand still though they should have been given up")
AUDIT_NOT_WRITTEN: Final = Fault("LL6014", "Audit records cannot be written")
RESTART_NEEDED: Final = Fault("LL6015", "The configuration says what only a restart applies")
STATE_HAS_A_SERVER: Final = Fault("LL6020", "Another server runs with the state folder")
NOT_UPGRADED: Final = Fault("LL6021", "The running server was not replaced and goes on")
NO_SERVER_TO_UPGRADE: Final = Fault("LL6022", "No server runs with the state folder")
HANDED_LISTENER_UNUSED: Final = Fault("LL6023", "A listening socket that was handed over is not used")
HANDOVER_BROKE: Final = Fault("LL6024", "One of two server processes ended while it handed over")
REQUEST_INVALID: Final = Fault("LL6025", "An HTTP request cannot be read")


FAULTS: Final[dict[str, Fault]] = {fault.code: fault for fault in list(vars().values()) if isinstance(fault, Fault)}
"""The table: every fault by its code."""


class FaultError(Exception):
    """An error whose cause stands in the table of faults.

    Attributes:
        text: for people, without the code; one line, or one for each thing that is wrong.
        fault: the cause.
    """

    default_fault: ClassVar[Fault] = BUG

    def __init__(self, text: str = "", fault: Fault | None = None) -> None:
        super().__init__(text)
        self.text = text
        self.fault = self.default_fault if fault is None else fault


def fault_of(error: BaseException) -> Fault:
    """Returns the fault that an error names.

    If it names none, returns SYSTEM_REFUSED for an OSError, and BUG for others.
    """
    fault = getattr(error, "fault", None)
    if isinstance(fault, Fault):
        return fault
    return SYSTEM_REFUSED if isinstance(error, OSError) else BUG


def coded(text: str, fault: Fault) -> str:
    """Returns a text with its fault's code in front, as clients and peers are told: `LL4201: 10.0.0.9:22: refused`."""
    return f"{fault.code}: {text}"


def decoded(text: str) -> tuple[str, Fault | None]:
    """Splits a text that `coded` made: returns the text behind the code, and the fault.

    Where no known code is in front, the text comes back as it is, with None.
    """
    match = _CODE.match(text)
    fault = FAULTS.get(match[1]) if match is not None else None
    return (text, None) if match is None or fault is None else (text[match.end() :], fault)
