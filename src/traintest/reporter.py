"""Reports the progress of a run: records in its log, and lines for people."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from ..models.geometry import PatchSize
from ..runtime.bars import tqdm
from .config import TrainConfig
from .metrics import figure
from .progress import Progress
from .run_log import RunLog
from .setup import Plan
from .summary import tell, validation_lines
from .validation import Validation


def named(patches: Sequence[PatchSize]) -> str:
    """The patch sizes of a step as text, in the order of the parts of its batch."""
    return "+".join(map(str, patches))


class Reporter:
    """Reports on a run; without a log, as on every rank but 0, it keeps count and writes nothing."""

    def __init__(self, config: TrainConfig, plan: Plan) -> None:
        self.config, self.plan = config, plan
        self.log: RunLog | None = None
        self.score: dict[str, str] = {}
        """The last validation, as the bar shows it."""
        self.start(0)

    def start(self, step: int) -> None:
        """Count steps and time from here on."""
        self.time, self.step = time.perf_counter(), step

    def record(self, step: int, **record: Any) -> None:
        """A line of the log."""
        if self.log is not None:
            self.log.write(step, step / self.plan.steps_per_epoch, **record)

    def steps(self, progress: Progress, bar: tqdm, patches: Sequence[PatchSize], lr: float) -> None:
        """A line of the log about the steps since the last one."""
        now = time.perf_counter()
        rate = (progress.step - self.step) * self.config.data.batch_size / (now - self.time)
        if progress.losses:
            loss = sum(progress.losses) / len(progress.losses)
            bar.set_postfix(loss=f"{loss:.3f}", **self.score, patch=named(patches), clips=f"{rate:.0f}/s")
            self.record(progress.step, loss=loss, patch_size=named(patches), lr=lr, clips_per_second=rate)
        progress.losses = []
        self.time, self.step = now, progress.step

    def validated(self, progress: Progress, validation: Validation, lr: float) -> None:
        """A line of the log about the steps since the last validation, epochs.csv, and a line for people."""
        losses, progress.epoch_losses = progress.epoch_losses, []
        record: dict[str, Any] = {"train_loss": sum(losses) / len(losses)} if losses else {}
        if validation.curve:
            metric = self.config.selection_metric
            self.score = {f"val_{metric}": figure(metric, validation.score).replace(" ", "")}
            record |= {"mean": validation.score, "excluded": validation.excluded}
        self.record(progress.step, **record, lr=lr, skipped_steps=progress.skipped, validation=validation.curve)
        if self.log is None:
            return
        self.log.write_epochs()
        epoch, last = progress.step / self.plan.steps_per_epoch, progress.step == self.plan.total_steps
        tell(validation_lines(self.config, epoch, record.get("train_loss"), validation, last))

    def close(self) -> None:
        """Finish the files of the log."""
        if self.log is not None:
            self.log.close()
