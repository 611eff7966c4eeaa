"""`callboard completion`: what a shell needs to complete commands and options."""

from __future__ import annotations

import click

SHELLS = ("bash", "zsh", "fish")


@click.command()
@click.argument("shell", type=click.Choice(SHELLS))
def completion(shell: str) -> None:
    """Print the completion script of a shell.

    \b
    bash, in ~/.bashrc:                  eval "$(callboard completion bash)"
    zsh, in ~/.zshrc:                    eval "$(callboard completion zsh)"
    fish, in ~/.config/fish/config.fish: callboard completion fish | source
    """
    from click.shell_completion import get_completion_class

    from callboard.cli.group import callboard

    kind = get_completion_class(shell)
    assert kind is not None
    click.echo(kind(callboard, {}, "callboard", "_CALLBOARD_COMPLETE").source())
