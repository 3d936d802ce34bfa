"""The training configuration: a frozen dataclass, checked on construction, turned into the command line by tyro."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Annotated, Literal, get_args

from ..errors import require
from ..models.config import Loss
from ..runtime.arguments import AUTO, AutoFloat, AutoInt, PatchArg, Precision, auto, require_distinct
from ..runtime.distributed import TIMEOUT
from ..runtime.output import OutputOptions
from .augment import AugmentConfig
from .metrics import metric_of
from .options import DataConfig, DistillConfig, FeatureOptions, MemoryLimits, ModelOptions, OptimConfig, PatchOptions
from .tuning import parse_tune

AutoLoss = Annotated[Loss, auto(str, "{auto,ce,bce,mse}", get_args(Loss))]
Log = Literal["tensorboard", "wandb", "none"]
ClassWeights = Literal["none", "balanced"]
Metric = Literal["auto", "accuracy", "mAP", "R2"]


@dataclasses.dataclass(frozen=True)
class TrainConfig(OutputOptions):
    """Train a fixed or a flexible model, or go on with an interrupted run."""

    data: DataConfig
    out: Path = Path("exp/run")
    """Run directory: model, checkpoints, log and configuration are written here."""
    features: FeatureOptions = FeatureOptions()
    model: ModelOptions = ModelOptions()
    patches: PatchOptions = PatchOptions()
    optim: OptimConfig = OptimConfig()
    augment: AugmentConfig = AugmentConfig()
    distill: DistillConfig = DistillConfig()
    loss: AutoLoss = AUTO
    """`ce`: one class per clip. `bce`: any number of classes. `auto`: one of these, chosen from the labels. `mse`:
    numbers to predict, in one or several columns of a table (data.label_column)."""
    label_smoothing: float = 0.0
    """Share of the target that is spread over all classes."""
    class_weights: ClassWeights = "none"
    """`balanced`: classes weighted by the inverse of their frequency (with loss bce: as `pos_weight`)."""
    focal: float = 0.0
    """Exponent of the focal loss, which gives less weight to clips already right (usual: 2); 0 for the plain loss."""
    tune: str = "all"
    """Which part of the start is trained: `all`; `head`, the classifier alone; `last:N`, the classifier and the last N
    blocks; `lora` or `lora:RANK`, the classifier and low-rank updates, merged into the saved weights."""
    ema: float = 0.0
    """Share of the run's steps that a moving average of the weights looks back over (such as 0.1); it is what is
    validated and kept. 0 for none."""
    epochs: AutoFloat = AUTO
    """Passes over the training clips; a fraction is fine."""
    patience: AutoInt = AUTO
    """Validations without a better score after which the run ends; 0 never ends it early."""
    seed: int = 0
    """Sets initial weights, order of clips, augmentation and patch sizes."""
    eval_patch_sizes: tuple[PatchArg, ...] = ()
    """Sizes validated at (default: those trained at). The best model is the one with the best mean over them."""
    eval_every: AutoFloat = AUTO
    """Epochs between validations; the last epoch is always validated."""
    metric: Metric = "auto"
    """What the best model is chosen by: `auto` is accuracy with loss ce, mAP with bce, R2 with mse."""
    average_from: float = 0
    """Average the weights at every validation from this epoch on; 0 for no averaging."""
    save_every: int = 1000
    """Steps between checkpoints; each validation saves one too."""
    save_every_minutes: float = 30
    """Minutes after which a checkpoint is saved in any case."""
    keep_checkpoints: int = 2
    """Checkpoints kept in `out`/checkpoints, the newest ones."""
    override: bool = False
    """Go on with a saved run even if its settings or data have changed."""
    log_every: int = 20
    """Steps per line of the log."""
    micro_batch: int = 0
    """Most clips per forward pass of a process; a larger share of the batch is passed in parts whose gradients are
    accumulated. 0 for no limit."""
    token_budget: int = 0
    """Most tokens (clips x patches) per forward pass of a process, so that small patches train in the memory of large
    ones: 12 clips of 1,024 frames at patch 16 are 6,156. 0 for no limit."""
    precision: Precision = "auto"
    """`auto`: bfloat16 autocast where the device has fast bfloat16, else float32. `fp16`, with the loss scaled, is
    for GPUs before Ampere."""
    compile: bool = False
    """Compile the transformer blocks (torch.compile), one graph per patch size; the first step at each size is slow."""
    log: Log = "tensorboard"
    """Where curves go, beside train.jsonl and epochs.csv."""
    device: str = "auto"
    """`auto`: the GPU where there is one, else the CPU."""
    threads: AutoInt = AUTO
    """CPU threads of the training process, 0 for torch's own choice. `auto`: one for small networks, whose operations
    gain nothing from two threads and, on a machine with other work, lose far more."""
    dist_timeout: float = TIMEOUT
    """Minutes that the processes of torchrun wait for one another; rank 0 alone looks at the data and saves."""

    def __post_init__(self) -> None:
        require(self.epochs is AUTO or 0 < self.epochs < math.inf, "epochs", self.epochs, "a positive number")
        require(self.eval_every is AUTO or self.eval_every > 0, "eval_every", self.eval_every, "a positive number")
        max_validations = 1_000_000
        if AUTO not in (self.epochs, self.eval_every):
            require(
                self.epochs / self.eval_every <= max_validations,
                "eval_every",
                self.eval_every,
                f"at most {max_validations} validations in {self.epochs:g} epochs",
            )
        require_distinct("eval_patch_sizes", self.eval_patch_sizes)
        if parse_tune(self.tune)[0] == "head":
            decay = self.optim.layer_decay
            require(decay == 1, "optim.layer_decay", decay, "1 with tune head, which trains no layer below it")
        require(0 <= self.ema <= 1, "ema", self.ema, "a share from 0 to 1")
        require(not (self.average_from and self.ema), "ema", self.ema, "0 with average_from")
        require(0 <= self.focal <= 10, "focal", self.focal, "0 to 10")
        require(not (self.average_from and self.patience), "patience", self.patience, "0 with average_from")
        require(self.save_every_minutes > 0, "save_every_minutes", self.save_every_minutes, "a positive number")
        for name in ("save_every", "log_every", "keep_checkpoints"):
            require(getattr(self, name) >= 1, name, getattr(self, name), "at least 1")
        require(0 < self.dist_timeout <= 1e5, "dist_timeout", self.dist_timeout, "a positive number of minutes")
        require(self.threads is AUTO or 0 <= self.threads <= 1024, "threads", self.threads, "0 to 1024")
        for name in ("seed", "average_from", "micro_batch", "token_budget", "patience"):
            value = getattr(self, name)
            require(value is AUTO or 0 <= value < 2**63, name, value, "0 or more")
        require(0 <= self.label_smoothing < 1, "label_smoothing", self.label_smoothing, "a share from 0 to below 1")
        if self.loss is not AUTO:
            allowed = ("auto", "R2") if self.loss == "mse" else ("auto", "accuracy", "mAP")
            require(self.metric in allowed, "metric", self.metric, f"{' or '.join(allowed)} with loss {self.loss}")
        if self.loss == "mse":
            self._require_no_classes()

    def _require_no_classes(self) -> None:
        """Raise ConfigError for a setting that needs classes, or probabilities."""
        for name, value, expected in (
            ("label_smoothing", self.label_smoothing, 0),
            ("class_weights", self.class_weights, "none"),
            ("focal", self.focal, 0),
            ("data.labels", self.data.labels, None),
            ("distill.scores", self.distill.scores, None),
            ("distill.temperature", self.distill.temperature, 1),
        ):
            why = "its numbers to predict have no classes, and so no probabilities"
            require(
                value == expected, name, value, f"{'nothing' if expected is None else expected} with loss mse: {why}"
            )
        balanced = self.data.sampling == "balanced"
        require(not balanced, "data.sampling", "balanced", "shuffle with loss mse: there are no rare classes")

    @property
    def memory(self) -> MemoryLimits:
        """How much of a batch a process passes through the network at once."""
        return MemoryLimits(self.data.batch_size, self.micro_batch, self.token_budget)

    @property
    def selection_metric(self) -> str:
        """Name in `Metrics` of what the best model is chosen by."""
        return self.metric if self.metric != "auto" else metric_of(self.loss)
