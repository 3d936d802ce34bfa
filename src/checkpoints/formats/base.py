"""What a checkpoint format is: rules from its tensors to the network's, and back.

A format is one function that looks at a `Source` and, if the source is of its kind, describes it: the network's
configuration, and for every tensor of the source a rule or a reason to ignore it. `convert` applies the rules and
holds the source to them: a tensor that is missing, unexplained or of the wrong shape is an error.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ...errors import CheckpointError, ConfigError
from ...models.config import FlexiASTConfig
from ...models.flexiast import FlexiAST
from ..load_report import Action, Entry, LoadReport
from ..tensors import State, some


@dataclasses.dataclass
class Checkpoint:
    """A network's configuration and weights, and whatever else its sidecar says (features, labels, training)."""

    config: FlexiASTConfig
    state: State
    metadata: dict[str, Any] = dataclasses.field(default_factory=dict)
    report: LoadReport | None = None
    """What became of every tensor of the source; none for a checkpoint that was not read."""


@dataclasses.dataclass
class Source:
    """What was found, and what the caller knows of it."""

    path: Path
    """The file that holds the tensors."""
    state: State
    """Tensors by name, without the `module.` of DataParallel and the like."""
    sidecar: Mapping[str, Any] | None = None
    """The JSON description that came with the weights (config.json, or in the header of the file)."""
    preprocessor: Mapping[str, Any] | None = None
    """preprocessor_config.json of a Hugging Face directory."""
    sidecar_path: Path | None = None
    """Where the description lies, for errors."""
    heads: int | None = None
    """Attention heads, where the caller gave them."""
    frames: int | None = None
    """Frames of the input, where the caller gave them."""
    bins: int = 128
    """Mel bins of the input, where the source does not tell."""
    removed: str = ""
    """What all names began with, and is left out."""

    def has(self, *names: str) -> bool:
        """Whether all of these tensors are there."""
        return self.state.keys() >= set(names)

    def need(self, name: str) -> Tensor:
        """The tensor of this name. Raises CheckpointError if it is missing."""
        if name not in self.state:
            raise CheckpointError(f"{self.path}: 1 tensors are missing ({name})")
        return self.state[name]

    def heads_for(self, width: int) -> int:
        """The heads given, or one per 64 of the width as in every ViT: a state dict does not tell."""
        return self.heads or max(1, width // 64)

    def check_depth(self, depth: int) -> None:
        """Raise CheckpointError if the description promises more blocks than there can be, before they are built."""
        if depth > len(self.state):
            raise CheckpointError(f"{self.sidecar_path}: found {depth} blocks, but only {len(self.state)} tensors")

    def depth(self, pattern: str) -> int:
        """Number of different blocks; `pattern` finds a block's number in a name."""
        found = (re.match(pattern, name) for name in self.state)
        return max(1, len({match[1] for match in found if match}))


@dataclasses.dataclass(frozen=True)
class Rule:
    """How some tensors of the source become some of the network's, and how to go back."""

    theirs: tuple[str, ...]
    ours: tuple[str, ...]
    read: Callable[..., Iterable[Tensor]]
    """Our tensors from theirs, in the order of the names."""
    write: Callable[..., Iterable[Tensor]] | None = None
    """Their tensors from ours; none where something is lost on the way in."""
    how: str = ""
    """What the conversion is, in words; empty if the tensor is taken as it is."""


def same(theirs: str, ours: str) -> Rule:
    """A tensor that only has another name."""
    return Rule((theirs,), (ours,), lambda tensor: (tensor,), lambda tensor: (tensor,))


@dataclasses.dataclass
class Description:
    """What a format says of a source."""

    config: FlexiASTConfig
    rules: list[Rule]
    metadata: dict[str, Any] = dataclasses.field(default_factory=dict)
    ignored: dict[str, str] = dataclasses.field(default_factory=dict)
    """Starts of the names of tensors that are not used, each with the reason."""
    new: dict[str, tuple[Tensor, str]] = dataclasses.field(default_factory=dict)
    """The network's tensors that the source has nothing for: their values, and the reason."""
    notes: list[str] = dataclasses.field(default_factory=list)


@dataclasses.dataclass(frozen=True)
class Format:
    """A kind of checkpoint that can be read."""

    name: str
    describe: Callable[[Source], Description | None]
    """Describe the source, or return None if it is of another kind (told by content, never by name)."""
    names: str = r"$^"
    """Regular expression of its tensor names: with it an unknown file is told which format it is nearest to."""


def network_state(config: FlexiASTConfig) -> State:
    """Names and shapes of a network's tensors, without memory for their values."""
    with torch.device("meta"):
        return FlexiAST(config).state_dict()


def convert(source: Source, form: Format, found: Description, origin: str) -> Checkpoint:
    """Apply the rules strictly. origin: what the user named, for the report.

    Raises CheckpointError, with the source's own names, for a tensor that is missing, unexplained or of the wrong
    shape.
    """
    state, path = source.state, source.path
    reasons = {n: why for n in state for start, why in found.ignored.items() if n.startswith(start)}
    ruled = [name for rule in found.rules for name in rule.theirs]
    if missing := set(ruled) - state.keys():
        raise CheckpointError(f"{path}: {len(missing)} tensors are missing ({some(missing)})")
    if extra := state.keys() - set(ruled) - reasons.keys():
        raise CheckpointError(f"{path}: {len(extra)} tensors are unexplained ({some(extra)})")
    expected = network_state(found.config)
    ours: State = {}
    report = LoadReport(origin, form.name, notes=list(found.notes))
    for rule in found.rules:
        tensors = [state[name] for name in rule.theirs]
        ours |= _apply(rule, tensors, expected, path)
        how = ", ".join(filter(None, [rule.how, *_casts(tensors)]))
        action: Action = "converted" if how else "used"
        report.entries.append(Entry(action, rule.theirs, rule.ours, how))
    report.entries += [Entry("ignored", (name,), (), why) for name, why in reasons.items() if name not in ruled]
    for name, (tensor, why) in found.new.items():
        ours[name] = tensor
        report.entries.append(Entry("new", (), (name,), why))
    if wrong := ours.keys() ^ expected.keys():
        raise CheckpointError(f"{path}: as {form.name} it leaves tensors of the network unexplained ({some(wrong)})")
    return Checkpoint(found.config, ours, found.metadata, report)


def _casts(tensors: list[Tensor]) -> list[str]:
    kinds = {str(t.dtype).removeprefix("torch.") for t in tensors if t.dtype != torch.float32}
    return [f"{kind} to float32" for kind in sorted(kinds)]


def _apply(rule: Rule, tensors: list[Tensor], expected: Mapping[str, Tensor], path: Path) -> State:
    """Our tensors by this rule. Raises CheckpointError if theirs, or ours made of them, have the wrong shape."""
    if rule.write is not None:
        shapes = [tensor.shape for tensor in rule.write(*(expected[name] for name in rule.ours))]
        for name, tensor, shape in zip(rule.theirs, tensors, shapes, strict=True):
            if tensor.shape != shape:
                raise CheckpointError(f"{path}: tensor {name} has shape {tuple(tensor.shape)}, expected {tuple(shape)}")
    ours = {name: tensor.float() for name, tensor in zip(rule.ours, rule.read(*tensors), strict=True)}
    for name, tensor in ours.items():
        if tensor.shape != expected[name].shape:
            raise CheckpointError(
                f"{path}: tensor {' + '.join(rule.theirs)} gives {name} the shape {tuple(tensor.shape)},"
                f" expected {tuple(expected[name].shape)}"
            )
    return ours


def revert(checkpoint: Checkpoint, rules: list[Rule]) -> State:
    """The tensors of a format whose rules all go both ways, from a checkpoint of ours; exact."""
    theirs: State = {}
    for rule in rules:
        if rule.write is None:
            raise ConfigError(f"{' + '.join(rule.ours)}: what the reader changes cannot be written back")
        tensors = rule.write(*(checkpoint.state[name] for name in rule.ours))
        theirs |= {name: tensor.detach().cpu().contiguous() for name, tensor in zip(rule.theirs, tensors, strict=True)}
    return theirs
