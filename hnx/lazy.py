"""Groups of commands that list their members without importing them."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any

import click

__all__ = ["LazyGroup"]


class LazyGroup(click.Group):
    """A group whose help answers in the time click needs.

    Args:
        members: name to one line of help; data, so that the help imports no command.
        package: module prefix: member `a-b` of package `x.y.` is the click command `x.y.a_b.command`.
    """

    def __init__(self, *args: Any, members: Mapping[str, str], package: str, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._members, self._package = dict(members), package

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names in the order a new user needs them."""
        return list(self._members)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command's click object; its module must call it `command`."""
        if cmd_name not in self._members:
            return None
        found = importlib.import_module(self._package + cmd_name.replace("-", "_")).command
        return found if isinstance(found, click.Command) else None

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Unknown commands get a suggestion."""
        from hybridnets.errors import did_you_mean

        if args and not args[0].startswith("-") and args[0] not in self._members:
            ctx.fail(f"No such command {args[0]!r}: {did_you_mean(args[0], self._members)}")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """One line for each command."""
        with formatter.section("Commands"):
            formatter.write_dl(list(self._members.items()))
