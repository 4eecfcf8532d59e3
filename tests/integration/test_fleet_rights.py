"""What the policy lets users do with stock kubectl and with longline: real processes, users with files of their own."""

from __future__ import annotations

import json
import os
import pwd
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.cluster import Cluster, cluster
from tests.support.kubectl_user import KubectlUser
from tests.support.processes import BIN
from tests.support.tunnel import wait_until
from tests.support.waits import sooner_than
from tunnel.aio.operate.admin_client import AdminClient, unix_client

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]

ME = pwd.getpwuid(os.geteuid()).pw_name
POLICY = """
[[binding]]
role = "admin"
users = ["admin"]

[[role]]
name = "contractor"
[[role.allow]]
labels = { site = "a" }
verbs = ["get"]
[[binding]]
role = "contractor"
users = ["carl"]

[[role]]
name = "operator"
[[role.allow]]
verbs = ["get"]
[[role.allow]]
name = "app-logs"
verbs = ["logs"]
units = ["app.log"]
[[role.allow]]
name = "as-me"
agents = ["a-1"]
verbs = ["exec"]
accounts = ["ME"]
[[role.allow]]
name = "as-another"
agents = ["b-1"]
verbs = ["exec"]
accounts = ["nobody"]
[[binding]]
role = "operator"
groups = ["operators"]

[[role]]
name = "copier"
[[role.allow]]
verbs = ["get", "cp"]
[[binding]]
role = "copier"
users = ["cora"]

[[role]]
name = "help-desk"
[[role.allow]]
verbs = ["get", "observe"]
[[role.allow]]
name = "as-carl"
verbs = ["impersonate"]
whom = ["user:carl"]
[[binding]]
role = "help-desk"
users = ["hella"]

[[role]]
name = "night-desk"
[[role.allow]]
verbs = ["impersonate"]
whom = ["user:otto", "group:operators"]
[[binding]]
role = "night-desk"
users = ["nora"]
"""


class User(KubectlUser):
    """Somebody with a kubeconfig."""

    def __init__(self, made: Cluster, name: str) -> None:
        self.kubeconfig, self.folder = made.kubeconfig(name), made.folder / f"home-{name}"
        self.folder.mkdir(exist_ok=True)

    def names(self, *words: str) -> list[str]:
        return self.kubectl("get", *words, "-o", "name").split()

    def refusal(self, *words: str) -> str:
        done = self.run_kubectl(*words)
        assert done.returncode, done.stdout
        return done.stderr.decode()

    def can_i(self, *words: str) -> str:
        """The answer; behind a no is the rule."""
        done = self.run_kubectl("auth", "can-i", *words)
        answer = done.stdout.decode()
        assert answer.split()[0] == ("no" if done.returncode else "yes")
        return answer

    def longline(self, *words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([BIN / "longline", *words], capture_output=True, text=True, env=self.env, timeout=60)


@pytest.fixture(scope="module")
def up() -> Iterator[Cluster]:
    with cluster() as made:
        made.policy.write_text(POLICY.replace("ME", ME))
        made.start()
        for name in ("app.log", "secret.log"):
            (made.folder / name).write_text(f"of {name}\n")
        files = [str(made.folder / name) for name in ("app.log", "secret.log")]
        for name in ("a-1", "a-2", "b-1"):
            made.join(name, host={"exec": True, "user": ME, "files": files})
            made.typed("agent", "label", name, f"site={name[0]}")
        for name in made.boxes:
            made.start_box(name)
        yield made


@pytest.fixture(scope="module")
def admin(up: Cluster) -> User:
    user = User(up, "admin")
    wait_until(lambda: user.kubectl("get", "pods").count("Running") == 3, "the boxes are pods")
    return user


@pytest.fixture(scope="module")
def carl(up: Cluster, admin: User) -> User:
    return User(up, "carl")


@pytest.fixture(scope="module")
def otto(up: Cluster, admin: User) -> User:
    user = User(up, "otto")
    up.typed("user", "add", "otto", "--group", "operators")
    wait_until(lambda: user.run_kubectl("get", "pods").returncode == 0, "the server has seen the group")
    return user


@pytest.fixture(scope="module")
def hella(up: Cluster, admin: User) -> User:
    return User(up, "hella")


def test_a_contractor_sees_one_site(carl: User, admin: User) -> None:
    assert admin.names("nodes") == ["node/a-1", "node/a-2", "node/b-1"]
    assert carl.names("nodes") == ["node/a-1", "node/a-2"]
    assert carl.names("pods", "-A") == ["pod/a-1", "pod/a-2"]
    assert "b-1" not in carl.kubectl("top", "nodes")
    assert 'Error from server (NotFound): nodes "b-1" not found' in carl.refusal("get", "node", "b-1")
    assert 'pods "b-1" not found' in carl.refusal("exec", "b-1", "--", "id")
    refused = carl.refusal("logs", "a-1", "-c", "app.log")
    assert (
        'Error from server (Forbidden): pods "a-1" is forbidden: User "carl" cannot get resource "pods/log"' in refused
    )
    assert "default deny: no rule lets user carl logs" in refused
    listed = carl.longline("ls")
    assert (listed.returncode, "a-1" in listed.stdout, "b-1" in listed.stdout) == (0, True, False)
    refused = carl.longline("exec", "a-1", "--", "id").stderr
    assert ("LL4101" in refused, "default deny" in refused) == (True, True)


def test_a_watch_ends_when_the_policy_or_a_label_shows_more(up: Cluster, carl: User) -> None:
    with carl.follow("get", "nodes", "-o", "name", "--watch") as watch:
        assert watch.stdout is not None
        assert [watch.stdout.readline() for _ in range(2)] == ["node/a-1\n", "node/a-2\n"]
        with sooner_than(5, "the end of a watch that would show too little"):
            up.typed("agent", "label", "b-1", "site=a")
            assert watch.wait(10) is not None
    assert carl.names("nodes") == ["node/a-1", "node/a-2", "node/b-1"]
    up.typed("agent", "label", "b-1", "site=b")
    wait_until(lambda: carl.names("nodes") == ["node/a-1", "node/a-2"], "the label is back")


def test_operators_read_logs_of_some_units_and_run_commands_as_an_account(otto: User, admin: User) -> None:
    assert otto.kubectl("logs", "a-1", "-c", "app.log") == "of app.log\n"
    refused = otto.refusal("logs", "a-1", "-c", "secret.log")
    assert "no rule lets user otto logs of secret.log at a-1" in refused
    assert otto.kubectl("exec", "a-1", "--", "id", "-un").strip() == ME
    refused = otto.refusal("exec", "b-1", "--", "id", "-un")
    assert "LL5031" in refused
    assert admin.kubectl("exec", "b-1", "--", "id", "-un").strip() == ME
    assert otto.longline("logs", "a-1", "app.log").stdout.endswith("of app.log\n")


def test_files_are_copied_without_commands(up: Cluster, admin: User) -> None:
    cora = User(up, "cora")
    cora.kubectl("cp", f"a-1:{up.folder}/app.log", "copied.log", "-c", "host")
    assert (cora.folder / "copied.log").read_text() == "of app.log\n"
    copied = cora.longline("cp", f"a-1:{up.folder}/app.log", str(cora.folder / "again.log"))
    assert copied.returncode == 0, copied.stderr
    assert (cora.folder / "again.log").read_text() == "of app.log\n"
    assert 'User "cora" cannot' in cora.refusal("exec", "a-1", "--", "id")
    assert "files may be copied" in cora.can_i("create", "pods", "--subresource=exec")


def test_can_i_and_its_list_say_what_the_policy_does(carl: User, otto: User, admin: User) -> None:
    assert carl.can_i("list", "nodes") == "yes\n"
    assert carl.can_i("get", "node/a-1") == "yes\n"
    assert carl.can_i("get", "node/b-1").startswith("no - default deny")
    assert carl.can_i("get", "pods/a-1", "--subresource=log").startswith("no")
    assert otto.can_i("get", "pods/a-1", "--subresource=log") == "yes\n"
    assert otto.can_i("create", "pods/a-2", "--subresource=exec").startswith("no")
    assert admin.can_i("create", "pods", "--subresource=exec") == "yes\n"
    listed = carl.run_kubectl("auth", "can-i", "--list")
    assert "pods/exec" not in listed.stdout.decode()
    assert "nodes" in listed.stdout.decode()
    assert "the list may be incomplete" in listed.stderr.decode()
    whole = admin.run_kubectl("auth", "can-i", "--list")
    assert ("pods/recordings" in whole.stdout.decode(), "incomplete" in whole.stderr.decode()) == (True, False)


def test_who_may_acts_as_somebody_else(up: Cluster, hella: User, carl: User) -> None:
    assert "node/b-1" in hella.names("nodes")
    assert hella.names("nodes", "--as", "carl") == ["node/a-1", "node/a-2"]
    assert "carl" in hella.kubectl("auth", "whoami", "--as", "carl")
    assert hella.can_i("get", "node/b-1", "--as", "carl").startswith("no")
    for words, kind in ((("--as", "admin"), "users"), (("--as", "carl", "--as-group", "operators"), "groups")):
        refused = hella.refusal("get", "nodes", *words)
        assert f'User "hella" cannot impersonate resource "{kind}" in API group "" at the cluster scope' in refused
    assert 'cannot impersonate resource "users"' in carl.refusal("get", "nodes", "--as", "hella")
    up.server.wait_for_log('"proof":"user:hella certificate:')


def test_what_is_done_as_somebody_else_ends_with_whoever_does_it(up: Cluster, admin: User) -> None:
    nora = User(up, "nora")
    as_otto = ("--as", "otto", "--as-group", "operators")
    assert 'User "otto" cannot' in nora.refusal("exec", "b-1", "--as", "otto", "--", "id"), "his group is not asked for"
    with nora.follow("exec", *as_otto, "a-1", "--", "sh", "-c", "echo begun; exec sleep 60") as shell:
        assert shell.stdout is not None
        assert shell.stdout.readline() == "begun\n"
        up.boxes["a-1"].agent.wait_for_log('"who":"otto","groups":["operators"],"proof":"user:nora certificate:')
        with sooner_than(10, "the end of a command of a revoked user"):
            up.typed("user", "revoke", "nora")
            assert shell.wait(20) != 0
    assert "revoked" in nora.refusal("get", "nodes", *as_otto)


def test_the_admin_api_is_shown_to_observers_and_changed_by_administrators(
    up: Cluster, hella: User, carl: User
) -> None:
    assert carl.longline("whoami").returncode == 0
    for words in (("status",), ("agents",), ("opens",), ("events",)):
        refused = carl.longline(*words)
        assert (refused.returncode != 0, "LL4101" in refused.stderr) == (True, True), words
        assert "default deny" in refused.stderr
    assert "b-1" in hella.longline("agents").stdout
    refused = hella.longline("user", "revoke", "carl")
    assert ("may not administer" in refused.stderr, refused.returncode != 0) == (True, True), refused
    assert any(one["name"] == "carl" and one["revoked"] is None for one in _socket(up).get("users")["users"])


def test_rights_of_others_are_explained_to_administrators(carl: User, hella: User, admin: User) -> None:
    def explained(by: User, user: str, box: str, *more: str) -> subprocess.CompletedProcess[str]:
        return by.longline("policy", "explain", "--user", user, "--agent", box, "--verb", "get", "-o", "json", *more)

    own = json.loads(explained(carl, "carl", "a-1").stdout)
    assert (own["allowed"], own["asked"]["labels"]) == (True, {"site": "a"})
    hidden = json.loads(explained(carl, "carl", "b-1").stdout)
    assert (hidden["allowed"], hidden["asked"]["labels"]) == (False, {}), "no more than of a box that is not there"
    for by, user, more in ((hella, "carl", ()), (carl, "otto", ()), (carl, "carl", ("--group", "operators"))):
        refused = explained(by, user, "a-1", *more)
        assert ("LL4101" in refused.stderr, "may not administer" in refused.stderr) == (True, True), refused
    assert json.loads(explained(admin, "carl", "b-1").stdout)["asked"]["labels"] == {"site": "b"}


def test_recordings_are_for_administrators(otto: User, admin: User) -> None:
    path = "/api/v1/namespaces/default/pods/a-1/recordings"
    assert 'cannot get resource "pods/recordings"' in otto.refusal("get", "--raw", path)
    assert '"recordings"' in admin.kubectl("get", "--raw", path)


def test_a_shell_ends_when_the_policy_takes_it_away(up: Cluster, otto: User) -> None:
    kept = up.policy.read_text()
    try:
        with otto.follow("exec", "a-1", "--", "sh", "-c", "echo begun; exec sleep 60") as shell:
            assert shell.stdout is not None
            assert shell.stdout.readline() == "begun\n"
            _replace(up.policy, kept.replace('agents = ["a-1"]', 'agents = ["a-9"]'))
            assert shell.wait(20) != 0
        assert "no rule lets user otto exec" in otto.refusal("exec", "a-1", "--", "id")
    finally:
        _replace(up.policy, kept)


def _socket(up: Cluster) -> AdminClient:
    return unix_client(up.config.parent / "admin.sock")


def _replace(path: Path, text: str) -> None:
    beside = path.with_suffix(".new")
    beside.write_text(text)
    beside.replace(path)
