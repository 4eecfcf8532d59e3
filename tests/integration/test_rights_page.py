"""docs/rights.md: its policy is taken, its commands run, and print what the page says."""

from __future__ import annotations

import os
import subprocess

import pytest

from tests.support.cluster import cluster
from tests.support.pages import TOP, blocks, blocks_of
from tests.support.policies import policy_of
from tests.support.processes import environment
from tests.support.waits import scaled_s

PAGE = TOP / "docs" / "rights.md"


def test_the_policy_of_the_page_is_taken() -> None:
    (text,) = blocks(PAGE, "toml")
    assert [(role.name, len(role.allow), len(role.deny)) for role in policy_of(text).role] == [
        ("site-a-operators", 3, 1)
    ]
    assert len(policy_of(text).test) == 2


@pytest.mark.e2e
def test_the_commands_of_the_page_run() -> None:
    (text,) = blocks(PAGE, "toml")
    (commands,) = [block for block in blocks_of(PAGE) if block.marker.startswith("run: ")]
    (shown,) = blocks(PAGE, "text")
    with cluster() as made:
        made.policy.write_text(text)
        made.start()
        more = {"LONGLINE_CLOUD_SERVER_CONFIG": str(made.config), "KUBECONFIG": str(made.kubeconfig("root"))}
        done = subprocess.run(
            ["bash", "-e"], input=commands.text, env={**os.environ, **environment(more)}, capture_output=True,
            text=True, timeout=scaled_s(60), check=False,
        )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    assert shown in done.stdout
    assert '"rule": "site-a-operators.allow[1]"' in done.stdout
    assert "denied by site-a-operators.deny[0]" in done.stdout
