"""The training configuration: a frozen dataclass, checked on construction, turned into the command line by tyro."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal, get_args

from ..data.dataset import MAX_WORKERS
from ..data.table_options import Condition, TableOptions
from ..errors import require
from ..models.config import Loss
from ..runtime.arguments import AUTO, AutoFloat, AutoInt, PatchArg, Precision, auto, require_distinct
from ..runtime.distributed import TIMEOUT
from .augment import AugmentConfig
from .options import DataConfig, DistillConfig, FeatureOptions, MemoryLimits, ModelOptions, OptimConfig, PatchOptions

AutoLoss = Annotated[Loss, auto(str, "{auto,ce,bce}", get_args(Loss))]
Log = Literal["tensorboard", "wandb", "none"]
Metric = Literal["auto", "accuracy", "mAP"]


@dataclasses.dataclass(frozen=True)
class DataConfig(TableOptions):
    """Where the clips are and how they are read."""

    train: Path
    """Manifest JSON, table (CSV, TSV, JSONL) of files and labels, or a folder with one sub-folder per class."""
    val: PathOrShare = AUTO
    """Manifest or folder that models are compared on during training, never the test set; or a share of the training
    clips that is split off for it, whole recordings or speakers at a time where file names tell; 0 for none."""
    labels: Path | None = None
    """Label CSV (index, mid, display_name); folders of classes and CSV manifests do without."""
    root: Path | None = None
    """Where relative paths of the manifests start (default: the manifest's own folder)."""
    mean: AutoFloat = AUTO
    """Mean of the training data's log-mel; `auto` measures it, or keeps that of the model to be made flexible."""
    std: AutoFloat = AUTO
    """Standard deviation of the training data's log-mel; `auto` as for the mean."""
    sampling: Sampling = "shuffle"
    """`shuffle`: every clip once an epoch. `balanced`: drawn with replacement, rare classes more often (AST). `local`:
    every clip once an epoch, a few shards of `flexiast pack` at a time, for storage that seeks slowly."""
    batch_size: AutoInt = AUTO
    """Clips per optimizer step, over all processes together."""
    workers: AutoInt = AUTO
    """Decoding processes of each training process; 0 decodes in the training process."""
    timeout: float = 300
    """Seconds a decoding process may take for a batch before the run stops and names the file it was on."""
    max_bad: float = 0.01
    """Share of the training clips that may be unusable, but always 3 clips if they are no more than a quarter (0 allows
    none). Each is named in bad_files.csv and replaced by another clip; beyond that the run stops."""
    strict: bool = False
    """Stop at the first unusable clip."""

    val_where: str | None = None
    """Rows of the table that are validated on, such as fold=5; of the training table, unless data.val names another.
    The other rows are trained on, or those that data.where says."""

    flag_prefix: ClassVar[str] = "--data."

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.val_where is not None:
            Condition.parse(self.val_where, "--data.val-where")
            require(not isinstance(self.val, float), "data.val_where", self.val_where, "nothing beside a share")
        if self.batch_size is not AUTO:
            require(1 <= self.batch_size <= 1 << 20, "data.batch_size", self.batch_size, f"1 to {1 << 20}")
        if self.workers is not AUTO:
            require(0 <= self.workers <= MAX_WORKERS, "data.workers", self.workers, f"0 to {MAX_WORKERS}")
        require(0 < self.timeout <= 1e6, "data.timeout", self.timeout, "a positive number of seconds, at most 1e6")
        require(0 <= self.max_bad <= 1, "data.max_bad", self.max_bad, "a share from 0 to 1")
        if isinstance(self.val, float):
            require(0 <= self.val < 1, "data.val", self.val, "a path, or a share from 0 to below 1")
        require(self.std is AUTO or 0 < self.std < math.inf, "data.std", self.std, "a positive number")
        require(self.mean is AUTO or math.isfinite(self.mean), "data.mean", self.mean, "a finite number")

    def given(self) -> list[str]:
        """The options for tables that were set, as the command line calls them."""
        return [*super().given(), *(["--data.val-where"] if self.val_where is not None else [])]

    def of_splits(self, splits: Mapping[str, Path]) -> str:
        """The splits as `train` takes them."""
        return " ".join(f"--data.{kind} {path}" for kind, path in splits.items() if kind != "test")

    def train_table(self) -> DataConfig:
        """How the training table is read: less the rows that are validated on, unless `where` says which."""
        if self.val_where is None or self.where or self.val not in (AUTO, self.train):
            return self
        column, values, negated = Condition.parse(self.val_where, "--data.val-where")
        return dataclasses.replace(self, where=(str(Condition(column, values, not negated)),), val_where=None)

    def val_table(self) -> DataConfig:
        """How the validation table is read."""
        where = self.where if self.val_where is None else (self.val_where,)
        return dataclasses.replace(self, where=where, val_where=None)


@dataclasses.dataclass(frozen=True)
class FeatureOptions:
    """Feature settings; what is not given comes from the model trained from, else from `FeatureConfig`."""

    frames: AutoInt = AUTO
    """Frames of 10 ms per clip; `auto` takes them from the clips' lengths, or keeps those of the model to be made
    flexible."""
    downmix: Literal["mean", "first"] | None = None
    """Stereo to mono."""
    resampler: Literal["soxr", "sinc"] | None = None
    """How other sample rates are converted (default: as the model started from, else soxr)."""

    def resolve(
        self, start: FeatureConfig | None, mean: float | None = None, std: float | None = None
    ) -> FeatureConfig:
        """The settings given here, over those of the model started from, over the defaults."""
        given = dataclasses.asdict(self) | {"mean": mean, "std": std}
        given = {name: value for name, value in given.items() if value is not None}
        return dataclasses.replace(start or FeatureConfig(resampler="soxr"), **given)


@dataclasses.dataclass(frozen=True)
class ModelOptions:
    """The network, or the checkpoint it starts from."""

    init: str | None = None
    """What to start from: a checkpoint of any readable format (a fixed-patch model to flexify, an AudioSet AST), a
    Hub id, or `timm:NAME`, an ImageNet ViT or DeiT of timm. Its width and depth are kept, so `size`, `pool` and
    `prefix_tokens` must be left alone."""
    new_head: bool = False
    """Put a new classifier on it, even if its classes are as many as the data's, or the same."""
    size: Size | None = None
    """Width, depth and heads (default: base)."""
    patch_size: PatchArg | None = None
    """Base patch: the size of the stored kernel (default: 16, or the checkpoint's; another one resizes its kernel
    and positions once, before training)."""
    pool: Pool | None = None
    """What the classifier sees: prefix tokens, or the mean of the patch tokens, which learns sooner (default: mean)."""
    prefix_tokens: int | None = None
    """1: cls. 2: cls and distillation token (default: 1)."""
    coverage: Coverage | None = None
    """Bins and frames that fill no whole patch: dropped, as upstream does, or padded (default: the checkpoint's, or
    pad)."""

    def __post_init__(self) -> None:
        if self.init is not None:
            for name in ("size", "pool", "prefix_tokens"):
                require(getattr(self, name) is None, f"model.{name}", getattr(self, name), "nothing beside model.init")

    def architecture(self) -> dict[str, Any]:
        """Fields of `FlexiASTConfig` for a network from scratch."""
        given = {name: getattr(self, name) for name in ("patch_size", "pool", "prefix_tokens", "coverage")}
        given = {name: value for name, value in given.items() if value is not None}
        return SIZES[self.size or "base"] | {"pool": "mean"} | given


@dataclasses.dataclass(frozen=True)
class PatchOptions:
    """Patch sizes of training: one for a fixed model, several for a flexible one."""

    sizes: tuple[PatchArg, ...] = ()
    """Sizes drawn from, one per step (default: the base patch alone, a fixed-patch AST)."""
    weights: tuple[float, ...] = ()
    """Relative frequency of each size (default: all alike)."""


@dataclasses.dataclass(frozen=True)
class OptimConfig:
    """Optimizer and learning-rate schedule."""

    name: OptimizerName = "adamw"
    """`muon` takes the matrices of the blocks, AdamW the rest, as torch.optim.Muon is meant to be used."""
    lr: AutoFloat = AUTO
    """Peak learning rate of Adam or AdamW."""
    muon_lr: float = 0.02
    """Peak learning rate of Muon's matrices."""
    betas: tuple[float, float] = (0.9, 0.98)
    """Adam's decay rates (published: 0.95 0.999)."""
    weight_decay: float = 0.01
    """Weight decay (published: 5e-7); AdamW and Muon apply it to matrices only."""
    warmup_steps: AutoInt = AUTO
    """Steps of linear warm-up from zero (published: 1,000)."""
    schedule: Schedule = "cosine"
    """After warm-up: `constant`, `step` (step_factor every step_every epochs from step_from on), `cosine` to 0."""
    step_from: float = 2
    """First epoch, counted from 1, after which the rate drops under `step`."""
    step_every: float = 1
    """Epochs between drops under `step`."""
    step_factor: float = 0.5
    """Factor of each drop under `step`."""
    clip_norm: float = 0.0
    """Largest norm of the gradient, 0 for no clipping."""

    def __post_init__(self) -> None:
        for name in ("lr", "muon_lr", "step_every", "step_factor"):
            value = getattr(self, name)
            require(value is AUTO or 0 < value < math.inf, f"optim.{name}", value, "a positive number")
        for name in ("weight_decay", "warmup_steps", "clip_norm", "step_from"):
            value = getattr(self, name)
            require(value is AUTO or 0 <= value < math.inf, f"optim.{name}", value, "0 or more")
        require(all(0 <= b < 1 for b in self.betas), "optim.betas", self.betas, "two numbers from 0 to below 1")


@dataclasses.dataclass(frozen=True)
class DistillConfig:
    """Knowledge distillation from a frozen fixed-patch teacher."""

    teacher: str | None = None
    """Checkpoint of the teacher; none for supervised training."""
    patch_size: PatchArg | None = None
    """Patch size the teacher works at (default: its base patch)."""
    temperature: float = 1.0
    """Softens both distributions."""
    label_weight: float = 0.0
    """Share of the labels' own loss in the mix, 0 to 1."""
    clean_teacher: bool = False
    """Show the teacher the clip without augmentation; by default it sees what the student sees."""

    def __post_init__(self) -> None:
        require(0 < self.temperature < math.inf, "distill.temperature", self.temperature, "a positive number")
        require(0 <= self.label_weight <= 1, "distill.label_weight", self.label_weight, "a share from 0 to 1")
        for field in dataclasses.fields(self)[1:]:
            value = getattr(self, field.name)
            require(
                self.teacher is not None or value == field.default,
                f"distill.{field.name}",
                value,
                "nothing without distill.teacher",
            )


@dataclasses.dataclass(frozen=True)
class MemoryLimits:
    """How much of a batch a process passes through the network at once; 0 for no limit."""

    batch_size: int
    """Clips per optimizer step, over all processes together."""
    micro_batch: int = 0
    """Most clips per forward pass."""
    token_budget: int = 0
    """Most tokens (clips x patches) per forward pass."""


@dataclasses.dataclass(frozen=True)
class TrainConfig:
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
    """`ce`: one class per clip. `bce`: any number of classes. `auto`: chosen from the labels."""
    label_smoothing: float = 0.0
    """Share of the target that is spread over all classes."""
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
    """What the best model is chosen by: `auto` is accuracy with loss ce, mAP with bce."""
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
    """`auto`: bfloat16 autocast where the device has fast bfloat16, else float32."""
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
        most = 1_000_000
        if AUTO not in (self.epochs, self.eval_every):
            require(
                self.epochs / self.eval_every <= most,
                "eval_every",
                self.eval_every,
                f"at most {most} validations in {self.epochs:g} epochs",
            )
        require_distinct("eval_patch_sizes", self.eval_patch_sizes)
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

    @property
    def memory(self) -> MemoryLimits:
        """How much of a batch a process passes through the network at once."""
        return MemoryLimits(self.data.batch_size, self.micro_batch, self.token_budget)

    @property
    def selection_metric(self) -> str:
        """Name in `Metrics` of what the best model is chosen by."""
        return self.metric if self.metric != "auto" else "accuracy" if self.loss == "ce" else "mAP"
