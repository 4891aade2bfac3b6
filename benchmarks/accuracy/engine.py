"""`hnx eval`: the same labelled images through every runtime and precision, each row in a process of its own.

Rows follow each other, so each has the whole machine. A row's process scores images and writes them to the store in
chunks; everything final is computed here, from the chunks, whether they were written now or by an earlier run. A
process that dies is started again and goes on behind the last chunk; if it dies there a second time, the row is
reported as failed and the next one has its turn.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.accuracy.config import EvalConfig
from benchmarks.accuracy.metrics import Accumulator
from benchmarks.accuracy.place import usable_store
from benchmarks.accuracy.rows import EvalRow
from benchmarks.accuracy.split_json import pack_split
from benchmarks.accuracy.store import RowStore, row_key
from benchmarks.accuracy.summary import EvalResult, summarise
from benchmarks.children import ChildWorker, Worker, WorkerDiedError, closing_all
from benchmarks.config import planned_rows
from benchmarks.environment import available_memory_mb, describe_environment
from benchmarks.memory import estimate_mb, shortage
from hybridnets.bundle.tuning import Tuning
from hybridnets.errors import ExitCode, HnxError
from runtimes.base import TUNED
from runtimes.opening import obstacle
from runtimes.registry import entry
from runtimes.tuned import look_up

__all__ = ["EvalProgress", "open_row", "run_eval", "start_child"]

LOAD_TIMEOUT_S = 1800.0  # compilers of GPU engines work for many minutes
IMAGE_TIMEOUT_S = 120.0  # the slowest seen is 10 s: c4 in emulated bf16
CHUNK = 32  # images; at 0.2 s each an end costs 6 s of work
SAVE_S = 20.0  # slower rows are saved more often
TALK_S = 0.5  # how often the parent hears of progress
WORKER = ("-m", "benchmarks.accuracy.worker")


def start_child() -> Worker:
    """A new process for a row."""
    return ChildWorker(WORKER)


def open_row(worker: Worker, config: EvalConfig, runtime: str, precision: str) -> dict[str, Any]:
    """Let a process load a row; what really runs.

    Raises:
        HnxError: it cannot, or died.
    """
    return worker.call(
        "open",
        LOAD_TIMEOUT_S,
        bundle=str(config.bundle.path.resolve()),
        runtime=runtime,
        precision=precision,
        threads=config.thread_count,
        split=pack_split(config.split),
        protocol=asdict(config.effective),
    )


@dataclass(frozen=True)
class EvalProgress:
    """How far a run is.

    Attributes:
        row: name of the row at work; empty at the end, when intervals are computed.
        text: what happens now.
        done, total: images, over all rows.
    """

    row: str
    text: str
    done: int
    total: int


@dataclass
class _Run:
    """The state of one `run_eval`."""

    config: EvalConfig
    store: Path
    data: str
    start: Callable[[], Worker]
    report: Callable[[EvalProgress], None]
    say: Callable[[str], None]
    rows: list[EvalRow]
    workers: list[Worker] = field(default_factory=list)
    probes: dict[str, dict[str, Any]] = field(default_factory=dict)
    spare: tuple[str, Worker] | None = None

    def progress(self, row: EvalRow, text: str, extra: int = 0) -> None:
        count = len(self.config.names)
        settled = sum(other.done if other.live else count for other in self.rows)
        self.report(EvalProgress(row.name, text, settled + extra, count * len(self.rows)))

    def launch(self, runtime: str) -> Worker:
        """A new child, or the one that looked for this runtime; closed at the end of the run."""
        if self.spare is not None:
            name, worker = self.spare
            self.spare = None
            if name == runtime:
                return worker
            worker.close()
        worker = self.start()
        self.workers.append(worker)
        return worker


def run_eval(
    config: EvalConfig,
    on_progress: Callable[[EvalProgress], None] | None = None,
    on_note: Callable[[str], None] | None = None,
    *,
    start: Callable[[], Worker] = start_child,
) -> EvalResult:
    """Evaluate every row; rows that cannot run are reported as skipped.

    Args:
        on_note: gets sentences that the user should read.
        start: makes the process of one row; tests put something else here.

    Raises:
        HnxError: no image can be read, or the store cannot be written.
    """
    say = on_note or (lambda text: None)
    environment = describe_environment()
    bundle, protocol = config.bundle, config.effective
    rows = [
        EvalRow(runtime, precision, Accumulator.for_bundle(protocol, bundle))
        for runtime, precision in planned_rows(config.runtimes, bundle)
    ]
    with usable_store(config.store, say) as store:
        run = _Run(config, store, config.split.digest(), start, on_progress or (lambda progress: None), say, rows)
        with closing_all(run.workers):
            for row in rows:
                began = time.monotonic()
                _evaluate(run, row)
                row.seconds = time.monotonic() - began
                _refuse_unreadable(row)
    run.report(EvalProgress("", "intervals", len(rows), len(rows)))
    return summarise(config, rows, environment, data_digest=run.data)


def _refuse_unreadable(row: EvalRow) -> None:
    """The other rows would not read more."""
    if row.live and not row.inputs:
        reasons = list(row.broken.values())
        raise HnxError(
            f"None of the {len(row.broken)} images can be evaluated",
            why="; ".join(reasons[:3]) + (f"; and {len(reasons) - 3} more" if len(reasons) > 3 else ""),
            fix="`hnx data check` lists what is wrong with every file",
        )


# -- one row -------------------------------------------------------------------------------------------------


def _evaluate(run: _Run, row: EvalRow) -> None:
    config = run.config
    tuning = look_up(config.bundle, row.runtime).tuning if row.precision == TUNED else None
    row.network = None if tuning is None else tuning.network
    precision, threads = _settings(config, row, tuning)
    key = row_key(config.bundle, run.data, config.effective, row.runtime, precision, threads)
    store = RowStore(run.store, f"{config.bundle.name}-{row.runtime}-{precision}", key)
    if config.fresh:
        store.clear()
    _take_over(run, row, store)
    known = store.execution()
    if known is not None and row.done == len(config.names):
        row.execution = known
        return
    run.progress(row, "looking for it")
    problem = _obstacle(run, row)
    if problem is not None:
        row.skip(**problem)
        return
    deaths = 0
    while row.live and (row.done < len(config.names) or not row.execution):
        before = row.done
        try:
            _work(run, row, store)
        except _RetryError as error:
            deaths = deaths + 1 if row.done == before else 1
            if deaths > 1:
                row.fail(error.cause, error.during)
            else:
                row.restarts += 1
                run.say(f"{row.name}: {_sentence(error.cause)} (while {error.during}); starting it again")


def _settings(config: EvalConfig, row: EvalRow, tuning: Tuning | None) -> tuple[str, int]:
    """Precision and threads that decide a row's records: a tuned row has those of what stands in the bundle, and takes
    over what the row of that precision scored, unless its graph is another."""
    if tuning is not None:
        graph = f"-{tuning.sha256[:8]}" if tuning.rewrites else ""
        return tuning.precision + graph, min(tuning.threads, config.thread_count)
    return row.precision, config.thread_count


def _take_over(run: _Run, row: EvalRow, store: RowStore) -> None:
    chunks, damaged = store.load(run.config.names)
    for chunk in chunks:
        row.add(chunk)
    row.resumed = row.done
    if damaged:
        run.say(f"{row.name}: {damaged} stored chunk(s) were damaged and are left out")
    if row.resumed:
        total = len(run.config.names)
        run.say(
            f"{row.name}: {row.resumed} of {total} images were scored before and are taken over from {store.folder} "
            "(--fresh scores them anew)"
        )


def _obstacle(run: _Run, row: EvalRow) -> dict[str, str] | None:
    """Reason and fix for a row that is not even tried."""
    found = run.probes.get(row.runtime)
    if found is None:
        worker = run.launch(row.runtime)
        try:
            found = worker.call("probe", LOAD_TIMEOUT_S, runtime=row.runtime)
            run.spare = (row.runtime, worker)
        except HnxError as error:
            worker.close()
            found = {"reason": _sentence(error), "fix": error.fix}
        run.probes[row.runtime] = found
    problem = found["reason"] or found["precisions"].get(row.precision)
    if problem:
        return {"reason": problem, "fix": found["fix"] or f"use one of: {', '.join(found['runnable'])}"}
    absent = obstacle(run.config.bundle, entry(row.runtime), row.precision)
    if absent is not None:
        return absent
    return shortage(row.name, estimate_mb(run.config.bundle, 1), available_memory_mb())


class _RetryError(Exception):
    """The process died or failed; another one may do better."""

    def __init__(self, cause: HnxError, during: str) -> None:
        super().__init__(cause, during)
        self.cause, self.during = cause, during


def _sentence(error: HnxError) -> str:
    return ": ".join(filter(None, [error.what, error.why]))


@contextlib.contextmanager
def _retried(during: str) -> Iterator[None]:
    try:
        yield
    except HnxError as error:
        raise _RetryError(error, during) from error


def _work(run: _Run, row: EvalRow, store: RowStore) -> None:
    """One process from its start to the last image."""
    worker = run.launch(row.runtime)
    try:
        if not _open(run, row, store, worker):
            return
        todo = [name for name in run.config.names if name not in row.inputs and name not in row.broken]
        with _retried("starting to read"):
            worker.call("begin", LOAD_TIMEOUT_S, names=todo, workers=run.config.worker_count)
        _score_all(run, row, store, worker, len(todo))
        with contextlib.suppress(HnxError):  # nothing hangs on a tidy end
            worker.call("finish", LOAD_TIMEOUT_S)
    finally:
        worker.close()


def _open(run: _Run, row: EvalRow, store: RowStore, worker: Worker) -> bool:
    run.progress(row, "loading")
    try:
        row.execution = open_row(worker, run.config, row.runtime, row.precision)
    except WorkerDiedError as error:
        raise _RetryError(error, "loading") from error
    except HnxError as error:
        if error.code in (ExitCode.NOTHING_RAN, ExitCode.USAGE):
            row.skip(_sentence(error), error.fix)
        else:
            row.fail(error, "loading")
        return False
    store.begin(row.execution)
    return True


def _score_all(run: _Run, row: EvalRow, store: RowStore, worker: Worker, total: int) -> None:
    """Score in steps of about half a second; save every 32 images or 20 s."""
    scored, pending, step, saved = 0, 0, 1, time.monotonic()
    while scored < total:
        count = min(step, CHUNK - pending, total - scored)
        began = time.monotonic()
        with _retried("evaluating"):
            reply = worker.call("score", LOAD_TIMEOUT_S + IMAGE_TIMEOUT_S * count, count=count)
            if reply["done"] != count:
                raise HnxError("Its process ran out of images", fix="report this: it is a bug in hnx")
        now = time.monotonic()
        step = max(1, min(CHUNK, int(count * TALK_S / max(now - began, 1e-3))))
        scored, pending = scored + count, pending + count
        if pending >= CHUNK or scored == total or now - saved >= SAVE_S:
            # a store that cannot be written ends the run: no other row could be kept either
            row.add(store.read(_save(worker, store)))
            pending, saved = 0, now
        run.progress(row, "evaluating", pending)


def _save(worker: Worker, store: RowStore) -> str:
    try:
        return str(worker.call("save", LOAD_TIMEOUT_S, folder=str(store.folder.resolve()))["chunk"])
    except WorkerDiedError as error:
        raise _RetryError(error, "saving") from error
