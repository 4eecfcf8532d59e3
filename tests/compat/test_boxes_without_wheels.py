"""32-bit ARM has no wheels of uvloop, cffi (cryptography needs it), PyYAML and msgspec: nothing installed there.

What each kind of machine needs is downloaded as wheels only, by the lock file; and an agent that has none of these
libraries joins, renews its certificate and serves.
"""

from __future__ import annotations

import datetime as dt
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from packaging.markers import Marker

from cloud_server.trust import ca
from cloud_server.trust.ca import CertificateAuthority
from edge_agent.identity.identity import Identity
from tests.support.cluster import Cluster, cluster
from tests.support.enrolling import public_key_of
from tests.support.processes import BIN, environment
from tests.support.waits import scaled_s

pytestmark = pytest.mark.e2e

TOP = Path(__file__).parents[2]
MISSING = ("uvloop", "cryptography", "cffi", "_cffi_backend", "yaml", "msgspec", "lightkube", "prometheus_client")
GLIBC = ("2_17", "2_26", "2_27", "2_28", "2_31", "2_34", "2_35")
"""Of manylinux: Debian 12 has 2.36, Ubuntu 22.04 has 2.35."""

LINUX = {"sys_platform": "linux", "platform_system": "Linux", "os_name": "posix"}
MACHINES: dict[str, tuple[dict[str, str], list[str]]] = {
    f"{machine}-{libc}": (
        {**LINUX, "platform_machine": machine},
        [f"manylinux_{version}_{machine}" for version in GLIBC] + [f"manylinux2014_{machine}", f"linux_{machine}"]
        if libc == "glibc"
        else [f"musllinux_1_{minor}_{machine}" for minor in (1, 2)],
    )
    for machine, libc in [("x86_64", "glibc"), ("x86_64", "musl"), ("aarch64", "glibc"), ("aarch64", "musl")]
} | {
    "armv7l-glibc": (
        {**LINUX, "platform_machine": "armv7l"},
        [f"manylinux_{version}_armv7l" for version in GLIBC] + ["manylinux2014_armv7l", "linux_armv7l"],
    ),
    "windows": (
        {"sys_platform": "win32", "platform_system": "Windows", "platform_machine": "AMD64", "os_name": "nt"},
        ["win_amd64"],
    ),
    "macos": (
        {"sys_platform": "darwin", "platform_system": "Darwin", "platform_machine": "arm64", "os_name": "posix"},
        [f"macosx_{major}_0_{kind}" for major in (11, 12, 13, 14) for kind in ("arm64", "universal2")],
    ),
}
"""Each with what its Python says of itself, and the names of its wheels. Alpine on 32-bit ARM is not among them: grpcio
has no wheel for it."""


def needed(lock: str, markers: dict[str, str]) -> str:
    """The entries of a lock file that a machine needs, with their hashes."""
    text = (TOP / lock).read_text()
    entries = re.split(r"^(?=[a-z0-9-]+==)", text, flags=re.MULTILINE)[1:]
    wanted = []
    for entry in entries:
        requirement, _, condition = entry.split("\\", 1)[0].partition(";")
        own = {**markers, "python_version": "3.11", "python_full_version": "3.11.9", "implementation_name": "cpython"}
        own["platform_python_implementation"] = "CPython"
        if not condition or Marker(condition.strip()).evaluate(own):
            hashes = re.findall(r"--hash=\S+", entry)
            wanted.append(f"{requirement.strip()} {' '.join(hashes)}")
    return "\n".join(wanted)


@pytest.mark.parametrize("machine", MACHINES)
def test_every_machine_gets_all_it_needs_as_wheels(tmp_path: Path, machine: str) -> None:
    markers, platforms = MACHINES[machine]
    lock = tmp_path / "needed.txt"
    lock.write_text(needed("requirements-agent.lock", markers))
    assert "grpcio==" in lock.read_text()
    words = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
    words += ["--only-binary=:all:", "--require-hashes", "--python-version", "3.11", "--dest", str(tmp_path / "wheels")]
    words += [word for platform in platforms for word in ("--platform", platform)]
    done = subprocess.run([*words, "-r", str(lock)], capture_output=True, text=True, timeout=scaled_s(300))
    assert done.returncode == 0, done.stderr
    assert len(list((tmp_path / "wheels").glob("*.whl"))) == len(lock.read_text().splitlines())


@pytest.fixture
def without(tmp_path: Path) -> str:
    """A folder that hides the libraries from whoever has it in PYTHONPATH."""
    for name in MISSING:
        (tmp_path / f"{name}.py").write_text(f"raise ImportError('there is no {name} here')\n")
    return str(tmp_path)


@pytest.fixture
def cloud() -> Iterator[Cluster]:
    with cluster() as made:
        made.start()
        yield made


def test_an_agent_without_them_joins_renews_and_serves(
    cloud: Cluster, without: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    hidden = ["env", f"PYTHONPATH={without}"]
    box = cloud.join("box-7", host={"exec": True, "user": "root"}, prefix=hidden)
    identity = Identity(box.state)
    with monkeypatch.context() as patch:
        patch.setattr(ca, "AGENT_LIFE", dt.timedelta(minutes=1))  # it began five minutes ago, and so is due
        authority = CertificateAuthority.load(cloud.config.parent, "longline")
        identity.certificate_path.write_bytes(authority.issue_agent("box-7", public_key_of(identity)))
    cloud.start_box("box-7")
    box.agent.wait_for_log("certificate renewed", 20)
    assert identity.certificate().validity.not_after - dt.datetime.now(dt.UTC) > dt.timedelta(days=6)
    kubeconfig = cloud.kubeconfig()
    words = ["kubectl", "--kubeconfig", str(kubeconfig), "exec", "box-7", "--", "echo", "it works"]
    done = subprocess.run(words, capture_output=True, text=True, env=environment(), timeout=scaled_s(60))
    assert done.stdout == "it works\n", done.stderr


def test_a_server_without_its_libraries_says_what_to_install(without: str, tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(
        "import importlib.util\n"
        "real = importlib.util.find_spec\n"
        f"importlib.util.find_spec = lambda name, *rest: None if name in {MISSING!r} else real(name, *rest)\n"
    )
    env = environment({"PYTHONPATH": f"{tmp_path}:{without}"})
    done = subprocess.run([str(BIN / "cloud-server"), "check"], capture_output=True, text=True, env=env, timeout=30)
    assert done.returncode == 1
    assert done.stderr == (
        "Error [LL1005]: cloud-server needs more than is installed "
        "(cryptography, lightkube, prometheus_client, yaml): pip install 'longline[server]'\n"
    )
