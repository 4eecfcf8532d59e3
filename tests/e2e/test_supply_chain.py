"""The bills of materials: what they say is what is installed."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tunnel.aio.process.version import VERSION

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]

TOP = Path(__file__).parents[2]


def locked(name: str) -> dict[tuple[str, str], set[str]]:
    """The hashes of each package and version of a lock file."""
    found: dict[tuple[str, str], set[str]] = {}
    for entry in re.split(r"\n(?=\S)", (TOP / name).read_text()):
        if match := re.match(r"([A-Za-z0-9._-]+)==([^ \\;]+)", entry):
            found[match[1], match[2]] = set(re.findall(r"sha256:([0-9a-f]{64})", entry))
    return found


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
def test_the_bills_of_materials_are_the_lock_files() -> None:
    done = subprocess.run(["make", "-s", "sbom"], cwd=TOP, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for kind, lock in (("server", "requirements.lock"), ("agent", "requirements-agent.lock")):
        bill = json.loads((TOP / f"dist/longline-{VERSION}-{kind}.cdx.json").read_text())
        assert (bill["bomFormat"], bill["metadata"]["component"]["version"]) == ("CycloneDX", VERSION)
        said = {
            (one["name"], one["version"]): {
                each["content"] for source in one["externalReferences"] for each in source.get("hashes", [])
            }
            for one in bill["components"]
        }
        assert said == locked(lock)
        (root,) = [one for one in bill["dependencies"] if one["ref"] == bill["metadata"]["component"]["bom-ref"]]
        assert len(root["dependsOn"]) > 10
