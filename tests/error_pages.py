"""Writes docs/errors from the table of error codes and its texts: `make errors`."""

from __future__ import annotations

from pathlib import Path

from tunnel.aio.process.explain import pages
from tunnel.core.wire.faults import FAULTS

FOLDER = Path(__file__).parent.parent / "docs" / "errors"

GROUPS = {
    "LL1": "Commands and configuration",
    "LL2": "Certificates and identity",
    "LL3": "The link between agent and server",
    "LL4": "Opens: names, routes, policies, targets",
    "LL5": "The fleet API, kubelets, the cluster's own API",
    "LL6": "The process: listeners, log, systemd, faults of ours",
}


def files() -> dict[str, str]:
    """Every file of the folder, by its name."""
    return {"README.md": _index(), **{f"{code}.md": page for code, page in pages().items()}}


def _index() -> str:
    lines = [
        "# Error codes",
        "",
        "Every failure that has a cause of its own has a code, which is never given to another. It stands in failures",
        "of commands (`Error [LL2012]: ...`), in log lines (`code=`), in the reason of a refused CONNECT, and in the",
        "`details.causes` of what kubectl is answered. `longline explain LL2012` prints a page of these, as do",
        "`edge-agent` and `cloud-server` on their machines. Commands exit with 2 for a slip on the command line or in",
        "the configuration, and with 1 for everything else.",
    ]
    for group, title in GROUPS.items():
        lines += ["", f"## {title}", "", "| code | cause |", "|---|---|"]
        lines += [
            f"| [{code}]({code}.md) | {fault.title} |" for code, fault in FAULTS.items() if code.startswith(group)
        ]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Write what has changed, and remove what is no page any more."""
    FOLDER.mkdir(exist_ok=True)
    wanted = files()
    for name, text in wanted.items():
        (FOLDER / name).write_text(text, encoding="utf-8")
    for path in FOLDER.glob("*.md"):
        if path.name not in wanted:
            path.unlink()


if __name__ == "__main__":
    main()
