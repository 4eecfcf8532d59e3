"""What holds for the distribution as a whole: its commands, locks, public names, generated code and wheel."""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from zipfile import ZipFile

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

TOP = Path(__file__).parent.parent
PROJECT = tomllib.loads((TOP / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]
LOCKS = ["requirements-agent.lock", "requirements.lock", "requirements-dev.lock", "requirements-supply.lock"]
PACKAGES = ("tunnel", "protos", "edge_agent", "cloud_server")

PUBLIC_NAMES: dict[str, list[str]] = {}
"""What `from package import ...` promises, for packages that re-export anything."""

SERVER_ONLY = ("cloud_server", "yaml", "tunnel.tool", "kubernetes", "lightkube", "httpx2")


def _packages() -> Iterator[Path]:
    """Every package folder, relative to the top."""
    for name in PACKAGES:
        yield from sorted(path.parent.relative_to(TOP) for path in (TOP / name).rglob("__init__.py"))


def _locked(name: str) -> dict[str, Version]:
    """The packages of a lock file."""
    pins = re.findall(r"^([a-z0-9-]+)==([^ ;\\]+)", (TOP / name).read_text(), re.MULTILINE)
    return {package: Version(version) for package, version in pins}


def _run(*command: str | Path, cwd: Path = TOP) -> str:
    done = subprocess.run(list(map(str, command)), cwd=cwd, capture_output=True, text=True, timeout=55)
    assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
    return done.stdout


def test_commands_are_declared() -> None:
    assert PROJECT["scripts"] == {
        "cloud-server": "cloud_server.entry:main",
        "edge-agent": "edge_agent.entry:main",
        "longline": "tunnel.tool.entry:main",
    }


@pytest.mark.parametrize(
    ("lock", "requirements"),
    [
        ("requirements-agent.lock", PROJECT["dependencies"]),
        ("requirements.lock", PROJECT["dependencies"] + EXTRAS["server"]),
        ("requirements-dev.lock", PROJECT["dependencies"] + EXTRAS["server"] + EXTRAS["dev"]),
        ("requirements-supply.lock", EXTRAS["supply"]),
    ],
)
def test_lock_has_every_dependency_as_asked_for(lock: str, requirements: list[str]) -> None:
    locked = _locked(lock)
    for requirement in map(Requirement, requirements):
        version = locked.get(canonicalize_name(requirement.name))
        assert version is not None, f"{requirement.name} is not in {lock}: run `make lock`"
        assert version in requirement.specifier, f"{lock} has {requirement.name} {version}: run `make lock`"


def test_what_is_tested_is_what_is_installed() -> None:
    agent, runtime, dev = map(_locked, ("requirements-agent.lock", "requirements.lock", "requirements-dev.lock"))
    assert agent.items() < runtime.items() < dev.items()
    assert dev["grpcio"] == dev["grpcio-tools"]


def test_a_box_gets_nothing_that_only_a_server_needs() -> None:
    assert not _locked("requirements-agent.lock").keys() & {"lightkube", "msgspec", "httpx2"}


@pytest.mark.parametrize("lock", LOCKS)
def test_lock_has_a_hash_for_each_package_and_names_no_host(lock: str) -> None:
    text = (TOP / lock).read_text()
    entries = re.split(r"^(?=[a-z0-9-]+==)", text, flags=re.MULTILINE)[1:]
    assert entries
    assert [entry.split()[0] for entry in entries if "--hash=sha256:" not in entry] == []
    assert "://" not in text
    assert "--index-url" not in text
    assert "--find-links" not in text


def test_public_names_are_frozen() -> None:
    found: dict[str, list[str]] = {}
    for package in _packages():
        for node in ast.parse((TOP / package / "__init__.py").read_text()).body:
            if isinstance(node, ast.Assign) and [ast.unparse(target) for target in node.targets] == ["__all__"]:
                found[".".join(package.parts)] = ast.literal_eval(node.value)
            else:
                assert isinstance(node, ast.Expr | ast.Import | ast.ImportFrom), (
                    f"{package}: only re-exports belong here"
                )
    assert found == PUBLIC_NAMES


def test_every_package_is_typed() -> None:
    assert [str(package) for package in _packages() if not (TOP / package / "py.typed").exists()] == []


def test_generated_protobuf_code_is_fresh(tmp_path: Path) -> None:
    protoc = (sys.executable, "-m", "grpc_tools.protoc", "-I.", f"--python_out={tmp_path}", f"--pyi_out={tmp_path}")
    sources = sorted(f"protos/{path.name}" for path in (TOP / "protos").glob("*.proto"))
    _run(*protoc, *sources)
    made = {path.name: path.read_text() for path in (tmp_path / "protos").iterdir()}
    assert len(made) == 2 * len(sources)
    for name, fresh in made.items():
        assert (TOP / "protos" / name).read_text() == fresh, f"protos/{name} is stale: run `make protos`"


def test_no_part_of_the_agent_loads_what_only_the_server_needs() -> None:
    names = sorted(
        str(path.relative_to(TOP).with_suffix("")).replace("/", ".") for path in TOP.glob("edge_agent/**/*.py")
    )
    modules = [name.removesuffix(".__init__") for name in names if not name.endswith("__main__")]
    code = f"import importlib, sys\nfor name in {modules!r}: importlib.import_module(name)\nprint(*sys.modules)"
    loaded = set(_run(sys.executable, "-W", "error", "-c", code).split())
    assert "edge_agent" in loaded
    assert sorted(loaded.intersection(SERVER_ONLY)) == []


def test_a_box_at_rest_does_without_the_built_in_kubelet_and_the_x509_library() -> None:
    code = "import sys, edge_agent.entry, edge_agent.daemon\nprint(*sys.modules)"
    loaded = set(_run(sys.executable, "-W", "error", "-c", code).split())
    assert "edge_agent.hostkubelet.settings" in loaded
    kubelet = {"edge_agent.hostkubelet.server", "edge_agent.hostkubelet.spawn", "wsproto", "h11", "h2"}
    assert not loaded & {*kubelet, "click", "cryptography", "prometheus_client", "edge_agent.metrics_page"}


def test_a_server_at_rest_does_without_the_x509_library_and_metrics_that_nobody_asked_for() -> None:
    code = "import sys, cloud_server.entry, cloud_server.daemon\nprint(*sys.modules)"
    loaded = set(_run(sys.executable, "-W", "error", "-c", code).split())
    assert "cloud_server.trust.signer" in loaded
    assert not loaded & {"click", "cryptography", "h2", "prometheus_client", "lightkube"}


POSIX_ONLY = ("fcntl", "grp", "posix", "pty", "pwd", "resource", "syslog", "termios", "tty", "uvloop")


def test_the_operators_tool_needs_no_module_that_windows_lacks() -> None:
    code = f"""
import sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name in {POSIX_ONLY!r} or name == "grpc":
            raise ImportError(f"{{name}} is not on Windows")
sys.meta_path.insert(0, Refuse())
import importlib, pkgutil, tunnel.tool
for module in pkgutil.iter_modules(tunnel.tool.__path__, "tunnel.tool."):
    importlib.import_module(module.name)
import tunnel.aio.identity.openssl, yaml
for name in tunnel.tool.cli.cli.commands:
    tunnel.tool.cli.cli([name, "--help"], standalone_mode=False)
"""
    assert "Join standard input and output to TARGET" in _run(sys.executable, "-W", "error", "-c", code)


@pytest.mark.parametrize("command", ["edge_agent", "cloud_server"])
def test_what_the_log_library_could_use_and_we_do_not_is_not_loaded(command: str) -> None:
    pytest.importorskip("rich")
    first = "from tunnel.aio.process.outcome import leave_out_rich\nleave_out_rich()"
    code = f"{first}\nimport sys, {command}.entry, {command}.daemon\nprint(*sys.modules)"
    loaded = set(_run(sys.executable, "-W", "error", "-c", code).split())
    assert "structlog.dev" in loaded
    assert not loaded & {"rich.console", "pygments"}


def test_wheel_holds_the_four_packages_whole_and_nothing_else(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    for name in PACKAGES:
        shutil.copytree(TOP / name, tree / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(TOP / name, tree)
    (tree / "tests").mkdir()
    (tree / "tests" / "__init__.py").touch()

    pip = (sys.executable, "-m", "pip", "wheel", "--quiet", "--disable-pip-version-check", "--no-index")
    _run(*pip, "--no-deps", "--no-build-isolation", "--wheel-dir", tmp_path, ".", cwd=tree)

    (wheel,) = tmp_path.glob("longline-*.whl")
    with ZipFile(wheel) as archive:
        packed = {name for name in archive.namelist() if ".dist-info/" not in name}
    there = {str(path.relative_to(TOP)) for name in PACKAGES for path in (TOP / name).rglob("*") if path.is_file()}
    assert packed == {name for name in there if "__pycache__" not in name}
