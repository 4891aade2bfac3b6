"""Commands with many options: their help in sections, and words instead of bare flags."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import click

__all__ = ["GroupedCommand", "Truth"]

_TRUTHS = {"true": True, "1": True, "yes": True, "on": True, "false": False, "0": False, "no": False, "off": False}


class Truth(click.ParamType):  # type: ignore[type-arg]  # generic from click 8.3 on, not before
    """True or False, in the words upstream's users type."""

    name = "[True|False]"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> bool:
        """`False` to False."""
        if isinstance(value, bool):
            return value
        found = _TRUTHS.get(str(value).lower())
        if found is None:
            self.fail(f"{value!r} is neither True nor False", param, ctx)
        return found


class GroupedCommand(click.Command):
    """Options in sections instead of one long list.

    Args:
        groups: title of each section to its options, in the order in which they matter.
        others: understood, and in no section unless they are to be seen; arguments, too.
    """

    def __init__(
        self,
        name: str,
        *,
        groups: Mapping[str, Sequence[click.Option]],
        others: Sequence[click.Parameter] = (),
        **more: Any,
    ) -> None:
        self._groups = {title: tuple(options) for title, options in groups.items()}
        params = [option for options in self._groups.values() for option in options]
        super().__init__(name, params=[*params, *others], **more)

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """One section for each group, and the last one for what is in none."""
        known = {id(option) for options in self._groups.values() for option in options}
        rest = [o for o in self.get_params(ctx) if isinstance(o, click.Option) and id(o) not in known]
        for title, options in {**self._groups, "Help": tuple(rest)}.items():
            records = [option.get_help_record(ctx) for option in options]
            shown = [_without_underscores(record) for record in records if record is not None]
            if shown:
                with formatter.section(title):
                    formatter.write_dl(shown)


def _without_underscores(record: tuple[str, str]) -> tuple[str, str]:
    """Upstream's spellings are understood, and not shown."""
    words = record[0].split(", ")
    kept = [word for word in words if "_" not in word.split(" ")[0]]
    tail = "" if not kept or " " in kept[-1] or " " not in words[-1] else f" {words[-1].split(' ', 1)[1]}"
    return ", ".join(kept) + tail, record[1]
