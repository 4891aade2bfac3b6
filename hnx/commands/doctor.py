"""`hnx doctor`."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

__all__ = ["command"]


@click.command(
    short_help="Say what can run on this machine, and how to get the rest.",
    epilog="Examples:  hnx doctor   |   hnx doctor --json machine.json",
)
@click.option("--json", "json_file", type=click.Path(path_type=Path, dir_okay=False), help="Write the findings here.")
def command(json_file: Path | None) -> None:
    """List this machine's hardware, every runtime and every source of power, with the reason and the fix where one is
    missing; on a Jetson its JetPack, DLA, power mode and clocks, too.

    Exit code 4 when no runtime can run here.
    """
    from benchmarks.children import probe_apart
    from benchmarks.power.registry import survey
    from hnx.console import status
    from hybridnets.errors import ExitCode
    from hybridnets.files import write_json
    from runtimes.machine import diagnose
    from runtimes.sysfs import Tree

    tree = Tree()
    with status("looking at this machine"):
        # each runtime in a process of its own: a library that dies on import must not take the diagnosis along
        findings = diagnose(lambda row: probe_apart(row.name), tree)
        findings["power"] = [asdict(row) for row in survey(tree, board=bool(findings["jetson"]))]
    _print(findings)
    if json_file is not None:
        write_json(json_file, findings)
    if not any(row["available"] for row in findings["runtimes"]):
        raise click.exceptions.Exit(ExitCode.NOTHING_RAN)


def _print(findings: dict[str, Any]) -> None:
    from rich.markup import escape

    from hnx.console import plain_table, stdout

    console = stdout()
    hardware = plain_table("hardware", "found")
    for key, value in findings["hardware"].items():
        hardware.add_row(key, escape(str(value)))
    console.print(hardware)
    console.print()
    if findings["jetson"]:
        board = plain_table("Jetson", "found", "to do")
        for row in findings["jetson"]:
            board.add_row(row["what"], escape(row["found"]), escape(row["fix"] or "-"))
        console.print(board)
        console.print()
    table = plain_table("runtime", "version", "runs here", "not here, because", "fix")
    for row in findings["runtimes"]:
        why = row["reason"] or "; ".join(f"{k}: {v}" for k, v in row["precisions"].items() if v)
        table.add_row(
            row["name"],
            row["version"] or "-",
            ", ".join(row["runnable"]) or "-",
            escape(why or "-"),
            escape(row["fix"] or "-"),
        )
    console.print(table)
    console.print()
    power = plain_table("power", "measures", "read here", "fix")
    for row in findings["power"]:
        power.add_row(
            row["name"],
            row["measures"],
            escape(f"no: {row['reason']}" if row["reason"] else "yes"),
            escape(row["fix"] or "-"),
        )
    console.print(power)
    console.print()
    tools = plain_table("package", "version", "for")
    for row in findings["packages"]:
        tools.add_row(row["name"], row["version"] or escape(f"missing: {row['fix']}"), row["purpose"])
    console.print(tools)
