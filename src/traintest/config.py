"""The training configuration: frozen dataclasses, checked on construction, turned into the command line by tyro."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import tyro

from ..data.augment import AugmentConfig
from ..errors import ConfigError
from ..features import FeatureConfig
from ..models.flexiast import SIZES, Pool
from ..models.geometry import Coverage, PatchSize
from .losses import Loss

PatchArg = Annotated[
    PatchSize,
    tyro.constructors.PrimitiveConstructorSpec(
        nargs=1,
        metavar="INT|FxT",
        instance_from_str=lambda args: PatchSize.parse(args[0]),
        is_instance=lambda value: isinstance(value, PatchSize),
        str_from_instance=lambda patch: [str(patch)],
    ),
]
"""A patch size on the command line: `16` or `16x32` (freq x time)."""

Size = Literal["micro", "tiny", "small", "base"]
OptimizerName = Literal["adam", "adamw", "muon"]
Schedule = Literal["constant", "step", "cosine"]
Precision = Literal["auto", "fp32", "bf16"]


def _require(condition: bool, field: str, found: object, expected: str) -> None:
    if not condition:
        raise ConfigError(f"{field}: found {found}, expected {expected}")


@dataclasses.dataclass(frozen=True)
class DataConfig:
    """Where the clips are and how they are read."""

    train: Path
    """Manifest JSON, or a folder with one sub-folder per class."""
    val: Path | None = None
    """Manifest or folder that models are compared on during training; never the test set."""
    labels: Path | None = None
    """Label CSV (index, mid, display_name); folders of classes do without."""
    root: Path | None = None
    """Where relative paths of the manifests start (default: the manifest's own folder)."""
    batch_size: int = 12
    """Clips per step."""
    workers: int = 2
    """Decoding processes; 0 decodes in the training process."""

    def __post_init__(self) -> None:
        _require(self.batch_size >= 1, "data.batch_size", self.batch_size, "at least 1")
        _require(self.workers >= 0, "data.workers", self.workers, "0 or more")


@dataclasses.dataclass(frozen=True)
class FeatureOptions:
    """Feature settings; what is not given comes from the model trained from, else from `FeatureConfig`."""

    frames: int | None = None
    """Frames of 10 ms per clip."""
    mean: float | None = None
    """Mean of the training data's log-mel."""
    std: float | None = None
    """Standard deviation of the training data's log-mel."""
    downmix: Literal["mean", "first"] | None = None
    """Stereo to mono."""

    def resolve(self, start: FeatureConfig | None) -> FeatureConfig:
        """The settings given here, over those of the model started from, over the defaults."""
        given = {name: value for name, value in dataclasses.asdict(self).items() if value is not None}
        return dataclasses.replace(start or FeatureConfig(), **given)


@dataclasses.dataclass(frozen=True)
class ModelOptions:
    """The network, or the checkpoint it starts from."""

    init: Path | None = None
    """Checkpoint to start from (a fixed-patch model to flexify, say); its architecture is kept, and all
    fields below must be left alone, except `coverage`."""
    size: Size | None = None
    """Width, depth and heads (default: base)."""
    patch_size: PatchArg | None = None
    """Base patch: the size of the stored kernel (default: 16)."""
    pool: Pool | None = None
    """What the classifier sees: prefix tokens or mean of the patch tokens (default: cls)."""
    prefix_tokens: int | None = None
    """1: cls. 2: cls and distillation token (default: 1)."""
    coverage: Coverage | None = None
    """Bins and frames that fill no whole patch: dropped, as upstream does, or padded (default: the checkpoint's, or
    pad)."""

    def __post_init__(self) -> None:
        if self.init is not None:
            for name in ("size", "patch_size", "pool", "prefix_tokens"):
                _require(getattr(self, name) is None, f"model.{name}", getattr(self, name), "nothing beside model.init")

    def architecture(self) -> dict[str, Any]:
        """Fields of `FlexiASTConfig` for a network from scratch."""
        given = {n: getattr(self, n) for n in ("patch_size", "pool", "prefix_tokens", "coverage")}
        return SIZES[self.size or "base"] | {name: value for name, value in given.items() if value is not None}


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

    name: OptimizerName = "adam"
    """`muon` takes the matrices of the blocks, AdamW the rest, as torch.optim.Muon is meant to be used."""
    lr: float = 1e-5
    """Peak learning rate of Adam or AdamW."""
    muon_lr: float = 0.02
    """Peak learning rate of Muon's matrices."""
    betas: tuple[float, float] = (0.95, 0.999)
    """Adam's decay rates (FlexiAST and AST)."""
    weight_decay: float = 5e-7
    """Weight decay (FlexiAST and AST); applied to matrices only by AdamW and Muon."""
    warmup_steps: int = 1000
    """Steps of linear warm-up from zero."""
    schedule: Schedule = "step"
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
            _require(getattr(self, name) > 0, f"optim.{name}", getattr(self, name), "a positive number")
        for name in ("weight_decay", "warmup_steps", "clip_norm", "step_from"):
            _require(getattr(self, name) >= 0, f"optim.{name}", getattr(self, name), "0 or more")
        _require(all(0 <= b < 1 for b in self.betas), "optim.betas", self.betas, "two numbers from 0 to below 1")


@dataclasses.dataclass(frozen=True)
class DistillConfig:
    """Knowledge distillation from a frozen fixed-patch teacher."""

    teacher: Path | None = None
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
        _require(self.temperature > 0, "distill.temperature", self.temperature, "a positive number")
        _require(0 <= self.label_weight <= 1, "distill.label_weight", self.label_weight, "a share from 0 to 1")


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """Train a fixed or a flexible model, or go on with an interrupted run."""

    out: Path
    """Run directory: model, checkpoint, log and configuration are written here."""
    data: DataConfig
    features: FeatureOptions = FeatureOptions()
    model: ModelOptions = ModelOptions()
    patches: PatchOptions = PatchOptions()
    optim: OptimConfig = OptimConfig()
    augment: AugmentConfig = AugmentConfig()
    distill: DistillConfig = DistillConfig()
    loss: Loss = "ce"
    """`ce`: one class per clip. `bce`: any number of classes."""
    label_smoothing: float = 0.0
    """Share of the target that is spread over all classes."""
    epochs: float = 20
    """Passes over the training clips; a fraction is fine."""
    seed: int = 0
    """Sets initial weights, order of clips, augmentation and patch sizes."""
    eval_patch_sizes: tuple[PatchArg, ...] = ()
    """Sizes validated at (default: those trained at). The best model is the one with the best mean over them."""
    eval_every: float = 1
    """Epochs between validations; the last epoch is always validated."""
    average_from: float = 0
    """Average the weights at every validation from this epoch on; 0 for no averaging."""
    save_every: int = 1000
    """Steps between checkpoints; each validation saves one too."""
    log_every: int = 20
    """Steps per line of the log."""
    precision: Precision = "auto"
    """`auto`: bfloat16 autocast where the device has fast bfloat16, else float32."""
    device: str = "auto"
    """`auto`: the GPU where there is one, else the CPU."""
    threads: int = 0
    """CPU threads of the training process, 0 for torch's own choice."""

    def __post_init__(self) -> None:
        _require(self.epochs > 0, "epochs", self.epochs, "a positive number")
        _require(self.eval_every > 0, "eval_every", self.eval_every, "a positive number")
        for name in ("save_every", "log_every"):
            _require(getattr(self, name) >= 1, name, getattr(self, name), "at least 1")
        for name in ("seed", "average_from", "threads"):
            _require(getattr(self, name) >= 0, name, getattr(self, name), "0 or more")
        _require(0 <= self.label_smoothing < 1, "label_smoothing", self.label_smoothing, "a share from 0 to below 1")


def to_json(value: Any) -> Any:
    """A configuration as JSON-ready values: patch sizes and paths as text."""
    if isinstance(value, PatchSize):
        return str(value)
    if dataclasses.is_dataclass(value):
        return {f.name: to_json(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, (tuple, list)):
        return [to_json(v) for v in value]
    return str(value) if isinstance(value, Path) else value


# Settings that may differ between the two halves of an interrupted run: they do not change what is learnt.
FREE_SETTINGS = frozenset(
    {"out", "data.workers", "device", "threads", "save_every", "log_every", "data.root", "data.train", "data.val"}
)


def differences(old: Mapping[str, Any], new: Mapping[str, Any], prefix: str = "") -> list[str]:
    """Settings that two configurations (as JSON) disagree on, `name: old -> new`, those in FREE_SETTINGS left out."""
    found = []
    for name in sorted(old.keys() | new.keys()):
        path, a, b = prefix + name, old.get(name), new.get(name)
        if isinstance(a, dict) and isinstance(b, dict):
            found += differences(a, b, path + ".")
        elif a != b and path not in FREE_SETTINGS:
            found.append(f"{path}: {json.dumps(a)} -> {json.dumps(b)}")
    return found


assert set(get_args(Size)) == set(SIZES)
