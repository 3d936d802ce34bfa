"""The training loop: one patch size per step, from (seed, step); supervised, or distilled from a fixed-patch teacher.

What it leaves on the disk is described in `run_directory`.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from ..classifier.audio_classifier import AudioClassifier
from ..data.dataset import Batch, ClipDataset, load_batches, reported_deaths
from ..data.sampler import Draw, share_of
from ..errors import CheckpointError, ConfigError, DataError
from ..models.geometry import PatchSize
from ..runtime.arguments import to_json
from ..runtime.device import pick_device
from ..runtime.distributed import World, connected
from ..runtime.interruption import LAUNCHER_GRACE, Interrupted, noted_signals
from ..runtime.provenance import commit
from .bad_files import BadFiles
from .checkpointing import WeightAverage, restore_rng, rng_state
from .config import TrainConfig
from .objective import Objective
from .optim import lr_factor
from .run_directory import RunDirectory
from .run_log import RunLog, require_log
from .setup import prepare, setup_features, setup_model, setup_plan, setup_teacher
from .stepper import Stepper
from .summary import at_chance, describe, estimate_seconds, validation_line
from .validation import Validation, Validator

logger = logging.getLogger(__name__)

MOST_SKIPPED = 5
"""Steps in a row that may be skipped because their loss or gradient is not finite."""


class Diverged(ConfigError):
    """Several steps in a row gave no finite loss or gradient; the state is saved for inspection."""


@dataclasses.dataclass
class Progress:
    """How far a run has come: all that is saved of it besides weights, optimizers and random states."""

    step: int = 0
    best: float = float("-inf")
    """Best score of a validation so far."""
    losses: list[float] = dataclasses.field(default_factory=list)
    """Of the steps since the last line of the log."""
    epoch_losses: list[float] = dataclasses.field(default_factory=list)
    """Of the steps since the last validation."""
    since_best: int = 0
    """Validations since the best one."""
    ended: bool = False
    """Whether the run ended before its last step, see `TrainConfig.patience`."""
    skipped: int = 0
    skipped_in_a_row: int = 0


@dataclasses.dataclass
class Clock:
    """When this process last saved and last logged."""

    saved: float
    logged: float
    logged_step: int


def train(config: TrainConfig, progress: bool = True) -> Path:
    """Train, or go on with the training in `config.out`; returns the run directory. Joins torchrun's processes.

    Raises FlexiASTError for wrong input, before anything is written; Interrupted after SIGINT, SIGTERM or SIGUSR1,
    once the step is finished and the state saved; Diverged if the loss stays not finite.
    """
    with connected() as world:
        Trainer(config, progress, world).run()
    return config.out


class Trainer:
    """One run: everything is set up on construction, nothing is written before `run`.

    flexible: with no patch sizes given, train at all published ones (else at the base patch alone).
    """

    log: RunLog

    def __init__(
        self, config: TrainConfig, progress: bool = True, world: World | None = None, flexible: bool = False
    ) -> None:
        self.world = world or World()
        self.show_progress = progress and self.world.is_rank0
        require_log(config.log)
        self.commit = commit()  # of the code that is loaded now; the tree may move on while it trains
        self.directory = RunDirectory(config.out, config.keep_checkpoints)
        saved = self.world.broadcast(self.directory.saved_settings() if self.world.is_rank0 else None)
        prepared = prepare(config, self.world, saved, flexible, self.show_progress)
        config = prepared.config
        self.train_data, self.val_data = prepared.train, prepared.val
        features = setup_features(config, prepared.start)
        model = setup_model(config, features, self.train_data, prepared.start)
        self.model = model.to(self.world.own(pick_device(config.device)))
        self.teacher = setup_teacher(config.distill, self.model)
        self.dataset = ClipDataset(self.train_data, features, True, config.augment.crop, config.seed)
        self.bad_files = BadFiles(self.train_data, config.data, self.directory.bad_files)
        self.plan = setup_plan(config, self.train_data, self.model, self.world, flexible)
        if flexible:  # the settings that are saved say which sizes it trains at
            patches = dataclasses.replace(config.patches, sizes=self.plan.patches.sizes)
            config = dataclasses.replace(config, patches=patches)
        self.config, self.prepared = config, dataclasses.replace(prepared, config=config)
        if config.threads:
            torch.set_num_threads(config.threads)
        self.validator = Validator(self.val_data, self.plan.eval_patches, config, self.world)
        self.objective = Objective(
            self.model, self.teacher, config.loss, config.label_smoothing, config.augment, config.distill,
            config.precision, config.seed,
        )  # fmt: skip
        self.stepper = Stepper(self.model, self.objective, self.world, config.optim, config.memory, config.compile)
        self.average = WeightAverage()
        self.progress = Progress()
        self.clock = Clock(time.perf_counter(), time.perf_counter(), 0)

    # The loop --------------------------------------------------------------------------------------------------

    def run(self) -> None:
        """Train from the saved state, or from the start, to the end."""
        state = self.world.broadcast(self._resumable_state() if self.world.is_rank0 else None)
        out, steps = self.config.out, self.plan.total_steps
        if state and (state["step"] >= steps or state["ended"]):
            logger.info("%s: already trained to step %d of %d", out, state["step"], steps)
            return
        if state:
            logger.info("%s: going on from step %d of %d", out, state["step"], steps)
        elif self.show_progress:
            seconds = estimate_seconds(self.config, self.plan, self.model, self.world.size)
            for line in describe(self.prepared, self.plan, self.model, seconds):
                logger.info("%s", line)
        with noted_signals(grace=0 if self.world.size == 1 else LAUNCHER_GRACE) as stopping:
            if self.world.is_rank0:
                self._open(state)
            try:
                if state:
                    self._restore(state)
                else:
                    self._save()  # so that a run that was ever started can go on, wherever it is killed
                with reported_deaths(self.dataset, self.config.data.workers):
                    self._loop(stopping)
            finally:
                if self.world.is_rank0:
                    self.bad_files.tell_suspicious()
                    self.log.close()

    def _loop(self, stopping: list[int]) -> None:
        config, progress, steps = self.config, self.progress, self.plan.total_steps
        batches = load_batches(self.dataset, self._draws(), config.data.workers, config.data.timeout)
        self.clock = Clock(time.perf_counter(), time.perf_counter(), progress.step)
        with tqdm(
            total=steps, initial=progress.step, unit="step", desc=config.out.name, disable=not self.show_progress
        ) as bar:
            while progress.step < steps and not progress.ended:
                patch = self.plan.patches[progress.step]
                self._train_on(next(batches), patch)
                bar.update()
                if progress.step % config.log_every == 0:
                    self._report(bar, patch)
                validating = progress.step in self.plan.eval_steps
                if validating:
                    self._validate()
                stop = self.world.any(bool(stopping))
                if validating or stop or self._due():
                    self._save()
                if stop and progress.step < steps and not progress.ended:
                    raise Interrupted(
                        f"stopped by signal {stopping[0] if stopping else 'of another process'} after step"
                        f" {progress.step} of {steps}; the same command goes on from there"
                    )

    def _draws(self) -> Iterator[list[Draw]]:
        """This process's share of the batches from the present step on."""
        return (self._share(step) for step in range(self.progress.step, self.plan.total_steps))

    def _share(self, step: int) -> list[Draw]:
        return share_of(self.plan.schedule[step], self.world.rank, self.world.size, self.plan.unit)

    def _train_on(self, batch: Batch, patch: PatchSize) -> None:
        """One step; one whose loss or gradient is not finite is skipped."""
        progress, plan = self.progress, self.plan
        self._note_bad_files(batch)
        if len(batch.targets) < len(self._share(progress.step)):
            raise DataError(f"{self.train_data.source}: found no usable clip to take the place of the unusable ones")
        factor = lr_factor(progress.step, plan.total_steps, plan.steps_per_epoch, self.config.optim)
        loss, used = self.stepper.step(self.objective.prepare(batch), patch, factor)
        progress.step += 1
        if used:
            progress.skipped_in_a_row = 0
            progress.losses.append(loss)
            progress.epoch_losses.append(loss)
        else:
            self._skip(loss, patch)

    def _skip(self, loss: float, patch: PatchSize) -> None:
        """Log a skipped step; stop the run after too many in a row."""
        progress = self.progress
        progress.skipped += 1
        progress.skipped_in_a_row += 1
        files = [str(self.train_data.clips[draw.clip].path) for draw in self.plan.schedule[progress.step - 1]]
        logger.warning(
            "step %d skipped: its loss (%s) or gradient at patch size %s is not finite", progress.step, loss, patch
        )
        self._log(skipped=str(loss), patch_size=str(patch), files=files)
        if progress.skipped_in_a_row > MOST_SKIPPED:
            self._save()
            raise Diverged(
                f"loss: found no finite value or gradient in {progress.skipped_in_a_row} steps up to step"
                f" {progress.step}, patch size {patch}; the state is in {self.directory.states.directory};"
                " a lower optim.lr may help"
            )

    def _note_bad_files(self, batch: Batch) -> None:
        suspicions = [found for found in batch.suspicions if found.clip not in self.bad_files.suspicious]
        if self.world.any(bool(batch.failures or suspicions)):
            of_all = self.world.gather((batch.failures, suspicions))
            self.bad_files.suspect((found for _, ones in of_all for found in ones), writes=self.world.is_rank0)
            self.bad_files.note((found for ones, _ in of_all for found in ones), writes=self.world.is_rank0)

    def _due(self) -> bool:
        """Whether a checkpoint is due, by steps or by rank 0's clock (only rank 0 writes)."""
        minutes = (time.perf_counter() - self.clock.saved) / 60
        return self.progress.step % self.config.save_every == 0 or minutes >= self.config.save_every_minutes

    # What it reports and keeps ---------------------------------------------------------------------------------

    def _report(self, bar: tqdm, patch: PatchSize) -> None:
        """A line of the log about the steps since the last one."""
        progress, clock, now = self.progress, self.clock, time.perf_counter()
        rate = (progress.step - clock.logged_step) * self.config.data.batch_size / (now - clock.logged)
        if progress.losses:
            loss = sum(progress.losses) / len(progress.losses)
            bar.set_postfix(loss=f"{loss:.3f}", patch=str(patch), clips=f"{rate:.0f}/s")
            self._log(loss=loss, patch_size=str(patch), lr=self.stepper.learning_rate, clips_per_second=rate)
        progress.losses, clock.logged_step, clock.logged = [], progress.step, now

    def _validate(self) -> None:
        """Measure on the validation data and keep the best model, or the last one if there are no such data."""
        config, progress = self.config, self.progress
        last = progress.step == self.plan.total_steps
        averaging = 0 < config.average_from <= progress.step / self.plan.steps_per_epoch + 1e-9
        if averaging:
            self.average.add(self.model)
        model = self._averaged() if averaging and last else self.model
        validation = self.validator.validate(model)
        self._report_epoch(validation)
        keep = last if config.average_from else validation.score >= progress.best
        progress.since_best = 0 if validation.score > progress.best else progress.since_best + 1
        progress.best = max(progress.best, validation.score)
        progress.ended = bool(validation.curve) and 0 < config.patience <= progress.since_best
        if progress.ended and not last:
            logger.info("step %d: no better score in %d validations, so the run ends", progress.step, config.patience)
        if keep and self.world.is_rank0:
            self._keep(model, validation.curve)

    def _report_epoch(self, validation: Validation) -> None:
        """A line of the log about the steps since the last validation, and epochs.csv."""
        losses, self.progress.epoch_losses = self.progress.epoch_losses, []
        record: dict[str, Any] = {"train_loss": sum(losses) / len(losses)} if losses else {}
        if validation.curve:
            record |= {"mean": validation.score, "excluded": validation.excluded}
        self._log(
            **record,
            lr=self.stepper.learning_rate,
            skipped_steps=self.progress.skipped,
            validation=validation.curve,
        )
        if self.world.is_rank0:
            self.log.write_epochs()
            self._tell(record.get("train_loss"), validation)

    def _tell(self, train_loss: float | None, validation: Validation) -> None:
        """A line for people about a validation, and at the end a warning if nothing was learnt."""
        epoch = self.progress.step / self.plan.steps_per_epoch
        logger.info("%s", validation_line(epoch, self.config.epochs, train_loss, validation, self.validator.metric))
        supervised = self.config.loss == "ce" and self.teacher is None and not self.config.augment.mixup
        if self.progress.step < self.plan.total_steps or train_loss is None or not supervised:
            return
        if warning := at_chance(train_loss, len(self.train_data.labels)):
            logger.warning("%s", warning)

    def _averaged(self) -> AudioClassifier:
        model = AudioClassifier(
            self.model.config, self.model.feature_config, self.model.labels, self.model.loss, self.model.metadata
        )
        model.load_state_dict(self.average.weights())
        return model.to(self.model.kernel.device)

    def _keep(self, model: AudioClassifier, curve: dict[str, Any]) -> None:
        """Write the model to use."""
        model.metadata = {
            "trained_patch_sizes": [str(p) for p in self.plan.patches.sizes],
            "trained_steps": self.progress.step,
            "validation": curve,
            "training": to_json(self.config),
            "precision": self.objective.precision,
            "commit": self.commit,
        }
        model.save_pretrained(self.config.out)

    def _log(self, **record: Any) -> None:
        if self.world.is_rank0:
            self.log.write(self.progress.step, self.progress.step / self.plan.steps_per_epoch, **record)

    # Saving and resuming ---------------------------------------------------------------------------------------

    def _data_fingerprints(self) -> list[str]:
        return [d.fingerprint for d in (self.train_data, self.val_data) if d is not None]

    def _save(self) -> None:
        """Save the state; only rank 0 writes."""
        self.clock.saved = time.perf_counter()
        if not self.world.is_rank0:
            return
        state = {
            **dataclasses.asdict(self.progress),
            "bad_files": self.bad_files.reasons,
            "suspicious": self.bad_files.suspicious,
            "model": self.model.state_dict(),
            "optimizers": self.stepper.state_dict(),
            "average": self.average.state_dict(),
            "rng": rng_state(),
            "log_bytes": self.log.size,
            "config": json.dumps(to_json(self.config)),
            "data": self._data_fingerprints(),
        }
        self.directory.states.save(self.progress.step, state)

    def _resumable_state(self) -> dict[str, Any] | None:
        return self.directory.resumable_state(to_json(self.config), self._data_fingerprints(), self.config.override)

    def _open(self, state: dict[str, Any] | None) -> None:
        self.log = self.directory.open(to_json(self.config), self.prepared.choices, self.config.log, state)

    def _restore(self, state: dict[str, Any]) -> None:
        try:
            self.model.load_state_dict(state["model"])
            self.stepper.load_state_dict(state["optimizers"])
            self.average.load_state_dict(state["average"])
            restore_rng(state["rng"])
            self.progress = Progress(**{field.name: state[field.name] for field in dataclasses.fields(Progress)})
            self.bad_files.reasons, self.bad_files.suspicious = state["bad_files"], state["suspicious"]
        except (AttributeError, KeyError, TypeError, ValueError, RuntimeError) as error:
            raise CheckpointError(f"{self.directory.states.directory}: does not fit this training ({error})") from None
