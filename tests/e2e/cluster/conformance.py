"""Kubernetes' own tests of its API, at an API server and at a node's proxy in front of it, by the same token.

`python -m tests.e2e.cluster upstream`; some ten minutes, and no part of `make e2e`.
"""

from __future__ import annotations

import json
import subprocess
import tempfile
from pathlib import Path

import yaml

from tests.e2e.cluster.build import upstream
from tests.e2e.cluster.proxied import proxied_api

FOCUS = (
    "Watchers|API Streaming|chunking|Table transformation|negotiate watch|Server request timeout|Discovery"
    "|FieldValidation|CustomResourceDefinition|CustomResourcePublishOpenAPI|OpenAPIV3|ServerSideApply|ValidatingAdmissionPolicy"
    "|Namespaces.*(finalizer|apply an update|patch)|life of a (configMap|secret|service)"
)
SKIP = "Slow|Flaky|Feature:|Aggregated APIServer|[Ww]ebhook|conver"
"""Also those that need a node, or a kubectl of their own."""
SEED = 1
"""Of the order of tests, which is the same both times."""
TIMEOUT_S = 1500.0

Results = dict[str, str]


def run() -> int:
    """Run both, and print what each test came to; returns 1 if any came to something else through the proxy."""
    program = upstream()
    with tempfile.TemporaryDirectory(prefix="longline-upstream-") as name, proxied_api(Path(name)) as place:
        through = place.account("tester", "cluster-admin").kubeconfig
        content = yaml.safe_load(through.read_text())
        server = {"server": place.control.api.server, "certificate-authority": str(place.pki.ca)}
        content["clusters"][0]["cluster"] = server
        direct = Path(name) / "direct.kubeconfig"
        direct.write_text(yaml.safe_dump(content))
        before, after = (_results(program, path, Path(name)) for path in (direct, through))
    for test in sorted(before | after):
        print(f"{before.get(test, '-'):>8} {after.get(test, '-'):>8}  {test}")
    differ = [test for test in before | after if before.get(test) != after.get(test)]
    print(f"{len(before)} tests at the API server, {len(after)} at the proxy, {len(differ)} with another result")
    return 1 if differ else 0


# Internal


def _results(program: Path, kubeconfig: Path, folder: Path) -> Results:
    report = folder / f"{kubeconfig.stem}.json"
    subprocess.run(
        [
            program, f"-kubeconfig={kubeconfig}", "-provider=skeleton", f"-ginkgo.focus={FOCUS}",
            f"-ginkgo.skip={SKIP}", f"-ginkgo.seed={SEED}", f"-ginkgo.json-report={report}",
        ],
        cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False, timeout=TIMEOUT_S,
    )  # fmt: skip
    specs = json.loads(report.read_text())[0]["SpecReports"]
    return {
        " ".join([*(spec["ContainerHierarchyTexts"] or ()), spec["LeafNodeText"]]): spec["State"]
        for spec in specs
        if spec["LeafNodeType"] == "It" and (spec["State"] != "skipped" or spec.get("Failure"))
    }
