"""The training loop: one patch size per step, from (seed, step); supervised, or distilled from a fixed-patch teacher.

A run directory holds `train_config.json`, the log (`train.jsonl`, `epochs.csv`, `tensorboard/`), the newest full
states for resuming (`checkpoints/`) and, as they come to be, `model.safetensors` with `config.json`: the model to use.
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
from ..data.dataset import Batch, ClipDataset, Failure, load_batches, reported_deaths
from ..data.manifest import Manifest
from ..data.sampler import Draw, share_of
from ..errors import CheckpointError, ConfigError, DataError
from ..models.geometry import PatchSize
from ..runtime.arguments import to_json
from ..runtime.distributed import World, connected
from ..runtime.files import require_writable, write_atomically
from ..runtime.interruption import LAUNCHER_GRACE, Interrupted, noted_signals
from ..runtime.provenance import commit
from .bad_files import BadFiles
from .checkpointing import CheckpointStore, WeightAverage, restore_rng, rng_state
from .config import TrainConfig, differences
from .evaluate import Result, sweep
from .objective import Objective
from .optim import lr_factor
from .patch_sampler import PatchSampler
from .run_log import RunLog, require_log
from .setup import setup_data, setup_model, setup_schedule, setup_teacher
from .stepper import Stepper

logger = logging.getLogger(__name__)

MOST_SKIPPED = 5
"""Steps in a row that may be skipped for a loss or gradient that is no finite number."""


class Diverged(ConfigError):
    """Several steps in a row gave no finite loss or gradient; the state is saved for inspection."""


def train(config: TrainConfig, progress: bool = True) -> Path:
    """Train, or go on with the training in `config.out`; returns the run directory. Joins torchrun's processes.

    Raises FlexiASTError for wrong input, before anything is written; Interrupted after SIGINT, SIGTERM or SIGUSR1,
    once the step is finished and the state saved; Diverged if the loss stays no number.
    """
    if config.threads:
        torch.set_num_threads(config.threads)
    with connected() as world:
        Trainer(config, progress, world).run()
    return config.out


class Trainer:
    """One run: everything set up on construction, nothing written before `run`."""

    def __init__(self, config: TrainConfig, progress: bool = True, world: World | None = None) -> None:
        self.config, self.world = config, world or World()
        self.progress = progress and self.world.leads
        require_log(config.log)
        self.commit = commit()  # of the code that is loaded now; the tree may move on while it trains
        self.store = CheckpointStore(config.out / "checkpoints", config.keep_checkpoints)
        self.train_data, self.val_data = setup_data(config)
        self.model, self.statistics = setup_model(config, self.train_data, self.world, self.progress)
        self.teacher = setup_teacher(config, self.model)
        self.dataset = ClipDataset(self.train_data, self.model.feature_config, replace=True)
        self.bad_files = BadFiles(self.train_data, config.data, config.out / "bad_files.csv")
        self._setup_schedule()
        self.objective = Objective(config, self.model, self.teacher)
        self.stepper = Stepper(config, self.model, self.objective, self.world)
        self.average = WeightAverage()
        self.step, self.best = 0, float("-inf")
        self.skipped, self.skipped_in_a_row = 0, 0
        self.losses: list[float] = []  # of the steps since the last line of the log
        self.epoch_losses: list[float] = []  # and since the last validation

    def _setup_schedule(self) -> None:
        config, base = self.config, self.model.config.patch_size
        self.schedule = setup_schedule(config, self.train_data)
        self.steps_per_epoch = len(self.train_data) / config.data.batch_size
        self.total_steps = self.schedule.steps(config.epochs)
        self.unit = 2 if config.augment.mixup else 1  # mixup's pairs stay together
        if config.data.batch_size < self.world.size * self.unit:
            raise ConfigError(
                f"data.batch_size: found {config.data.batch_size} for {self.world.size} processes, expected at least"
                f" {self.world.size * self.unit}" + (" (mixup needs two clips in each)" if self.unit == 2 else "")
            )
        self.patches = PatchSampler(config.patches.sizes or (base,), config.patches.weights, config.seed)
        self.eval_patches = config.eval_patch_sizes or self.patches.sizes
        for patch in {*self.patches.sizes, *self.eval_patches}:
            self.model.config.grid(patch, self.model.feature_config.frames)
        epochs = range(1, int(config.epochs / config.eval_every) + 1)
        self.eval_steps = {self.schedule.steps(n * config.eval_every) for n in epochs} | {self.total_steps}

    # The loop --------------------------------------------------------------------------------------------------

    def run(self) -> None:
        """Train from the saved state, or from the start, to the end."""
        state = self.world.broadcast(self._saved_state() if self.world.leads else None)
        if state and state["step"] >= self.total_steps:
            logger.info("%s: already trained to step %d of %d", self.config.out, state["step"], self.total_steps)
            return
        if state:
            logger.info("%s: going on from step %d of %d", self.config.out, state["step"], self.total_steps)
        with noted_signals(grace=0 if self.world.size == 1 else LAUNCHER_GRACE) as stopping:
            if self.world.leads:
                self._open(state)
            try:
                if state:
                    self._restore(state)
                else:
                    self._save()  # so that a run that was ever started can go on, wherever it is killed
                with reported_deaths(self.dataset, self.config.data.workers):
                    self._loop(stopping)
            finally:
                if self.world.leads:
                    self.log.close()

    def _loop(self, stopping: list[int]) -> None:
        config, steps = self.config, self.total_steps
        batches = load_batches(self.dataset, self._draws(steps), config.data.workers, config.data.timeout)
        self.saved_time = self.logged_time = time.perf_counter()
        self.logged_step = self.step
        with tqdm(total=steps, initial=self.step, unit="step", desc=config.out.name, disable=not self.progress) as bar:
            while self.step < steps:
                patch = self.patches[self.step]
                self._train_on(next(batches), patch)
                bar.update()
                if self.step % config.log_every == 0:
                    self._report(bar, patch)
                validating = self.step in self.eval_steps
                if validating:
                    self._validate()
                stop = self.world.any(bool(stopping))
                if validating or stop or self._due():
                    self._save()
                if stop and self.step < steps:
                    raise Interrupted(
                        f"stopped by signal {stopping[0] if stopping else 'of another process'} after step {self.step}"
                        f" of {steps}; the same command goes on from there"
                    )

    def _draws(self, stop: int) -> Iterator[list[Draw]]:
        """This process's share of the batches from the present step on."""
        return (self._share(step) for step in range(self.step, stop))

    def _share(self, step: int) -> list[Draw]:
        return share_of(self.schedule[step], self.world.rank, self.world.size, self.unit)

    def _train_on(self, batch: Batch, patch: PatchSize) -> None:
        """One step; one whose loss or gradient is no finite number is skipped."""
        self._note_bad_files(batch.failures)
        if len(batch.targets) < len(self._share(self.step)):
            raise DataError(f"{self.train_data.source}: found no usable clip to take the place of the unusable ones")
        factor = lr_factor(self.step, self.total_steps, self.steps_per_epoch, self.config.optim)
        loss, used = self.stepper.step(self.objective.prepare(batch), patch, factor)
        self.step += 1
        if used:
            self.skipped_in_a_row = 0
            self.losses.append(loss)
            self.epoch_losses.append(loss)
            return
        self.skipped, self.skipped_in_a_row = self.skipped + 1, self.skipped_in_a_row + 1
        files = [str(self.train_data.clips[draw.clip].path) for draw in self.schedule[self.step - 1]]
        logger.warning(
            "step %d skipped: its loss (%s) or gradient at patch size %s is not finite", self.step, loss, patch
        )
        self._log(skipped=str(loss), patch_size=str(patch), files=files)
        if self.skipped_in_a_row > MOST_SKIPPED:
            self._save()
            raise Diverged(
                f"loss: found no finite value or gradient in {self.skipped_in_a_row} steps up to step {self.step},"
                f" patch size {patch}; the state is in {self.store.directory}; a lower optim.lr may help"
            )

    def _note_bad_files(self, failures: list[Failure]) -> None:
        if self.world.any(bool(failures)):
            everywhere = [failure for of_one in self.world.gather(failures) for failure in of_one]
            self.bad_files.note(everywhere, writes=self.world.leads)

    def _due(self) -> bool:
        """Whether a checkpoint is due; the leading process's clock and count decide."""
        minutes = (time.perf_counter() - self.saved_time) / 60
        return self.step % self.config.save_every == 0 or minutes >= self.config.save_every_minutes

    def _report(self, bar: tqdm, patch: PatchSize) -> None:
        """A line of the log about the steps since the last one."""
        now = time.perf_counter()
        rate = (self.step - self.logged_step) * self.config.data.batch_size / (now - self.logged_time)
        if self.losses:
            loss = sum(self.losses) / len(self.losses)
            bar.set_postfix(loss=f"{loss:.3f}", patch=str(patch), clips=f"{rate:.0f}/s")
            self._log(loss=loss, patch_size=str(patch), lr=self.stepper.learning_rate, clips_per_second=rate)
        self.losses, self.logged_step, self.logged_time = [], self.step, now

    # Validation and what it leaves -----------------------------------------------------------------------------

    def _validate(self) -> None:
        """Measure on the validation data, keep the best model, take in the average; without them keep the last."""
        epoch = self.step / self.steps_per_epoch
        averaging = 0 < self.config.average_from <= epoch + 1e-9
        if averaging:
            self.average.add(self.model)
        model = self._averaged() if averaging and self.step == self.total_steps else self.model
        score, curve = self._score(model)
        self._report_epoch(score, curve)
        keep = self.step == self.total_steps if self.config.average_from else score >= self.best
        self.best = max(self.best, score)
        if keep and self.world.leads:
            self._keep(model, curve)

    def _score(self, model: AudioClassifier) -> tuple[float, dict[str, Any]]:
        """Mean over the evaluated patch sizes of the metric, and all metrics at each; 0 without validation data."""
        self.excluded = 0
        if self.val_data is None:
            return 0.0, {}
        results = self.measure("model", model, self.val_data, progress=False)
        self.excluded = len(results[0].excluded)
        for failure in results[0].excluded:
            logger.warning("excluded from the validation: %s", failure.reason)
        curve = {str(r.patch_size): {"loss": r.loss, **dataclasses.asdict(r.metrics)} for r in results}
        metric = self.config.selection_metric
        return sum(one[metric] for one in curve.values()) / len(curve), curve

    def measure(self, name: str, model: AudioClassifier, data: Manifest, progress: bool) -> list[Result]:
        """A model on some clips at the run's evaluation sizes, with the run's settings and processes."""
        return sweep(
            {name: model},
            data,
            self.eval_patches,
            batch_size=self.config.data.batch_size,
            workers=self.config.data.workers,
            precision=self.config.precision,
            progress=progress,
            world=self.world,
        )

    def _report_epoch(self, score: float, curve: dict[str, Any]) -> None:
        """A line of the log about the steps since the last validation, and epochs.csv."""
        losses, self.epoch_losses = self.epoch_losses, []
        record = {"train_loss": sum(losses) / len(losses)} if losses else {}
        if curve:
            record |= {"mean": score, "excluded": self.excluded}
        self._log(**record, lr=self.stepper.learning_rate, skipped_steps=self.skipped, validation=curve)
        if self.world.leads:
            self.log.write_epochs()

    def _averaged(self) -> AudioClassifier:
        model = AudioClassifier(
            self.model.config, self.model.feature_config, self.model.labels, self.model.loss, self.model.metadata
        )
        model.load_state_dict(self.average.weights())
        return model.to(self.model.kernel.device)

    def _keep(self, model: AudioClassifier, curve: dict[str, Any]) -> None:
        """Write the model to use."""
        model.metadata = {
            "trained_patch_sizes": [str(p) for p in self.patches.sizes],
            "trained_steps": self.step,
            "validation": curve,
            "training": to_json(self.config),
            "precision": self.objective.precision,
            "commit": self.commit,
        }
        model.save_pretrained(self.config.out)

    def _log(self, **record: Any) -> None:
        if self.world.leads:
            self.log.write(self.step, self.step / self.steps_per_epoch, **record)

    # Saving and resuming ---------------------------------------------------------------------------------------

    def _data_fingerprints(self) -> list[str]:
        return [d.fingerprint for d in (self.train_data, self.val_data) if d is not None]

    def _save(self) -> None:
        """Save the state; only the leading process writes."""
        self.saved_time = time.perf_counter()
        if not self.world.leads:
            return
        state = {
            "step": self.step,
            "best": self.best,
            "losses": self.losses,
            "epoch_losses": self.epoch_losses,
            "skipped": [self.skipped, self.skipped_in_a_row],
            "bad_files": self.bad_files.reasons,
            "model": self.model.state_dict(),
            "optimizers": self.stepper.state_dict(),
            "average": self.average.state_dict(),
            "rng": rng_state(),
            "log_bytes": self.log.size,
            "config": json.dumps(to_json(self.config)),
            "data": self._data_fingerprints(),
        }
        self.store.save(self.step, state)

    def _saved_state(self) -> dict[str, Any] | None:
        """The state to go on from, if there is one. Raises ConfigError if it belongs to another training."""
        state, out = self.store.latest(), self.config.out
        if state is None:
            if (out / "model.safetensors").exists():
                raise ConfigError(f"out: {out} already holds a model but no training state; choose another folder")
            return None
        if missing := {"config", "data", "log_bytes", "model"} - state.keys():
            raise CheckpointError(f"{self.store.directory}: the newest state lacks {', '.join(sorted(missing))}")
        changed = differences(json.loads(state["config"]), to_json(self.config))
        if state["data"] != self._data_fingerprints():
            changed.append(f"the data: {self.config.data.train} or its validation data have changed")
        if changed and not self.config.override:
            raise ConfigError(
                f"{self.store.directory}: belongs to a run with other settings ({'; '.join(changed)}); repeat its"
                " settings to go on with it, choose another out, or go on all the same with --override"
            )
        return state

    def _open(self, state: dict[str, Any] | None) -> None:
        """Start the files of the run, or take them up again."""
        out, settings = self.config.out, to_json(self.config)
        require_writable(out)
        if state is None:
            write_atomically(out / "train_config.json", (json.dumps(settings, indent=1) + "\n").encode())
        if self.statistics is not None:
            content = {"statistics": dataclasses.asdict(self.statistics), "data": self.train_data.fingerprint}
            write_atomically(out / "statistics.json", (json.dumps(content) + "\n").encode())
        step, size = (state["step"], state["log_bytes"]) if state else (0, 0)
        self.log = RunLog(out, self.config.log, settings, step, size)

    def _restore(self, state: dict[str, Any]) -> None:
        try:
            self.model.load_state_dict(state["model"])
            self.stepper.load_state_dict(state["optimizers"])
            self.average.load_state_dict(state["average"])
            restore_rng(state["rng"])
            self.step, self.best = state["step"], state["best"]
            self.skipped, self.skipped_in_a_row = state["skipped"]
            self.losses, self.epoch_losses = state["losses"], state["epoch_losses"]
            self.bad_files.reasons = state["bad_files"]
        except (AttributeError, KeyError, TypeError, ValueError, RuntimeError) as error:
            raise CheckpointError(f"{self.store.directory}: does not fit this training ({error})") from None
