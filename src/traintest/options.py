"""The sections of the training configuration: frozen dataclasses, checked on construction."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal, get_args

from ..data.hugging_face import is_dataset
from ..data.table_options import Condition, TableOptions
from ..data.workers import MAX_WORKERS
from ..errors import require
from ..features import FeatureConfig, Length
from ..models.config import SIZES, Pool
from ..models.geometry import Coverage
from ..runtime.arguments import AUTO, AutoFloat, AutoInt, PatchArg, PathOrShare

Size = Literal["micro", "tiny", "small", "base"]
OptimizerName = Literal["adam", "adamw", "muon"]
Schedule = Literal["constant", "step", "cosine"]
Sampling = Literal["shuffle", "balanced", "local"]
Draw = Literal["uniform", "equal-cost", "coarse", "coarse-to-fine"]


@dataclasses.dataclass(frozen=True)
class DataConfig(TableOptions):
    """Where the clips are and how they are read."""

    train: Path
    """Manifest JSON, table (CSV, TSV, JSONL) of files and labels, a folder with one sub-folder per class, WebDataset
    tars, parquet files, or `hf:NAME[:split]`, a data set of Hugging Face (extra `data`); any file of these also at an
    address such as s3://bucket/train-{000..012}.tar, fetched once."""
    val: PathOrShare = AUTO
    """Validation data, never the test set: a manifest or folder, or the share of the training clips to split off, whole
    recordings or speakers at a time where file names tell; 0 for none."""
    labels: Path | None = None
    """Label CSV (index, mid, display_name); folders of classes and CSV manifests do without."""
    root: Path | None = None
    """Where relative paths of the manifests start (default: the manifest's own folder)."""
    mean: AutoFloat = AUTO
    """Mean of the training data's log-mel; `auto` measures it, or keeps that of the model to be made flexible."""
    std: AutoFloat = AUTO
    """Standard deviation of the training data's log-mel; `auto` as for the mean."""
    length: Length | None = None
    """Clips shorter than the window: padded to it (`window`), or heard at their own length, in training and ever after
    (`native`); half as long then costs half (default: as the model started from, else window)."""
    sampling: Sampling = "shuffle"
    """`shuffle`: every clip once an epoch. `balanced`: drawn with replacement, rare classes more often (AST). `local`:
    every clip once an epoch, a few shards of `flexiast pack` at a time, for storage that seeks slowly."""
    streaming: bool = False
    """Fetch parquet files, here or at an address, or `hf:NAME[:split]`, in pieces as their clips are heard, and keep
    FLEXIAST_STREAM_GB (20) gigabytes of them: for sets that do not fit the disk. Clips are shuffled among some
    thousands; validation data of this kind are streamed too."""
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
        if self.streaming:
            of_few = (
                "shuffle with data.streaming, as few pieces are there at a time; rare classes: class_weights balanced"
            )
            require(self.sampling == "shuffle", "data.sampling", self.sampling, of_few)
        require(self.std is AUTO or 0 < self.std < math.inf, "data.std", self.std, "a positive number")
        require(self.mean is AUTO or math.isfinite(self.mean), "data.mean", self.mean, "a finite number")

    def streams(self, source: Path) -> bool:
        """Whether validation data are streamed too: with `streaming`, if they can be."""
        return self.streaming and is_dataset(source)

    def given(self) -> list[str]:
        """The options for tables that were set, as the command line calls them."""
        return [*super().given(), *(["--data.val-where"] if self.val_where is not None else [])]

    def of_splits(self, splits: Mapping[str, Path]) -> str:
        """The splits as `train` takes them."""
        return " ".join(f"--data.{kind} {path}" for kind, path in splits.items() if kind != "test")

    def train_table(self) -> DataConfig:
        """How the training table is read: without the rows that are validated on, unless `where` says which."""
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
    """Frames per clip; `auto` takes them from the clips' lengths, or keeps those of the model to be made flexible."""
    sample_rate: int | None = None
    """Sample rate in Hz that audio is converted to (default: as the model started from, else 16,000)."""
    bins: int | None = None
    """Mel bins, from 20 Hz to half the sample rate (default: as the model started from, else 128)."""
    window_ms: float | None = None
    """Length of a frame's window in milliseconds (default: as the model started from, else 25)."""
    hop_ms: float | None = None
    """Milliseconds from one frame to the next (default: as the model started from, else 10)."""
    downmix: Literal["mean", "first"] | None = None
    """Stereo to mono."""
    resampler: Literal["soxr", "sinc"] | None = None
    """How other sample rates are converted (default: as the model started from, else soxr)."""

    def resolve(
        self,
        start: FeatureConfig | None,
        mean: float | None = None,
        std: float | None = None,
        length: Length | None = None,
    ) -> FeatureConfig:
        """The settings given here, over those of the model started from, over the defaults."""
        given = dataclasses.asdict(self) | {"mean": mean, "std": std, "length": length}
        given = {name: value for name, value in given.items() if value is not None}
        return dataclasses.replace(start or FeatureConfig(resampler="soxr"), **given)

    def same_front_end(self, start: FeatureConfig) -> bool:
        """Whether the frames and statistics of the model started from still hold: nothing that they measure changes."""
        asked = self.resolve(start)
        names = ("sample_rate", "bins", "window_ms", "hop_ms")
        return all(getattr(asked, name) == getattr(start, name) for name in names)


@dataclasses.dataclass(frozen=True)
class ModelOptions:
    """The network, or the checkpoint it starts from."""

    init: str | None = None
    """What to start from: a checkpoint of any readable format (a fixed-patch model to flexify, an AudioSet AST), a
    Hub id, or `timm:NAME`, an ImageNet ViT or DeiT of timm. Its width and depth are kept, so `size`, `pool` and
    `prefix_tokens` must be left alone."""
    new_head: bool = False
    """Put a new classifier on it, even if its classes are those of the data."""
    size: Size | None = None
    """Width, depth and heads (default: by the number of clips)."""
    patch_size: PatchArg | None = None
    """Base patch: the size of the stored kernel (default: 16, or the checkpoint's; another one resizes its kernel
    and positions once, before training)."""
    pool: Pool | None = None
    """What the classifier sees: the prefix tokens, or the mean of the patch tokens, which learns
    faster (default: mean)."""
    prefix_tokens: int | None = None
    """1: cls. 2: cls and distillation token (default: 1)."""
    coverage: Coverage | None = None
    """Bins and frames that fill no whole patch: dropped, as upstream does, or padded (default: the checkpoint's, or
    pad)."""
    drop_path: float = 0.0
    """Share of clips that skip the last block in training, less in earlier ones (stochastic depth); 0 for none."""

    def __post_init__(self) -> None:
        if self.init is not None:
            for name in ("size", "pool", "prefix_tokens"):
                require(getattr(self, name) is None, f"model.{name}", getattr(self, name), "nothing beside model.init")
        require(0 <= self.drop_path < 1, "model.drop_path", self.drop_path, "a share from 0 to below 1")

    def architecture(self) -> dict[str, Any]:
        """Fields of `FlexiASTConfig` for a network from scratch."""
        given = {name: getattr(self, name) for name in ("patch_size", "pool", "prefix_tokens", "coverage")}
        given = {name: value for name, value in given.items() if value is not None}
        return SIZES[self.size or "base"] | {"pool": "mean"} | given


@dataclasses.dataclass(frozen=True)
class PatchOptions:
    """Patch sizes of training: one for a fixed model, several for a flexible one."""

    sizes: tuple[PatchArg, ...] = ()
    """Sizes drawn from at every step (default: the base patch alone, a fixed-patch AST)."""
    weights: tuple[float, ...] = ()
    """Relative frequency of each size, instead of `draw`."""
    rectangles: Literal["auto", "yes", "no"] = "auto"
    """Whether half of the draws are rectangles, whose two sides are each a side of one of `sizes`; `draw` holds for
    either half. `auto`: only by `flexify` where no sizes are given."""
    draw: Draw | None = None
    """How often each size is drawn (default: uniform; `flexify` without sizes: coarse-to-fine). `uniform`: all alike,
    as published. `equal-cost`: each gets the same compute. `coarse`: with the 1.6th power of the side.
    `coarse-to-fine`: from mostly coarse sizes at the start of the run to mostly fine ones at its end."""
    parts: int = 1
    """Parts of a batch that have different patch sizes."""
    dropout: float | None = None
    """Share of a clip's patches that are left out at random in a step, but never below 24 (default: 0; `flexify`
    without sizes: 0.67). Fine sizes then cost less, which pays for more steps."""

    def __post_init__(self) -> None:
        require(not self.weights or self.draw in (None, "uniform"), "patches.weights", self.weights, "none beside draw")
        require(self.parts >= 1, "patches.parts", self.parts, "1 or more")
        require(
            self.dropout is None or 0 <= self.dropout < 1, "patches.dropout", self.dropout, "a share from 0 to below 1"
        )


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
    layer_decay: float = 1.0
    """Factor of the learning rate from each block to the one below it, for fine-tuning (usual: 0.65 to 0.9); 1 for the
    same rate everywhere."""
    head_lr: float | None = None
    """Peak learning rate of the classifier (default: as `lr`)."""

    def __post_init__(self) -> None:
        for name in ("lr", "muon_lr", "step_every", "step_factor"):
            value = getattr(self, name)
            require(value is AUTO or 0 < value < math.inf, f"optim.{name}", value, "a positive number")
        for name in ("weight_decay", "warmup_steps", "clip_norm", "step_from"):
            value = getattr(self, name)
            require(value is AUTO or 0 <= value < math.inf, f"optim.{name}", value, "0 or more")
        require(0 < self.layer_decay <= 1, "optim.layer_decay", self.layer_decay, "above 0 to 1")
        require(self.head_lr is None or 0 < self.head_lr < math.inf, "optim.head_lr", self.head_lr, "a positive number")
        require(all(0 <= b < 1 for b in self.betas), "optim.betas", self.betas, "two numbers from 0 to below 1")


@dataclasses.dataclass(frozen=True)
class DistillConfig:
    """Knowledge distillation from a frozen fixed-patch teacher."""

    teacher: str | None = None
    """Checkpoint of the teacher; none for supervised training."""
    scores: Path | None = None
    """Instead of a teacher: file of its scores of every training clip (*.npz or *.parquet, see `flexiast score`), of
    any model; classes are matched by name."""
    patch_size: PatchArg | None = None
    """Patch size the teacher works at (default: its base patch)."""
    temperature: float = 1.0
    """Softens both distributions."""
    label_weight: float = 0.0
    """Share of the labels' own loss in the mix, 0 to 1."""
    clean_teacher: bool = False
    """Show the teacher the clip without augmentation of the log-mel; by default it sees what the student sees.
    A teacher with another front end never sees masks, noise and shifts of the log-mel."""

    def __post_init__(self) -> None:
        require(0 < self.temperature < math.inf, "distill.temperature", self.temperature, "a positive number")
        require(0 <= self.label_weight <= 1, "distill.label_weight", self.label_weight, "a share from 0 to 1")
        require(self.teacher is None or self.scores is None, "distill.scores", self.scores, "none beside a teacher")
        for field in dataclasses.fields(self)[2:]:
            value, for_teacher = getattr(self, field.name), field.name in ("patch_size", "clean_teacher")
            require(
                self.teacher is not None or value == field.default or (self.scores is not None and not for_teacher),
                f"distill.{field.name}",
                value,
                "nothing without distill.teacher" + ("" if for_teacher else " or distill.scores"),
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


assert set(get_args(Size)) == set(SIZES)
