"""What is said about a kubeconfig that cannot be used; how a cluster is read is tested on real ones (tests/e2e)."""

from __future__ import annotations

from pathlib import Path

import pytest

from cloud_server.kubernetes.lightkube_access import KubeconfigUnusable, LightkubeAccess

NO_CONTEXT = "clusters: []\nusers: []\ncontexts: []\n"


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (None, ": No such file or directory"),
        ("x: [", " is no kubeconfig: it is not YAML"),
        ("x: 1", " is no kubeconfig: it has no clusters"),
        (NO_CONTEXT, ": No current context set and no default provided"),
    ],
)
def test_a_kubeconfig_that_cannot_be_used(tmp_path: Path, content: str | None, text: str) -> None:
    path = tmp_path / "kubeconfig"
    if content is not None:
        path.write_text(content)
    with pytest.raises(KubeconfigUnusable) as caught:
        LightkubeAccess.from_kubeconfig(path)
    assert str(caught.value) == f"{path}{text}"


def test_a_folder_in_place_of_a_kubeconfig(tmp_path: Path) -> None:
    with pytest.raises(KubeconfigUnusable, match="Is a directory"):
        LightkubeAccess.from_kubeconfig(tmp_path)
