"""What `hnx distill` tells at the end: agreement on the way, and both networks on labelled images."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hybridnets.dataset import Split
    from hybridnets.training.config import TrainConfig
    from hybridnets.training.trainer import TrainResult
    from hybridnets.training.validation import Validation

__all__ = ["Comparison", "Stage", "compare", "open_labelled", "stages", "write_report"]

REPORT = "distill.json"


@dataclass(frozen=True)
class Stage:
    """Agreement with the teacher at one moment; figures are None where nothing could be measured.

    Attributes:
        name: of the moment.
        figures: of an evaluation against the teacher's predictions, by name, from 0 to 1.
        loss: mean distillation loss of the held-out frames.
    """

    name: str
    figures: dict[str, float | None]
    loss: float | None


@dataclass(frozen=True)
class Comparison:
    """Teacher and student on labelled images: figures by name, from 0 to 1."""

    images: int
    teacher: dict[str, float]
    student: dict[str, float]

    @property
    def drops(self) -> dict[str, float]:
        """Points lost by the student, negative where it gains."""
        return {
            name: 100 * (value - self.student[name]) for name, value in self.teacher.items() if name in self.student
        }


def _names(config: TrainConfig) -> list[str]:
    return ["mAP50", "mAP50-95", *(f"{name} IoU" for name in config.project.seg_list)]


def stages(config: TrainConfig, result: TrainResult) -> list[Stage]:
    """Agreement before the first step, at every measurement, and of the network that was kept, which comes last."""
    from hybridnets.training.distill.begin import read_beginning
    from hybridnets.training.report import read_table

    found = []
    for name, content in read_beginning(config.folder).items():
        metrics, parts = content.get("metrics") or {}, content.get("segmentation") or {}
        values = {key: metrics.get(key) for key in ("mAP50", "mAP50-95")}
        values |= {f"{key} IoU": value for key, value in parts.items()}
        found.append(Stage(name, {key: _number(values.get(key)) for key in _names(config)}, _number(_loss(content))))
    table = read_table(config.folder / "validation.csv")
    last: Stage | None = None
    for row, step in enumerate(table.get("step", ())):
        columns = {"mAP50": "mAP50", "mAP50-95": "mAP50-95"} | {
            f"{name} IoU": f"IoU {name}" for name in config.project.seg_list
        }
        figures = {key: _number(table[column][row]) if column in table else None for key, column in columns.items()}
        stage = Stage(f"after step {step:.0f}", figures, _number(table["loss"][row]))
        found.append(stage)
        # not by the step, which two rows may share where an epoch had another number of steps before
        if result.best_epoch is not None and table["epoch"][row] == result.best_epoch:
            last = Stage(f"kept, of step {step:.0f}", figures, stage.loss)
    return [*found, *([last] if last is not None else [])]


def _loss(content: Mapping[str, Any]) -> object:
    losses = content.get("losses")
    return losses.get("loss") if isinstance(losses, Mapping) else None


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None


def open_labelled(config: TrainConfig, data: Path) -> Split:
    """The validation split of a labelled data set.

    Raises:
        HnxError: there is none.
    """
    from hybridnets.dataset import open_split

    return open_split(config.project, data, config.project.dataset.test_set)


def compare(config: TrainConfig, split: Split, student: Path) -> Comparison:
    """Evaluate teacher and student on labelled images.

    Raises:
        HnxError: not one of them can be read.
    """
    from hnx.console import progress
    from hnx.training import make_scorer
    from hybridnets.training.distill.compare import measure

    assert config.distill is not None
    found: dict[str, Validation] = {}
    with progress() as bar:
        for name, path in (("teacher", config.distill.teacher), ("student", student)):
            task = bar.add_task(f"evaluating the {name}", total=len(split), extra="images")
            found[name] = measure(
                config,
                path,
                split,
                make_scorer(config),
                lambda done, total, task=task: bar.update(task, completed=done, total=total),  # type: ignore[misc]
            )
    return Comparison(found["teacher"].images, *(_figures(found[name]) for name in ("teacher", "student")))


def _figures(validation: Validation) -> dict[str, float]:
    scores = validation.scores
    assert scores is not None
    values = {key: _number(scores.metrics.get(key)) for key in ("mAP50", "mAP50-95")}
    values |= {f"{name} IoU": _number(value) for name, value in scores.segmentation.items()}
    return {name: value for name, value in values.items() if value is not None}


def write_report(config: TrainConfig, result: TrainResult, moments: list[Stage], comparison: Comparison | None) -> Path:
    """All figures as JSON in the folder of the run.

    Raises:
        HnxError: it cannot be written.
    """
    from dataclasses import asdict

    from hybridnets.files import write_json

    assert config.distill is not None
    path = config.folder / REPORT
    labels = None if comparison is None else {**asdict(comparison), "drops": comparison.drops}
    write_json(
        path,
        {
            "schema_version": 1,
            "teacher": config.distill.teacher.name,
            "activation": config.activation,
            "steps": result.steps,
            "agreement": [asdict(moment) for moment in moments],
            "labelled": labels,
        },
    )
    return path
