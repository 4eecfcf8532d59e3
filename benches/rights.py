"""What the policy costs: an ask of a big file, the first ask of a user, and the file's reading until it is in use.

All of it is CPU time, which is what it holds: what else the machine does is not counted.
"""

from __future__ import annotations

import itertools
import tempfile
import time
import tomllib
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import tomli

from benches.results import Samples
from cloud_server.rights.ask import Ask, Verb
from cloud_server.rights.policy_file import PolicyFile, load_policy
from tunnel.core.wire.principal import Principal, PrincipalKind
from tunnel.core.wire.target import TcpTarget

NAME = "policy of 1,000 roles and 10,000 bindings"
ROLES, BINDINGS, USERS, GROUPS = 1000, 10_000, 5000, 2000
ASKS = 2000


def measure(quick: bool) -> Samples:
    """Round by round; each with the file read anew."""
    samples: Samples = defaultdict(list)
    with tempfile.TemporaryDirectory(prefix="longline-bench-") as folder:
        path = Path(folder) / "policy.toml"
        path.write_text(big_policy())
        text = path.read_text()
        for _ in range(2 if quick else 15):
            samples["TOML alone by tomllib, CPU ms"].append(_ms(lambda: tomllib.loads(text)))
            samples["TOML alone by tomli, CPU ms"].append(_ms(lambda: tomli.loads(text)))
            start = time.process_time()
            policy = load_policy(path)
            samples["reading and compiling, CPU ms"].append((time.process_time() - start) * 1000)
            for title in ("first ask of a user, CPU us", "ask, CPU us"):
                samples[title].append(_asks_us(policy))
    return dict(samples)


def big_policy() -> str:
    """A file of 1 MB: each user has two roles by name, and each group five."""
    tables = [
        (
            f'[[role]]\nname = "role-{number}"\n'
            f'[[role.allow]]\nfrontends = ["connect"]\nagents = ["site{number}-*"]\n'
            f'targets = ["10.{number % 256}.0.0/16:443", "*.s{number}.example.com:80"]\n'
            f'[[role.allow]]\nverbs = ["get", "logs"]\nagents = ["site{number}-*"]\n'
            f'labels = {{ site = "s{number}" }}\nunits = ["nginx*"]\n'
        )
        for number in range(ROLES)
    ]
    tables += [
        (
            f'[[binding]]\nrole = "role-{number % ROLES}"\nusers = ["user-{number % USERS}"]\n'
            f'groups = ["group-{number % GROUPS}"]\n'
        )
        for number in range(BINDINGS)
    ]
    return "\n".join(tables)


def asks() -> Iterator[Ask]:
    """Each of another user in two groups, to what one of their roles allows."""
    for number in itertools.count():
        groups = (f"group-{number % GROUPS}", f"group-{(number + 1) % GROUPS}")
        yield Ask(
            principal=Principal(kind=PrincipalKind.USER, name=f"user-{number % USERS}", groups=groups),
            frontend="connect",
            verb=Verb.CONNECT,
            agent=f"site{number % ROLES}-7",
            target=TcpTarget(f"10.{number % ROLES % 256}.3.4", 443),
        )


def _asks_us(policy: PolicyFile) -> float:
    rights, asked = policy.rights, list(itertools.islice(asks(), ASKS))
    start = time.process_time()
    for ask in asked:
        rights.decide(ask)
    taken_s = time.process_time() - start
    if not all(rights.decide(ask).allowed for ask in asked):
        raise RuntimeError("an ask was refused that a rule allows")
    return taken_s / ASKS * 1e6


def _ms(work: object) -> float:
    start = time.process_time()
    assert callable(work)
    work()
    return (time.process_time() - start) * 1000
