"""The search of `hnx tune`: precisions in turns, what the faster ones lose, then graphs, threads and streams."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from pathlib import Path

from benchmarks.environment import Stopwatch
from benchmarks.statistics import FOREIGN_LIMIT
from benchmarks.tuning.choice import choose, int8_remark, over_budget, unresolved
from benchmarks.tuning.config import LABEL_DROP, TuneConfig
from benchmarks.tuning.losses import Losses, measure_losses
from benchmarks.tuning.settings import Setting, precisions, stream_settings, thread_settings
from benchmarks.tuning.timing import Timed, crowded, ratio, time_settings
from hybridnets.bundle import Bundle
from hybridnets.bundle.manifest import files_of
from hybridnets.bundle.tuning import TunedRow, Tuning, tuned_file
from hybridnets.errors import HnxError
from runtimes.base import available_threads
from runtimes.registry import entry, runtime_class
from runtimes.tuned import place_here

__all__ = ["TuneResult", "tune"]

# share of the time that another graph may take at most: it makes the bundle larger by a network
_WORTH_A_FILE = 0.98
_MANY = 5  # settings that are counted, not named, in a sentence


@dataclass(frozen=True)
class TuneResult:
    """What a search found.

    Attributes:
        tuning: the choice with everything that was measured.
        graph: the network it names, where that is not yet in the bundle.
        left_out: precision to the reason why it was not tried.
        notes: what the user should know.
    """

    tuning: Tuning
    graph: Path | None
    left_out: Mapping[str, str]
    notes: tuple[str, ...]


@dataclass
class _Search:
    """The state of one search."""

    config: TuneConfig
    step: Callable[[str], None]
    progress: Callable[[int, int, str], None]
    say: Callable[[str], None]
    rows: dict[Setting, TunedRow] = field(default_factory=dict)
    # `Setting.rewrites` -> the bundle with that graph
    graphs: dict[str, Bundle] = field(default_factory=dict)
    graph_losses: dict[str, Mapping[str, float]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def time(self, settings: Sequence[Setting]) -> dict[Setting, Timed]:
        """Time settings, and remember where others used the machine."""
        watch = Stopwatch()
        config = self.config
        found = time_settings(
            self.graphs,
            config.runtime,
            settings,
            rounds=config.rounds,
            seconds=config.seconds,
            on_step=self.step,
        )
        wall, others = watch.stop()
        busy = 0.0 if others is None else max(0.0, others / wall)
        if busy > FOREIGN_LIMIT * available_threads():
            self.notes.append(
                f"other programs kept {busy:.1f} cores busy while {_named(settings)} were timed; "
                "tune again on a quiet machine"
            )
        return found


def _named(settings: Sequence[Setting]) -> str:
    return ", ".join(map(str, settings)) if len(settings) < _MANY else f"{len(settings)} settings"


def tune(
    config: TuneConfig,
    on_step: Callable[[str], None] = lambda _: None,
    on_progress: Callable[[int, int, str], None] = lambda *_: None,
    say: Callable[[str], None] = lambda _: None,
    make_graphs: Callable[[Callable[[str], None]], Mapping[str, Bundle]] | None = None,
) -> TuneResult:
    """Find the fastest setting of a bundle; nothing is stored.

    Args:
        make_graphs: makes bundles of the same network with other exact rewrites, by what they are called; called, with
            `on_step`, once a float precision has turned out best, to be tried with it.
        on_step: told what happens next.
        on_progress: told how many inferences on images are done, and how many there are.
        say: gets sentences that the user should read at once.

    Raises:
        HnxError: the runtime cannot run here (exit code 4), nothing can be measured, or a setting fails.
    """
    search = _Search(config, on_step, on_progress, say, graphs={"": config.bundle})
    names, left_out = precisions(config.bundle, config.runtime)
    baseline = Setting("fp32", config.thread_count)
    timed = search.time([Setting(name, config.thread_count) for name in names])
    if remark := int8_remark({setting.precision: times for setting, times in timed.items()}, config.runtime):
        search.notes.append(remark)
    losses = _losses(search, timed, baseline)
    best = _choose_precision(search, timed, baseline, losses)
    _remark_budget(search, timed, best, losses)
    if make_graphs is not None:
        best = _try_graphs(search, baseline, best, losses, make_graphs)
    further = [thread_settings] if config.goal == "latency" else [stream_settings, thread_settings]
    for settings in further:
        best = _choose_setting(search, baseline, best, settings(best), losses)
    network = search.graphs[best.rewrites]
    graph = network.file(network.variant("fp32", config.runtime).file) if best.rewrites else None
    return TuneResult(_tuning(search, best, losses), graph, left_out, (*losses.notes, *search.notes))


def _losses(search: _Search, timed: Mapping[Setting, Timed], baseline: Setting) -> Losses:
    """Of the precisions that are worth it: a slower one than float32 is not taken whatever it loses."""
    faster = [
        setting.precision
        for setting in timed
        if setting != baseline and ratio(timed[setting], timed[baseline])[1] < 1.0
    ]
    config = search.config
    if not faster:
        return Losses({}, 0, "", ("no precision is faster than fp32 here, so no loss was measured",))
    search.step(f"measuring what {', '.join(faster)} lose")
    return measure_losses(config, faster, search.progress, search.say)


def _choose_precision(search: _Search, timed: Mapping[Setting, Timed], baseline: Setting, losses: Losses) -> Setting:
    budget = search.config.budget
    reasons: dict[Setting, str] = {}
    for setting in timed:
        if setting != baseline and setting.precision not in losses.lost:
            reasons[setting] = "slower than fp32"
        elif reason := over_budget(losses.lost.get(setting.precision, {}), budget):
            reasons[setting] = reason
    allowed = [setting for setting in timed if setting not in reasons]
    best = choose(timed, allowed)
    for setting in timed:
        _record(search, setting, timed, baseline, losses, reasons.get(setting) or _why_not(setting, best, timed))
    return best


def _remark_budget(search: _Search, timed: Mapping[Setting, Timed], best: Setting, losses: Losses) -> None:
    """INT8 that would be faster and loses too much can be had with less of the network in INT8."""
    int8 = next((setting for setting in timed if setting.precision == "int8"), None)
    if int8 is None or int8 == best or not over_budget(losses.lost.get("int8", {}), search.config.budget):
        return
    share = ratio(timed[int8], timed[best])[1]
    if share < 1.0:
        labelled = search.config.split is not None
        # points of disagreement are no points of accuracy, which is what hnx quantize counts
        points = search.config.budget if labelled else LABEL_DROP
        search.notes.append(
            f"int8 takes {share:.2f} of {best.precision}'s time and {'loses' if labelled else 'differs'} too much; "
            f"`hnx quantize --for {search.config.runtime} --max-drop {points:g}` leaves its most harmful blocks in "
            + ("float" if labelled else "float: it counts points of accuracy, and needs labelled images (--data)")
        )


def _choose_setting(
    search: _Search, baseline: Setting, best: Setting, others: Sequence[Setting], losses: Losses
) -> Setting:
    if not others:
        return best
    timed = search.time(list(dict.fromkeys([baseline, best, *others])))
    chosen = choose(timed, [best, *others])
    for setting in (best, *others):
        _record(search, setting, timed, baseline, losses, _why_not(setting, chosen, timed))
    return chosen


def _try_graphs(
    search: _Search,
    baseline: Setting,
    best: Setting,
    losses: Losses,
    make_graphs: Callable[[Callable[[str], None]], Mapping[str, Bundle]],
) -> Setting:
    """The best setting with the fastest graph; with the bundle's own where others cannot be tried, and then a note."""
    config = search.config
    stored = runtime_class(entry(config.runtime)).stored[best.precision]
    problem = ""
    if stored != "fp32":
        problem = f"{best.precision} runs a network of its own, which was made from the graph as it is"
    else:
        try:
            made = make_graphs(search.step)
            settings = [replace(best, rewrites=name) for name in made]
            problem = crowded([(config.bundle, setting) for setting in (baseline, best, *settings)], config.runtime)
            if settings and not problem:
                search.graphs |= made
                return _choose_graph(search, baseline, best, settings, losses)
        except HnxError as error:  # what was found before is worth keeping
            problem = f"{error.what} ({error.why})"
    if problem:
        search.notes.append(f"other rewrites were not tried: {problem}")
    return best


def _choose_graph(
    search: _Search, baseline: Setting, best: Setting, settings: Sequence[Setting], losses: Losses
) -> Setting:
    """The same network with other exact rewrites, where that is worth one more file in the bundle.

    A rewrite changes nothing in exact arithmetic, but the last bits, and a short type has few of them: what the fastest
    graph loses is measured before it is taken.
    """
    timed = search.time(list(dict.fromkeys([baseline, best, *settings])))
    reasons = {setting: _too_little(timed, setting, best) for setting in settings}
    allowed = [best, *(setting for setting in settings if not reasons[setting])]
    again: dict[Setting, dict[Setting, Timed]] = {}
    while (chosen := choose(timed, allowed)).rewrites:
        # the best of several noisy figures looks better than it is
        again[chosen] = search.time(list(dict.fromkeys([baseline, best, chosen])))
        reasons[chosen] = _too_little(again[chosen], chosen, best, "timed once more: ")
        if not reasons[chosen] and chosen.precision != baseline.precision:
            reasons[chosen] = over_budget(_graph_losses(search, chosen), search.config.budget)
        if not reasons[chosen]:
            break
        allowed.remove(chosen)
    for setting in (best, *settings):
        verdict = reasons.get(setting) or _why_not(setting, chosen, timed)
        _record(search, setting, again.get(setting, timed), baseline, losses, verdict)
    return chosen


def _too_little(timed: Mapping[Setting, Timed], setting: Setting, own: Setting, when: str = "") -> str:
    """Why a graph is not even a candidate; "" where it saves enough in three quarters of the rounds."""
    low, middle, high = ratio(timed[setting], timed[own])
    share = f"{middle:.2f} of the time of the bundle's own graph ({low:.2f} to {high:.2f})"
    return "" if high <= _WORTH_A_FILE else when + share


def _graph_losses(search: _Search, setting: Setting) -> Mapping[str, float]:
    search.step(f"measuring what {setting} loses")
    there = replace(search.config, bundle=search.graphs[setting.rewrites])
    found = measure_losses(there, [setting.precision], search.progress, search.say).lost[setting.precision]
    search.graph_losses[setting.rewrites] = found
    return found


def _why_not(setting: Setting, best: Setting, timed: Mapping[Setting, Timed]) -> str:
    if setting == best:
        return "chosen"
    same = replace(setting, precision=best.precision) == best
    other = best.precision if same else str(best)
    times = ratio(timed[setting], timed[best])[1]
    if times <= 1.0 or unresolved(timed[setting], timed[best]):
        return f"not resolved from {other}, which is preferred"
    return f"{times:.2f} times as long as {other}"


def _record(
    search: _Search,
    setting: Setting,
    timed: Mapping[Setting, Timed],
    baseline: Setting,
    losses: Losses,
    verdict: str,
) -> None:
    tasks = next(iter(losses.lost.values()), {})
    lost: Mapping[str, float] | None = dict.fromkeys(tasks, 0.0)
    if setting.precision != "fp32":
        lost = search.graph_losses.get(setting.rewrites) if setting.rewrites else losses.lost.get(setting.precision)
    search.rows[setting] = TunedRow(
        setting.precision,
        setting.threads,
        setting.streams,
        round(timed[setting].p50_ms, 4),
        ratio(timed[setting], timed[baseline]),
        lost,
        verdict,
        setting.rewrites,
    )


def _tuning(search: _Search, best: Setting, losses: Losses) -> Tuning:
    config = search.config
    stored = runtime_class(entry(config.runtime)).stored[best.precision]
    graph = search.graphs[best.rewrites]
    file = graph.variant(stored, config.runtime).file
    sha256 = str(files_of(graph.manifest).get(file, {}).get("sha256", ""))
    if best.rewrites:
        file = tuned_file(config.bundle, sha256)
    return Tuning(
        precision=best.precision,
        threads=best.threads,
        streams=best.streams,
        file=file,
        sha256=sha256,
        goal=config.goal,
        measure="labels" if config.split is not None else "agreement",
        max_drop=config.budget,
        images=losses.images,
        source=losses.source,
        place=place_here(config.runtime),
        rows=tuple(search.rows.values()),
        created=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        rewrites=best.rewrites,
    )
