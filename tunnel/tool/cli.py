"""The `longline` command as a whole: its subcommands, which an operator types on their own machine or on the server."""

from __future__ import annotations

from typing import ClassVar

import click

from tunnel.aio.process.command import command_line, explain_command
from tunnel.aio.process.version import VERSION
from tunnel.tool import (
    commands_boxes,
    commands_login,
    commands_policy,
    commands_reach,
    commands_recordings,
    commands_server,
    commands_users,
)


class Sections(click.Group):
    """A group of commands whose help lists them by what they are for."""

    sections: ClassVar = {
        "Boxes": ("ls", "exec", "logs", "cp", "ssh", "forward", "connect", "recordings", "play"),
        "The server": ("status", "agents", "opens", "events", "user", "policy", "login", "logout", "whoami"),
        "This command": ("credential", "explain", "completion", "version"),
    }

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        """Returns the names of the commands in the order of the sections."""
        return [name for names in self.sections.values() for name in names]

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Writes one list of commands for each section."""
        for title, names in self.sections.items():
            rows = []
            for name in names:
                command = self.get_command(ctx, name)
                assert command is not None
                rows.append((name, command.get_short_help_str(70)))
            with formatter.section(title):
                formatter.write_dl(rows)


@click.group(cls=Sections, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(VERSION, prog_name="longline")
def cli() -> None:
    """Works with boxes that nothing can reach, through the cloud server that they dial out to.

    Who you are and where the server is stands in a kubeconfig, which `cloud-server user kubeconfig` makes:
    --kubeconfig, $KUBECONFIG or ~/.kube/config.
    """


@cli.command()
def version() -> None:
    """Print the version."""
    click.echo(VERSION)


@cli.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print what makes a shell complete names of boxes and logs.

    \b
    bash: longline completion bash > ~/.local/share/bash-completion/completions/longline
    zsh:  longline completion zsh > ~/.zfunc/_longline        (a folder of your $fpath)
    fish: longline completion fish > ~/.config/fish/completions/longline.fish
    """  # noqa: D301 - click takes the character itself
    from click.shell_completion import get_completion_class

    made = get_completion_class(shell)
    assert made is not None
    click.echo(made(cli, {}, "longline", "_LONGLINE_COMPLETE").source())


for _command in (
    commands_boxes.ls,
    commands_boxes.exec_,
    commands_boxes.logs,
    commands_boxes.cp,
    commands_reach.ssh,
    commands_reach.forward,
    commands_reach.connect,
    commands_recordings.recordings,
    commands_recordings.play,
    commands_server.status,
    commands_server.agents,
    commands_server.opens,
    commands_server.events,
    commands_login.login,
    commands_login.logout,
    commands_server.whoami,
    commands_users.user,
    commands_users.credential,
    commands_policy.policy,
):
    cli.add_command(_command)


cli.add_command(explain_command)


def main() -> None:
    """Runs the `longline` command line."""
    command_line(cli)
