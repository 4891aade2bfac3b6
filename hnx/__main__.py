"""The `hnx` command: errors become three lines and an exit code here, and nowhere else."""

from __future__ import annotations

import io
import os
import signal
import sys

from hybridnets.errors import ExitCode, HnxError, from_os_error

__all__ = ["main"]


def main(arguments: list[str] | None = None) -> int:
    """Run the command line and return the exit code (see `hybridnets.errors.ExitCode`)."""
    try:
        import click

        from hnx.cli import cli
    except KeyboardInterrupt:
        return _stopped()
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
        return _stopped()
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


def _stopped() -> ExitCode:
    print("\nhnx: stopped", file=sys.stderr)
    return ExitCode.INTERRUPTED


def _report(error: HnxError) -> None:
    print(f"hnx: {error}", file=sys.stderr)


class _Output(io.TextIOWrapper):
    """A stream that never ends a command half-way: the files it writes matter more than what it says.

    A reader that has left (`head`) is forgiven; any other failure, such as a full disk, is kept for the end.
    """

    failure: OSError | None = None

    def write(self, text: str, /) -> int:
        try:
            return super().write(text)
        except OSError as error:
            self._drop(error)
            return len(text)

    def flush(self) -> None:
        try:
            super().flush()
        except OSError as error:
            self._drop(error)

    def _drop(self, error: OSError) -> None:
        if self.failure is None and not isinstance(error, BrokenPipeError):
            self.failure = error
        # what is still in the buffers goes nowhere instead of failing again when Python ends
        sink = os.open(os.devnull, os.O_WRONLY)
        os.dup2(sink, self.fileno())
        os.close(sink)


def _open_streams() -> _Output | None:
    """Make both streams fit for any text and any end of theirs; the new standard output, if there is one."""
    if sys.stderr is None:  # closed by the caller (2>&-)
        sys.stderr = open(os.devnull, "w")  # noqa: PTH123, SIM115
    if sys.stdout is None:
        sys.stdout = open(os.devnull, "w")  # noqa: PTH123, SIM115
    if isinstance(sys.stderr, io.TextIOWrapper):
        # an hour of evaluation must not be lost because somebody piped its progress into `head`
        sys.stderr = _wrapped(sys.stderr, lines=True)
    if not isinstance(sys.stdout, io.TextIOWrapper):  # put there by a program that calls us
        return None
    output = _wrapped(sys.stdout, lines=sys.stdout.line_buffering)
    sys.stdout = output
    return output


def _wrapped(stream: io.TextIOWrapper, *, lines: bool) -> _Output:
    encoding = stream.encoding
    # replace: a terminal or file without Unicode (PYTHONIOENCODING=ascii) shows a question mark
    return _Output(stream.detach(), encoding=encoding, errors="replace", line_buffering=lines)


def run() -> None:
    """Entry point of the installed script.

    A polite kill and a terminal that closes end like Ctrl-C: videos under way are finished.
    """
    for name in ("SIGTERM", "SIGHUP"):
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) == signal.SIG_DFL:  # nohup ignores SIGHUP
            signal.signal(number, signal.default_int_handler)
    output = _open_streams()
    code = main()
    if output is not None:
        output.flush()
        if output.failure is not None:
            _report(from_os_error("Cannot write to standard output", output.failure))
            code = code or ExitCode.FAILED
    sys.exit(code)


if __name__ == "__main__":
    run()
