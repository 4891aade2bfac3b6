"""The `hnx` command: errors become three lines and an exit code here, and nowhere else."""

from __future__ import annotations

import os
import signal
import sys

from hybridnets.errors import ExitCode, HnxError, from_os_error

__all__ = ["main"]


def main(arguments: list[str] | None = None) -> int:
    """Run the command line and return the exit code (see `hybridnets.errors.ExitCode`)."""
    import click

    from hnx.cli import cli

    try:
        result = cli.main(args=arguments, prog_name="hnx", standalone_mode=False)
        return int(result) if isinstance(result, int) else ExitCode.OK
    except click.exceptions.Exit as error:
        return error.exit_code
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except HnxError as error:
        _report(error)
        return error.code
    except (click.Abort, KeyboardInterrupt):
        print("\nhnx: stopped", file=sys.stderr)
        return ExitCode.INTERRUPTED
    except BrokenPipeError:
        # the reader (head, less) has left: nothing more can be said on standard output
        sys.stdout = open(os.devnull, "w")  # noqa: PTH123, SIM115
        return ExitCode.OK
    except MemoryError:
        _report(
            HnxError(
                "Not enough memory",
                why="the input or the network is too large for this machine",
                fix="use a smaller size, or close other programs",
            )
        )
        return ExitCode.FAILED
    except OSError as error:
        _report(from_os_error("A file operation failed", error))
        return ExitCode.FAILED
    except Exception as error:
        if os.environ.get("HNX_DEBUG"):
            raise
        _report(
            HnxError(
                f"Internal error: {type(error).__name__}: {error}",
                why="this is a bug in hnx",
                fix="run it again with HNX_DEBUG=1 and report the traceback",
            )
        )
        return ExitCode.FAILED


def _report(error: HnxError) -> None:
    print(f"hnx: {error}", file=sys.stderr)


def run() -> None:
    """Entry point of the installed script. A polite kill ends like Ctrl-C: videos under way are finished."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    sys.exit(main())


if __name__ == "__main__":
    run()
