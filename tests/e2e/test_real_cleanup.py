"""What is left of a node when the run that made it is killed: nothing that lives; and the next run removes the rest."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from tests.e2e.cluster import requirements
from tests.e2e.cluster.cgroups import ROOT
from tests.e2e.cluster.workplace import cgroup_name, remove_leftovers
from tests.support.tunnel import wait_until

pytestmark = pytest.mark.timeout(60, func_only=True)

TOP = Path(__file__).parents[2]
RUN = """
import sys
from tests.e2e.cluster import build, images, site, workloads
from tests.e2e.cluster.node import node
from tests.e2e.cluster.pki import ClusterPki
from tests.e2e.cluster.workplace import workplace
with site.routers(["site-a"]) as routers, workplace(routers.values()) as folder:
    images.write_archive(folder / "images.tar")
    router = routers["site-a"]
    with node("site-a", folder / "site-a", build.programs(), ClusterPki(folder / "pki"), router) as made:
        made.start(folder / "images.tar")
        made.set_pod_cidr("10.244.1.0/24")
        made.add_static_pod(workloads.pod("app", workloads.shell()))
        made.start_kubelet()
        print(folder, router.index, made.namespaces.pid, flush=True)
        sys.stdin.read()
"""


def test_a_run_that_is_killed() -> None:
    if reason := requirements.missing():
        pytest.skip(reason)
    argv = [sys.executable, "-c", RUN]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=TOP, text=True) as run:
        try:
            assert run.stdout is not None
            folder, index, first = run.stdout.readline().split()
            living = psutil.Process(int(first))
            wait_until(lambda: any("sleep" in name(each) for each in children(living)), "a container runs", 30)
            everybody = [psutil.Process(run.pid), *children(psutil.Process(run.pid))]
        finally:
            run.kill()
    wait_until(lambda: not [each for each in everybody if alive(each)], "all its processes are gone", 10)
    assert folder not in Path("/proc/mounts").read_text()
    assert Path(folder).exists()
    remove_leftovers()
    assert not Path(folder).exists()
    assert not Path(f"/run/netns/longline-{index}").exists()
    assert not list(ROOT.glob(f"**/{cgroup_name(int(index))}"))


def children(process: psutil.Process) -> list[psutil.Process]:
    return list(process.children(recursive=True))


def name(process: psutil.Process) -> str:
    """Its name; empty when it has ended meanwhile."""
    try:
        return str(process.name())
    except psutil.NoSuchProcess:
        return ""


def alive(process: psutil.Process) -> bool:
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False
