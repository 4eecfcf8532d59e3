"""Writes the bill of materials of a lock file in CycloneDX's JSON: `python sbom.py LOCK OUT VERSION`; see `make sbom`.

cyclonedx-py reads the lock, with its hashes; what it cannot know from there, the version of Longline and which packages
it asks for by itself, is put in here.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

TOP = Path(__file__).parent.parent


def main() -> None:
    """Writes the file."""
    lock, out, version = sys.argv[1:]
    program = Path(sys.executable).with_name("cyclonedx-py")
    words = ["requirements", lock, "--pyproject", str(TOP / "pyproject.toml"), "--output-reproducible", "--of", "JSON"]
    # What it warns of is added below.
    made = subprocess.run([sys.executable, "-W", "ignore", program, *words], stdout=subprocess.PIPE, check=True)
    bill = json.loads(made.stdout)
    root = bill["metadata"]["component"]
    root["version"] = version
    root["purl"] = f"pkg:pypi/longline@{version}"
    by_name = {_normal(one["name"]): one["bom-ref"] for one in bill["components"]}
    edges = {one["ref"]: one for one in bill.setdefault("dependencies", [])}
    edges[root["bom-ref"]] = {
        "ref": root["bom-ref"],
        "dependsOn": sorted(by_name[name] for name in _asked_for() if name in by_name),
    }
    bill["dependencies"] = [edges[ref] for ref in sorted(edges)]
    Path(out).parent.mkdir(parents=True, exist_ok=True)
    Path(out).write_text(json.dumps(bill, indent=2) + "\n")


def _asked_for() -> set[str]:
    project = tomllib.loads((TOP / "pyproject.toml").read_text())["project"]
    wanted = [*project["dependencies"], *project["optional-dependencies"]["server"]]
    return {_normal(re.split(r"[^A-Za-z0-9._-]", one, maxsplit=1)[0]) for one in wanted}


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


if __name__ == "__main__":
    main()
