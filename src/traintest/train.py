"""The training loop: one patch size per step, from (seed, step); supervised, or distilled from a fixed-patch teacher.

What it leaves on the disk is described in `run_directory`.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import time
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..classifier.audio_classifier import AudioClassifier
from ..data.dataset import Batch, ClipDataset, load_batches
from ..data.sampler import Draw, share_of
from ..errors import CheckpointError, ConfigError, DataError, FileError
from ..models.geometry import PatchSize
from ..runtime.arguments import to_json
from ..runtime.bars import tqdm
from ..runtime.device import pick_device
from ..runtime.distributed import World, connected
from ..runtime.interruption import LAUNCHER_GRACE, Interrupted, Stopping, noted_signals
from ..runtime.provenance import commit
from ..runtime.side_by_side import use_threads
from .agreement import require_agreement
from .bad_files import BadFiles
from .checkpointing import SaveError, WeightAverage
from .config import TrainConfig
from .objective import Objective
from .optim import lr_factor
from .patch_plan import drop_patches, flexible_patches
from .progress import Progress
from .reporter import Reporter, named
from .run_directory import Data, RunDirectory
from .run_log import require_log
from .setup import (
    prepare,
    setup_emphasis,
    setup_features,
    setup_model,
    setup_plan,
    setup_scores,
    setup_teacher,
)
from .state import MISFIT, RunState
from .stepper import Stepper
from .summary import describe, estimate_seconds, tell
from .tuning import MovingAverage, merged
from .validation import Validator

logger = logging.getLogger(__name__)

MOST_SKIPPED = 5
"""Steps in a row that may be skipped because their loss or gradient is not finite."""
PATIENCE = 10.0
"""Seconds that a rank with a pending stop goes on waiting for a batch: the others may wait for it in the step."""


class Diverged(ConfigError):
    """Several steps in a row gave no finite loss or gradient; the state is saved for inspection."""


def train(config: TrainConfig, progress: bool = True) -> Path:
    """Train, or go on with the training in `config.out`; returns the run directory. Joins torchrun's processes.

    Raises FlexiASTError for wrong input, before anything is written; Interrupted after SIGINT, SIGTERM or SIGUSR1,
    once the step is finished and the state saved; Diverged if the loss stays not finite; LostProcess if another one of
    torchrun's processes is gone.
    """
    with connected(config.dist_timeout) as world:
        Trainer(config, progress, world).run()
    return config.out


class Trainer:
    """One run: everything is set up on construction, nothing is written before `run`.

    flexible: with no patch sizes given, train at every size, coarse ones most (else at the base patch alone).
    """

    def __init__(
        self, config: TrainConfig, progress: bool = True, world: World | None = None, flexible: bool = False
    ) -> None:
        self.world = world or World()
        self.show_progress = progress and self.world.is_rank0
        require_log(config.log)
        self.commit = commit()  # of the code that is loaded now; the tree may move on while it trains
        require_agreement(self.world, to_json(config), self.commit)
        self.directory = RunDirectory(config.out, config.keep_checkpoints)
        self.world.on_rank0(self.directory.require_unlocked)
        saved = self.world.on_rank0(self.directory.saved_choices)
        prepared = prepare(config, self.world, saved, flexible, self.show_progress)
        config = prepared.config
        self.train_data, self.val_data = prepared.train, prepared.val
        features = setup_features(config, prepared.start)
        model = setup_model(config, features, self.train_data, prepared.start)
        self.model = model.to(self.world.own(pick_device(config.device)))
        self.teacher = setup_teacher(config.distill, self.model)
        self.scores = setup_scores(config, self.train_data)
        self.identity = Data.of(self.train_data, self.val_data, self.teacher, self.scores)
        require_agreement(self.world, to_json(config), self.commit, self.identity.state())
        self.dataset = ClipDataset(self.train_data, features, True, config.augment.crop, config.seed)
        self.bad_files = BadFiles(self.train_data, config.data, self.directory.bad_files)
        if flexible:
            config = flexible_patches(config, self.model)
        config = drop_patches(config, self.model)
        self.plan = setup_plan(config, self.train_data, self.model, self.world)
        self.config, self.prepared = config, dataclasses.replace(prepared, config=config)
        use_threads(config.threads)
        self.validator = Validator(self.val_data, self.plan.eval_patches, config, self.world)
        self.objective = Objective(
            self.model, self.teacher, config.loss, config.label_smoothing, config.augment, config.distill,
            config.precision, config.seed, setup_emphasis(config, self.train_data, self.model.kernel.device),
            self.scores,
        )  # fmt: skip
        self.stepper = Stepper(self.model, self.objective, self.world, config.optim, config.memory, config.compile)
        self.average, self.progress = WeightAverage(), Progress()
        self.ema = MovingAverage.over(self.model, config.ema, self.plan.total_steps)
        self.state = RunState(self.model, self.stepper, self.average, self.progress, self.bad_files, self.ema)
        self.reporter = Reporter(config, self.plan)
        self.saved_at = time.perf_counter()

    # The loop --------------------------------------------------------------------------------------------------

    def run(self) -> None:
        """Train from the saved state, or from the start, to the end."""
        self.dataset.require_room(len(self._share(0)), self.config.data.workers)
        with noted_signals(grace=0 if self.world.size == 1 else LAUNCHER_GRACE) as stopping:
            # Closed in the end, and not before: only rank 0 holds the lock, and all leave together.
            lock = self.world.on_rank0_only(self.directory.lock)
            with lock, self.stepper.sharing_gradients():
                self._run(stopping)

    def _run(self, stopping: Stopping) -> None:
        out, steps = self.config.out, self.plan.total_steps
        state = self.world.on_rank0(self._resumable_state)
        if state and (state["step"] >= steps or state.get("ended")) and not state.get("validating"):
            self.world.on_rank0(self.directory.require_model)
            early = ", where it stopped improving (patience)" if state.get("ended") else ""
            logger.info("%s: already trained to step %d of %d%s", out, state["step"], steps, early)
            return
        if state:
            logger.info("%s: going on from step %d of %d", out, state["step"], steps)
            self._restore(state)
        self.world.on_rank0(lambda: self._open(state))
        if state is None and self.show_progress:
            self._describe()
        try:
            self._loop(stopping)
        except (Interrupted, DataError, RuntimeError) as error:
            # A pending stop wins: what failed may have been stopped by the same signal.
            if not (stopping or isinstance(error, Interrupted)) or self.stepper.updating:
                raise
            self._save()
            raise self._interrupted(stopping) from error
        except FileError as error:
            raise SaveError(f"{error}; {self.directory.states.advice()}") from error
        finally:
            if self.world.is_rank0:
                self.bad_files.tell_suspicious()
                self.reporter.close()

    def _describe(self) -> None:
        seconds = estimate_seconds(self.config, self.plan, self.model, self.world.size)
        tell(describe(self.prepared, self.plan, self.model, seconds))

    def _interrupted(self, stopping: Stopping) -> Interrupted:
        by = stopping.signal if stopping else "of another process"
        where = f"after step {self.progress.step} of {self.plan.total_steps}"
        return Interrupted(f"stopped by signal {by} {where}; the same command goes on from there")

    def _loop(self, stopping: Stopping) -> None:
        config, progress, steps = self.config, self.progress, self.plan.total_steps
        self.saved_at = time.perf_counter()
        self.reporter.start(progress.step)
        bar = tqdm(
            total=steps, initial=progress.step, unit="step", desc=config.out.name, disable=not self.show_progress
        )
        with bar, closing(self._batches(stopping)) as batches:
            while progress.validating or (progress.step < steps and not progress.ended):
                if not progress.validating:
                    patches = self.plan.patches[progress.step]
                    self._train_on(next(batches), patches)
                    bar.update()
                    if progress.step % config.log_every == 0:
                        self.reporter.steps(progress, bar, patches, self.stepper.learning_rate)
                    if progress.step in self.plan.eval_steps:
                        self._begin_validation()
                validating = progress.validating
                if validating:
                    self._validate(stopping)
                stop = self.world.any(bool(stopping))
                if stop and progress.step < steps and not progress.ended:
                    raise Interrupted("between steps")
                if validating or self._due():
                    self._save()

    def _batches(self, stopping: Stopping) -> Generator[Batch, None, None]:
        """This process's share of the batches from the present step on."""
        patience = 0.0 if self.world.size == 1 else PATIENCE
        data = self.config.data
        return load_batches(
            self.dataset, self._draws(), data.workers, data.timeout, lambda: stopping.for_seconds(patience)
        )

    def _draws(self) -> Iterator[list[Draw]]:
        return (self._share(step) for step in range(self.progress.step, self.plan.total_steps))

    def _share(self, step: int) -> list[Draw]:
        return share_of(self.plan.schedule[step], self.world.rank, self.world.size, self.plan.unit)

    def _train_on(self, batch: Batch, patches: Sequence[PatchSize]) -> None:
        """One step; one whose loss or gradient is not finite is skipped: quietly, if that is the scale of the loss."""
        progress, plan = self.progress, self.plan
        self._note_bad_files(batch)
        if len(batch.targets) < len(self._share(progress.step)):
            raise DataError(f"{self.train_data.source}: found no usable clip to take the place of the unusable ones")
        factor = lr_factor(progress.step, plan.total_steps, plan.steps_per_epoch, self.config.optim)
        if self.config.model.drop_path or self.config.patches.dropout:
            # From the step, so that a resumed run draws the same.
            draw = np.random.SeedSequence([self.config.seed, progress.step, self.world.rank])
            torch.manual_seed(int(draw.generate_state(1)[0]))
        loss, outcome = self.stepper.step(self.objective.prepare(batch), patches, factor)
        if outcome == "used" and self.ema:
            self.ema.add(self.model)
        progress.step += 1
        self.stepper.updating = False
        if outcome == "used":
            progress.skipped_in_a_row = 0
            progress.losses.append(loss)
            progress.epoch_losses.append(loss)
        elif outcome == "not finite":
            self._skip(loss, named(patches))

    def _skip(self, loss: float, patch: str) -> None:
        """Log a skipped step; stop the run after too many in a row."""
        progress = self.progress
        progress.skipped += 1
        progress.skipped_in_a_row += 1
        files = [str(self.train_data.clips[draw.clip].path) for draw in self.plan.schedule[progress.step - 1]]
        logger.warning(
            "step %d skipped: its loss (%s) or gradient at patch size %s is not finite", progress.step, loss, patch
        )
        self.reporter.record(progress.step, skipped=str(loss), patch_size=patch, files=files)
        if progress.skipped_in_a_row > MOST_SKIPPED:
            self._save()
            raise Diverged(
                f"loss: found no finite value or gradient in {progress.skipped_in_a_row} steps up to step"
                f" {progress.step}, patch size {patch}; the state is in {self.directory.states.directory};"
                " a lower optim.lr may help"
            )

    def _note_bad_files(self, batch: Batch) -> None:
        if self.world.any(bool(batch.failures or batch.suspicions)):
            for failures, suspicions in self.world.gather((batch.failures, batch.suspicions)):
                self.bad_files.suspect(suspicions, writes=self.world.is_rank0)
                self.bad_files.note(failures, writes=self.world.is_rank0)

    def _due(self) -> bool:
        """Whether a checkpoint is due, by steps or by rank 0's clock (only rank 0 writes)."""
        minutes = (time.perf_counter() - self.saved_at) / 60
        return self.progress.step % self.config.save_every == 0 or minutes >= self.config.save_every_minutes

    # Validation and what it leaves ------------------------------------------------------------------------------

    def _averaging(self) -> bool:
        return 0 < self.config.average_from <= self.progress.step / self.plan.steps_per_epoch + 1e-9

    def _begin_validation(self) -> None:
        self.progress.validating = True
        if self._averaging():
            self.average.add(self.model)

    def _validate(self, stopping: Stopping) -> None:
        """Measure on the validation data and keep the best model, or the last one if there are no such data.

        Raises Interrupted soon after a stop; the run then goes on with this validation.
        """
        config, progress = self.config, self.progress
        last = progress.step == self.plan.total_steps
        model = merged(self.ema.model(self.model) if self.ema else self.model)
        if self._averaging() and last:
            model = self.average.model(self.model)
        validation = self.validator.validate(model, lambda: bool(stopping))
        progress.validating = False
        self.reporter.validated(progress, validation, self.stepper.learning_rate)
        keep = last if config.average_from else validation.score >= progress.best
        progress.since_best = 0 if validation.score > progress.best else progress.since_best + 1
        progress.best = max(progress.best, validation.score)
        progress.ended = bool(validation.curve) and 0 < config.patience <= progress.since_best
        if progress.ended and not last:
            logger.info("step %d: no better score in %d validations, so the run ends", progress.step, config.patience)
        if keep and self.world.is_rank0:
            self._keep(model, validation.curve)

    def _keep(self, model: AudioClassifier, curve: dict[str, Any]) -> None:
        """Write the model to use."""
        units = {name: value for name, value in model.metadata.items() if name == "targets"}
        model.metadata = units | {
            "trained_patch_sizes": [str(p) for p in self.config.patches.sizes or self.plan.patches.sizes],
            "trained_rectangles": self.config.patches.rectangles == "yes",
            "trained_steps": self.progress.step,
            "validation": curve,
            "training": to_json(self.config),
            "precision": self.objective.precision,
            "commit": self.commit,
        }
        model.save_pretrained(self.config.out)

    # Saving and resuming ---------------------------------------------------------------------------------------

    def _save(self) -> None:
        """Save the state; only rank 0 writes. Before the first step there is nothing to save."""
        self.saved_at = time.perf_counter()
        log = self.reporter.log
        if log is None or not self.progress.step:
            return
        log.sync()
        state = {
            **self.state.to_dict(),
            "log_bytes": log.size,
            "config": json.dumps(to_json(self.config)),
            **self.identity.state(),
        }
        self.directory.states.save(self.progress.step, state)

    def _resumable_state(self) -> dict[str, Any] | None:
        return self.directory.resumable_state(to_json(self.config), self.identity, self.config.override)

    def _open(self, state: dict[str, Any] | None) -> None:
        self.reporter.log = self.directory.open(to_json(self.config), self.prepared.choices, self.config.log, state)

    def _restore(self, state: dict[str, Any]) -> None:
        try:
            self.state.restore(state)
        except MISFIT as error:
            raise CheckpointError(f"{self.directory.states.directory}: does not fit this training ({error})") from None
        if self.progress.best > float("-inf") and not self.directory.has_model:
            logger.warning("%s: the best model is gone; the best of the coming validations is kept", self.config.out)
            self.progress.best = float("-inf")
