"""Checkpoint formats: rules that turn their tensors into the network's, and back.

A format is one function that inspects a `Source` and, if it recognises it, returns a description: the network's
configuration, and for every tensor of the source a rule or a reason to ignore it. `convert` applies the rules
strictly: a tensor that is missing, unexplained or of the wrong shape is an error.
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
    """A network's configuration and weights, and everything else in its sidecar (features, labels, training)."""

    config: FlexiASTConfig
    state: State
    metadata: dict[str, Any] = dataclasses.field(default_factory=dict)
    report: LoadReport | None = None
    """What happened to every tensor of the source; None for a checkpoint that was not read from one."""


@dataclasses.dataclass
class Source:
    """The contents of a checkpoint file or directory, and what the caller knows about it."""

    path: Path
    """The file that holds the tensors."""
    state: State
    """Tensors by name, without wrapper prefixes such as DataParallel's `module.`."""
    sidecar: Mapping[str, Any] | None = None
    """The JSON description that comes with the weights (config.json, or in the file header)."""
    preprocessor: Mapping[str, Any] | None = None
    """preprocessor_config.json of a Hugging Face directory."""
    sidecar_path: Path | None = None
    """Path of the description, for error messages."""
    heads: int | None = None
    """Attention heads, if given by the caller."""
    frames: int | None = None
    """Frames of the input, if given by the caller."""
    bins: int = 128
    """Mel bins of the input, for sources that do not state them."""
    removed: str = ""
    """The wrapper prefix that was removed from all names."""

    def has(self, *names: str) -> bool:
        """Whether all of these tensors are present."""
        return self.state.keys() >= set(names)

    def need(self, name: str) -> Tensor:
        """The tensor of this name. Raises CheckpointError if it is missing."""
        if name not in self.state:
            raise CheckpointError(f"{self.path}: 1 tensors are missing ({name})")
        return self.state[name]

    def heads_for(self, width: int) -> int:
        """The heads given, or one per 64 of the width as in every ViT: a state dict does not record them."""
        return self.heads or max(1, width // 64)

    def check_depth(self, depth: int) -> None:
        """Raise CheckpointError, before any block is built, if more blocks are described than there are tensors."""
        if depth > len(self.state):
            raise CheckpointError(f"{self.sidecar_path}: found {depth} blocks, but only {len(self.state)} tensors")

    def depth(self, pattern: str) -> int:
        """Number of distinct blocks; `pattern` captures the block number in a tensor name."""
        matches = (re.match(pattern, name) for name in self.state)
        return max(1, len({match[1] for match in matches if match}))


@dataclasses.dataclass(frozen=True)
class Rule:
    """How some tensors of the source become tensors of the network, and the way back."""

    theirs: tuple[str, ...]
    ours: tuple[str, ...]
    read: Callable[..., Iterable[Tensor]]
    """Our tensors from theirs, in the order of the names."""
    write: Callable[..., Iterable[Tensor]] | None = None
    """Their tensors from ours; None where reading loses information."""
    how: str = ""
    """The conversion in words; empty if the tensor is unchanged."""


def same(theirs: str, ours: str) -> Rule:
    """Rule for a tensor that is only renamed."""
    return Rule((theirs,), (ours,), lambda tensor: (tensor,), lambda tensor: (tensor,))


@dataclasses.dataclass
class Description:
    """A format's description of a source."""

    config: FlexiASTConfig
    rules: list[Rule]
    metadata: dict[str, Any] = dataclasses.field(default_factory=dict)
    ignored: dict[str, str] = dataclasses.field(default_factory=dict)
    """Name prefixes of unused tensors, each with the reason."""
    new: dict[str, tuple[Tensor, str]] = dataclasses.field(default_factory=dict)
    """Tensors of the network that the source does not have: value and reason."""
    notes: list[str] = dataclasses.field(default_factory=list)


@dataclasses.dataclass(frozen=True)
class Format:
    """A readable kind of checkpoint."""

    name: str
    describe: Callable[[Source], Description | None]
    """Describe the source, or return None if it is of another kind (recognised by content, never by file name)."""
    names: str = r"$^"
    """Regular expression for its tensor names: the error for an unknown file names the nearest format."""


def network_state(config: FlexiASTConfig) -> State:
    """Names and shapes of a network's tensors, on the meta device: no memory for the values."""
    with torch.device("meta"):
        return FlexiAST(config).state_dict()


def convert(source: Source, form: Format, description: Description, origin: str) -> Checkpoint:
    """Apply the rules strictly. origin: the source as named by the user, for the report.

    Raises CheckpointError, with the names used in the source, for a tensor that is missing, unexplained or of the wrong
    shape.
    """
    state, path = source.state, source.path
    reasons = {n: why for n in state for start, why in description.ignored.items() if n.startswith(start)}
    ruled = [name for rule in description.rules for name in rule.theirs]
    if missing := set(ruled) - state.keys():
        raise CheckpointError(f"{path}: {len(missing)} tensors are missing ({some(missing)})")
    if extra := state.keys() - set(ruled) - reasons.keys():
        raise CheckpointError(f"{path}: {len(extra)} tensors are unexplained ({some(extra)})")
    expected = network_state(description.config)
    ours: State = {}
    report = LoadReport(origin, form.name, notes=list(description.notes))
    for rule in description.rules:
        tensors = [state[name] for name in rule.theirs]
        ours |= _apply(rule, tensors, expected, path)
        how = ", ".join(filter(None, [rule.how, *_casts(tensors)]))
        action: Action = "converted" if how else "used"
        report.entries.append(Entry(action, rule.theirs, rule.ours, how))
    report.entries += [Entry("ignored", (name,), (), why) for name, why in reasons.items() if name not in ruled]
    for name, (tensor, why) in description.new.items():
        ours[name] = tensor
        report.entries.append(Entry("new", (), (name,), why))
    if wrong := ours.keys() ^ expected.keys():
        raise CheckpointError(f"{path}: as {form.name} it leaves tensors of the network unexplained ({some(wrong)})")
    return Checkpoint(description.config, ours, description.metadata, report)


def _casts(tensors: list[Tensor]) -> list[str]:
    kinds = {str(t.dtype).removeprefix("torch.") for t in tensors if t.dtype != torch.float32}
    return [f"{kind} to float32" for kind in sorted(kinds)]


def _apply(rule: Rule, tensors: list[Tensor], expected: Mapping[str, Tensor], path: Path) -> State:
    """Our tensors by this rule. Raises CheckpointError if theirs, or ours made from them, have the wrong shape."""
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
    """Our checkpoint as the tensors of another format, exactly. Raises ConfigError if a rule cannot be reversed."""
    theirs: State = {}
    for rule in rules:
        if rule.write is None:
            raise ConfigError(f"{' + '.join(rule.ours)}: what the reader changes cannot be written back")
        tensors = rule.write(*(checkpoint.state[name] for name in rule.ours))
        theirs |= {name: tensor.detach().cpu().contiguous() for name, tensor in zip(rule.theirs, tensors, strict=True)}
    return theirs
