"""The training loop: one patch size per step, from (seed, step); supervised, or distilled from a fixed-patch teacher.

A run directory holds `train_config.json`, `train.jsonl` (the log), `checkpoint.pt` (the full state, for resuming)
and, as they come to be, `model.safetensors` with `config.json`: the model to use.
"""

from __future__ import annotations

import dataclasses
import json
import math
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

from ..classifier import AudioClassifier
from ..data.augment import augment_features, clip_keys, mixup
from ..data.dataset import Batch, ClipDataset, load_batches
from ..data.manifest import Manifest, read_manifest
from ..data.sampler import BatchSchedule
from ..errors import CheckpointError, ConfigError, FlexiASTError
from ..loading import adapt, load
from ..models.checkpoint import write_atomically
from ..models.flexiast import FlexiASTConfig
from ..models.geometry import PatchSize
from ..provenance import commit
from .checkpointing import WeightAverage, load_state, require_writable, restore_rng, rng_state, save_state
from .config import TrainConfig, differences, to_json
from .device import autocast, pick_device
from .evaluate import sweep
from .losses import classification_loss, distillation_loss
from .optim import build_optimizers, lr_factor
from .patch_sampler import PatchSampler


class Interrupted(FlexiASTError):
    """The run was asked to stop; its state is saved."""


def train(config: TrainConfig, progress: bool = True) -> Path:
    """Train, or go on with the training in `config.out`; returns the run directory.

    Raises FlexiASTError for wrong input, before anything is written; Interrupted after SIGINT or SIGTERM, once
    the step is finished and the state saved.
    """
    if config.threads:
        torch.set_num_threads(config.threads)
    Trainer(config, progress).run()
    return config.out


class Trainer:
    """One run: everything set up on construction, nothing written before `run`."""

    def __init__(self, config: TrainConfig, progress: bool = True) -> None:
        self.config, self.progress = config, progress
        self.device = pick_device(config.device)
        self.commit = commit()  # of the code that is loaded now; the tree may move on while it trains
        self._setup_data()
        self._setup_model()
        self._setup_teacher()
        self._setup_schedule()
        self.optimizers = build_optimizers(self.model, config.optim)
        self.average = WeightAverage()
        self.step, self.best = 0, float("-inf")
        self.losses: list[Tensor] = []  # of the steps since the last line of the log

    # Set-up, in order ------------------------------------------------------------------------------------------

    def _setup_data(self) -> None:
        data = self.config.data
        self.train_data = read_manifest(data.train, data.labels, data.root)
        self.val_data: Manifest | None = None
        if data.val is not None:
            self.val_data = read_manifest(data.val, self.train_data.labels, data.root)
        if self.config.loss == "ce" and (several := [c for c in self.train_data.clips if len(c.classes) != 1]):
            raise ConfigError(
                f"{data.train}: {several[0].path} has {len(several[0].classes)} labels, expected 1 with loss ce"
            )

    def _setup_model(self) -> None:
        config, labels = self.config, self.train_data.labels
        torch.manual_seed(config.seed)
        start = load(config.model.init) if config.model.init else None
        features = config.features.resolve(start.feature_config if start else None)
        if start is not None:
            model = adapt(start, features, labels, config.loss, config.model.coverage)
        else:
            network = FlexiASTConfig(
                classes=len(labels), frames=features.frames, pad_value=features.pad_value, **config.model.architecture()
            )
            model = AudioClassifier(network, features, labels, config.loss)
        self.model = model.to(self.device)
        self.dataset = ClipDataset(self.train_data, features)

    def _setup_teacher(self) -> None:
        distill, self.teacher = self.config.distill, None
        if distill.teacher is None:
            return
        self.teacher = load(distill.teacher, self.device).requires_grad_(False)
        if self.teacher.feature_config != self.model.feature_config or self.teacher.labels != self.model.labels:
            raise ConfigError(
                f"distill.teacher: {distill.teacher} has other feature settings or labels than the student:"
                f" {self.teacher.feature_config}, expected {self.model.feature_config}"
            )

    def _setup_schedule(self) -> None:
        config, base = self.config, self.model.config.patch_size
        self.schedule = BatchSchedule(len(self.train_data), config.data.batch_size, config.seed)
        self.steps_per_epoch = len(self.train_data) / config.data.batch_size
        self.total_steps = self.schedule.steps(config.epochs)
        self.patches = PatchSampler(config.patches.sizes or (base,), config.patches.weights, config.seed)
        self.eval_patches = config.eval_patch_sizes or self.patches.sizes
        for patch in {*self.patches.sizes, *self.eval_patches}:
            self.model.config.grid(patch, self.model.feature_config.frames)
        epochs = range(1, int(config.epochs / config.eval_every) + 1)
        self.eval_steps = {self.schedule.steps(n * config.eval_every) for n in epochs} | {self.total_steps}

    # The loop --------------------------------------------------------------------------------------------------

    def run(self) -> None:
        """Train from the saved state, or from the start, to the end."""
        state = self._saved_state()
        require_writable(self.config.out)
        with open(self.config.out / "train.jsonl", "a+b") as self.log_file:
            if state is None:
                self._start()
            else:
                self._restore(state)
            with _stop_signals() as stopping:
                self._loop(stopping)

    def _loop(self, stopping: list[int]) -> None:
        config, steps = self.config, self.total_steps
        batches = load_batches(self.dataset, self.schedule.batches(self.step, steps), config.data.workers)
        with tqdm(total=steps, initial=self.step, unit="step", desc=config.out.name, disable=not self.progress) as bar:
            self.logged_step, self.logged_time = self.step, time.perf_counter()
            while self.step < steps:
                patch = self.patches[self.step]
                self.losses.append(self._step(next(batches), patch))
                self.step += 1
                bar.update()
                if self.step % config.log_every == 0:
                    self._report(bar, patch)
                validating = self.step in self.eval_steps
                if validating:
                    self._validate()
                if validating or stopping or self.step % config.save_every == 0:
                    self._save()
                if stopping and self.step < steps:
                    raise Interrupted(
                        f"stopped by signal {stopping[0]} after step {self.step} of {steps};"
                        f" the same command goes on from there"
                    )

    def _report(self, bar: tqdm, patch: PatchSize) -> None:
        """A line of the log about the steps since the last one; stops the run if the loss is no number."""
        now = time.perf_counter()
        rate = (self.step - self.logged_step) * self.config.data.batch_size / (now - self.logged_time)
        loss = float(torch.stack(self.losses).mean())
        bar.set_postfix(loss=f"{loss:.3f}", patch=str(patch), clips=f"{rate:.0f}/s")
        self._log(loss=loss, patch_size=str(patch), lr=self._learning_rate(), clips_per_second=rate)
        if math.isnan(loss):
            raise ConfigError(f"loss: found NaN by step {self.step}, patch size {patch}; try a lower optim.lr")
        self.losses, self.logged_step, self.logged_time = [], self.step, now

    def _step(self, batch: Batch, patch: PatchSize) -> Tensor:
        """One optimizer step on one batch; returns its loss."""
        self.model.train()
        factor = lr_factor(self.step, self.total_steps, self.steps_per_epoch, self.config.optim)
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = group["peak_lr"] * factor
            optimizer.zero_grad(set_to_none=True)
        loss = self._loss(batch, patch)
        loss.backward()
        if self.config.optim.clip_norm:
            nn.utils.clip_grad_norm_(self.model.parameters(), self.config.optim.clip_norm)
        for optimizer in self.optimizers:
            optimizer.step()
        return loss.detach()

    def _loss(self, batch: Batch, patch: PatchSize) -> Tensor:
        config, features = self.config, self.model.feature_config
        keys = clip_keys(config.seed, batch.epochs, batch.clips).to(self.device)
        waveform, lengths, targets = (t.to(self.device, non_blocking=True) for t in batch[:3])
        if config.augment.mixup:
            waveform, lengths, targets = mixup(waveform, lengths, targets, config.augment.mixup, keys)
        log_mel = self.model.front_end.raw(waveform, lengths)
        inputs = augment_features(log_mel, features, config.augment, keys)
        with autocast(self.device, config.precision):
            logits = self.model(inputs, patch)
            supervised = classification_loss(logits.float(), targets, config.loss, config.label_smoothing)
            if self.teacher is None:
                return supervised
            shown = features.normalise(log_mel) if config.distill.clean_teacher else inputs
            with torch.no_grad():
                taught = self.teacher(shown, config.distill.patch_size)
        distilled = distillation_loss(logits, taught, config.loss, config.distill.temperature)
        share = config.distill.label_weight
        return share * supervised + (1 - share) * distilled

    # Validation and what it leaves -----------------------------------------------------------------------------

    def _validate(self) -> None:
        """Measure on the validation data, keep the best model, take in the average; without them keep the last."""
        epoch = self.step / self.steps_per_epoch
        averaging = 0 < self.config.average_from <= epoch + 1e-9
        if averaging:
            self.average.add(self.model)
        model = self._averaged() if averaging and self.step == self.total_steps else self.model
        score, curve = self._score(model)
        keep = self.step == self.total_steps if self.config.average_from else score >= self.best
        self.best = max(self.best, score)
        if keep:
            self._keep(model, curve)

    def _score(self, model: AudioClassifier) -> tuple[float, dict[str, Any]]:
        """Mean over the evaluated patch sizes of accuracy (ce) or mAP (bce), and the metrics at each."""
        if self.val_data is None:
            return 0.0, {}
        results = sweep(
            {"model": model},
            self.val_data,
            self.eval_patches,
            batch_size=self.config.data.batch_size,
            workers=self.config.data.workers,
            precision=self.config.precision,
            progress=False,
        )
        curve = {str(r.patch_size): {"loss": r.loss, **dataclasses.asdict(r.metrics)} for r in results}
        metric = "accuracy" if self.config.loss == "ce" else "mAP"
        score = sum(one[metric] for one in curve.values()) / len(curve)
        self._log(validation=curve, mean=score, metric=metric)
        return score, curve

    def _averaged(self) -> AudioClassifier:
        model = AudioClassifier(
            self.model.config, self.model.feature_config, self.model.labels, self.model.loss, self.model.metadata
        )
        model.load_state_dict(self.average.weights())
        return model.to(self.device)

    def _keep(self, model: AudioClassifier, curve: dict[str, Any]) -> None:
        """Write the model to use."""
        model.metadata = {
            "trained_patch_sizes": [str(p) for p in self.patches.sizes],
            "trained_steps": self.step,
            "validation": curve,
            "training": to_json(self.config),
            "commit": self.commit,
        }
        model.save_pretrained(self.config.out)

    def _learning_rate(self) -> float:
        return float(self.optimizers[0].param_groups[0]["lr"])

    def _log(self, **record: Any) -> None:
        epoch = round(self.step / self.steps_per_epoch, 4)
        self.log_file.write((json.dumps({"step": self.step, "epoch": epoch, **record}) + "\n").encode())
        self.log_file.flush()

    # Saving and resuming ---------------------------------------------------------------------------------------

    def _data_fingerprints(self) -> list[str]:
        return [d.fingerprint for d in (self.train_data, self.val_data) if d is not None]

    def _save(self) -> None:
        state = {
            "step": self.step,
            "best": self.best,
            "losses": self.losses,
            "model": self.model.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            "average": self.average.state_dict(),
            "rng": rng_state(),
            "log_bytes": self.log_file.tell(),
            "config": json.dumps(to_json(self.config)),
            "data": self._data_fingerprints(),
        }
        save_state(self.config.out / "checkpoint.pt", state)

    def _saved_state(self) -> dict[str, Any] | None:
        """The state to go on from, if there is one. Raises ConfigError if it belongs to another training."""
        path = self.config.out / "checkpoint.pt"
        if not path.exists():
            if (self.config.out / "model.safetensors").exists():
                raise ConfigError(
                    f"out: {self.config.out} already holds a model but no training state; choose another folder"
                )
            return None
        state = load_state(path)
        if changed := differences(json.loads(state["config"]), to_json(self.config)):
            raise ConfigError(
                f"{path}: belongs to a run with other settings ({'; '.join(changed)});"
                f" repeat its settings to go on with it, or choose another out"
            )
        if state["data"] != self._data_fingerprints():
            raise ConfigError(
                f"{path}: belongs to a run on other data than {self.config.data.train}; choose another out"
            )
        return state

    def _start(self) -> None:
        self.log_file.truncate(0)
        write_atomically(
            self.config.out / "train_config.json", (json.dumps(to_json(self.config), indent=1) + "\n").encode()
        )

    def _restore(self, state: dict[str, Any]) -> None:
        try:
            self.model.load_state_dict(state["model"])
            for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
                optimizer.load_state_dict(saved)
            self.average.load_state_dict(state["average"])
            restore_rng(state["rng"])
            self.step, self.best = state["step"], state["best"]
            self.losses = [loss.to(self.device) for loss in state["losses"]]
            self.log_file.truncate(state["log_bytes"])  # lines of steps that are about to be repeated
        except (KeyError, ValueError, RuntimeError) as error:
            raise CheckpointError(
                f"{self.config.out / 'checkpoint.pt'}: does not fit this training ({error})"
            ) from None


@contextmanager
def _stop_signals() -> Iterator[list[int]]:
    """While inside, note SIGINT and SIGTERM in the list, to be acted on between steps; a second one ends at once."""
    received: list[int] = []

    def note(number: int, _frame: object) -> None:
        received.append(number)
        for other, handler in previous.items():
            signal.signal(other, handler)

    previous = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    for number in previous:
        signal.signal(number, note)
    try:
        yield received
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
