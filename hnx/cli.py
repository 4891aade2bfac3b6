"""The group of commands. Each lives in `hnx/commands/<name>.py` and is imported when it is used."""

from __future__ import annotations

import importlib
from pathlib import Path

import click

from hnx import __version__

__all__ = ["COMMANDS", "cli"]

# name -> one line for `hnx --help`; data, so that the help imports no command
COMMANDS: dict[str, str] = {
    "quickstart": "Export, measure and picture the default network in one go.",
    "export": "Turn a checkpoint into a proved deployment bundle.",
    "infer": "Run a bundle on images, videos, cameras or streams.",
    "bench": "Measure latency per runtime and precision.",
    "compare": "Hold the outputs of two runtimes or bundles against each other.",
    "doctor": "Say what can run on this machine, and how to get the rest.",
}


class LazyGroup(click.Group):
    """Lists `COMMANDS` without importing them: the help answers in the time click needs."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names in the order a new user needs them."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command's click object; its module must call it `command`."""
        if cmd_name not in COMMANDS:
            return None
        found = importlib.import_module(f"hnx.commands.{cmd_name}").command
        return found if isinstance(found, click.Command) else None

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Unknown commands get a suggestion."""
        from hybridnets.errors import did_you_mean

        if args and not args[0].startswith("-") and args[0] not in COMMANDS:
            ctx.fail(f"No such command {args[0]!r}: {did_you_mean(args[0], COMMANDS)}")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """One line for each command."""
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


@click.group(
    cls=LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
    epilog="Start with `hnx quickstart`. Exit codes: 0 ok, 1 failed, 2 usage, 3 gate failed, 4 nothing could run "
    "here, 130 interrupted.",
)
@click.version_option(__version__, prog_name="hnx")
def cli() -> None:
    """Deploy and measure HybridNets: cars, drivable area and lane lines on Jetson, GPU and CPU."""
    from hybridnets.errors import HnxError

    try:
        Path.cwd()
    except OSError as error:  # libraries of the runtimes end the process without a word of it
        raise HnxError("The current folder no longer exists", why="it was deleted", fix="cd to another one") from error
