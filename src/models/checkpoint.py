"""Weights on disk: our own format written and read, released FlexiAST state dicts read; strict, and running no code.

Our format is a directory with `model.safetensors` (the weights) and `config.json` (what is needed to rebuild and
use the network). A format is recognised by what a file holds, never by its name.
"""

from __future__ import annotations

import dataclasses
import json
import os
import pickle
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import safetensors
import torch
from safetensors.torch import load_file, save
from torch import Tensor

from ..errors import CheckpointError, FlexiASTError
from .flexiast import FlexiAST, FlexiASTConfig
from .geometry import PatchSize

WEIGHTS, SIDECAR = "model.safetensors", "config.json"
FORMAT = "flexiast-1"

State = dict[str, Tensor]


@dataclasses.dataclass
class Checkpoint:
    """A network's configuration and weights, and whatever else its sidecar says (features, labels, training)."""

    config: FlexiASTConfig
    state: State
    metadata: dict[str, Any] = dataclasses.field(default_factory=dict)
    ignored: dict[str, str] = dataclasses.field(default_factory=dict)
    """Tensors of the source that were not used, each with the reason."""


def write_atomically(path: Path, data: bytes) -> None:
    """Replace the file at `path` whole: a reader sees the old content or the new, never a part."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    try:
        with open(part, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def save_checkpoint(directory: Path, checkpoint: Checkpoint) -> None:
    """Write our format into `directory`; metadata must be JSON. The weights come last, each file atomically."""
    sidecar = {"format": FORMAT, "model": dataclasses.asdict(checkpoint.config), **checkpoint.metadata}
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in checkpoint.state.items()}
    write_atomically(directory / SIDECAR, (json.dumps(sidecar, indent=1) + "\n").encode())
    write_atomically(directory / WEIGHTS, save(state, {"format": FORMAT}))


def read_checkpoint(source: Path, heads: int | None = None) -> Checkpoint:
    """Read a directory of our format, or a state dict of a known format (.pth, .safetensors).

    heads: attention heads, which a state dict does not tell; by default one per 64 of the width, as in every ViT.
    Raises CheckpointError that names the file and what is wrong with it: missing, unreadable, of no known format,
    a tensor that is missing, unexplained or of the wrong shape.
    """
    source = Path(source)
    if source.is_dir():
        return _read_own(source)
    if not source.exists():
        raise CheckpointError(
            f"{source}: no such checkpoint, expected a directory with {WEIGHTS} and {SIDECAR}, or a file"
        )
    state = _read_tensors(source)
    for recognise, convert in FORMATS:
        if recognise(state):
            checkpoint = convert(state, source, heads)
            check_state(checkpoint.config, checkpoint.state, source)
            return checkpoint
    raise CheckpointError(
        f"{source}: found {len(state)} tensors ({_some(state)}), expected a FlexiAST state dict"
        f" (patch_embed.proj.weight, pos_embed.pos_embed, v.blocks.*, mlp_head.*) or the directory of a model"
    )


def check_state(config: FlexiASTConfig, state: Mapping[str, Tensor], source: Path) -> None:
    """Raise CheckpointError unless `state` holds exactly the tensors of a network of this configuration."""
    with torch.device("meta"):
        expected = FlexiAST(config).state_dict()
    if missing := expected.keys() - state.keys():
        raise CheckpointError(f"{source}: {len(missing)} tensors are missing ({_some(missing)})")
    if extra := state.keys() - expected.keys():
        raise CheckpointError(f"{source}: {len(extra)} tensors are unexplained ({_some(extra)})")
    for name, tensor in expected.items():
        if state[name].shape != tensor.shape:
            raise CheckpointError(
                f"{source}: tensor {name} has shape {tuple(state[name].shape)}, expected {tuple(tensor.shape)}"
            )


def _some(names: Iterable[str], most: int = 4) -> str:
    names = sorted(names)
    return ", ".join(names[:most]) + (", ..." if len(names) > most else "")


def _read_own(directory: Path) -> Checkpoint:
    sidecar_path = directory / SIDECAR
    try:
        sidecar = json.loads(sidecar_path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{sidecar_path}: not readable as a model description ({error})") from None
    if not isinstance(sidecar, dict) or sidecar.get("format") != FORMAT:
        found = sidecar.get("format") if isinstance(sidecar, dict) else type(sidecar).__name__
        raise CheckpointError(f"{sidecar_path}: found format {found!r}, expected {FORMAT!r}")
    del sidecar["format"]
    try:
        config = FlexiASTConfig(**sidecar.pop("model"))
    except (KeyError, TypeError, FlexiASTError) as error:
        raise CheckpointError(f"{sidecar_path}, model: not a valid network configuration ({error})") from None
    state = _read_tensors(directory / WEIGHTS)
    check_state(config, state, directory / WEIGHTS)
    return Checkpoint(config, state, sidecar)


def _read_tensors(path: Path) -> State:
    """The tensors of a safetensors or a PyTorch file; nothing else in it is ever run."""
    try:
        with open(path, "rb") as file:
            start = file.read(9)
            # Zip archive or older bare pickle; safetensors may start alike, but its JSON header begins at byte 8.
            is_torch = start[:2] in (b"PK", b"\x80\x02") and start[8:] != b"{"
        if not is_torch:
            return load_file(path)
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (
        safetensors.SafetensorError,
        pickle.UnpicklingError,
        OSError,
        RuntimeError,
        ValueError,
        EOFError,
        LookupError,
        AssertionError,
    ) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise CheckpointError(f"{path}: not readable as a checkpoint ({reason})") from None
    if not isinstance(content, dict) or not all(isinstance(v, Tensor) for v in content.values()):
        raise CheckpointError(f"{path}: found {type(content).__name__}, expected a state dict (names to tensors)")
    return content


# Released FlexiAST state dicts (PyTorch, timm 0.8 names): live parts are v.{cls_token, dist_token, blocks, norm},
# patch_embed.proj, pos_embed.pos_embed and mlp_head; the timm model's own embeddings and head stay behind, unused.


def _without_module(state: State) -> State:
    """Drop the `module.` that DataParallel puts before every name."""
    wrapped = bool(state) and all(name.startswith("module.") for name in state)
    return {name.removeprefix("module.") if wrapped else name: tensor for name, tensor in state.items()}


def _is_released_flexiast(state: State) -> bool:
    return {"patch_embed.proj.weight", "pos_embed.pos_embed", "v.cls_token"} <= _without_module(state).keys()


_RELEASED = {
    "patch_embed.proj.bias": "kernel_bias",
    "v.norm.weight": "norm.weight",
    "v.norm.bias": "norm.bias",
    "mlp_head.0.weight": "head_norm.weight",
    "mlp_head.0.bias": "head_norm.bias",
    "mlp_head.1.weight": "head.weight",
    "mlp_head.1.bias": "head.bias",
}
_RELEASED_DEAD = ("v.pos_embed", "v.patch_embed.", "v.head.", "v.head_dist.")


def _convert_released_flexiast(released: State, source: Path, heads: int | None) -> Checkpoint:
    state = _without_module(released)
    ignored = {name: "left over from the timm model, never used" for name in state if name.startswith(_RELEASED_DEAD)}
    live = {name: tensor for name, tensor in state.items() if name not in ignored}
    try:
        kernel, positions = live.pop("patch_embed.proj.weight"), live.pop("pos_embed.pos_embed")[0]
        prefix = [live.pop(name)[0] for name in ("v.cls_token", "v.dist_token") if name in live]
        classes, width = live["mlp_head.1.weight"].shape
        patch = PatchSize(*kernel.shape[-2:])
        # Released models see 128 mel bins; the number of frames follows from the number of positions.
        rows = 128 // patch.freq
        cols = (len(positions) - len(prefix)) // rows
        grid = positions[len(prefix) :].view(rows, cols, width)
        depth = 1 + max((int(name.split(".")[2]) for name in live if name.startswith("v.blocks.")), default=0)
        mlp_ratio = live["v.blocks.0.mlp.fc1.bias"].shape[0] / width if "v.blocks.0.mlp.fc1.bias" in live else 4.0
    except (LookupError, ValueError, TypeError, ArithmeticError, RuntimeError) as error:
        raise CheckpointError(
            f"{source}: looks like a released FlexiAST, but its tensors do not fit ({error})"
        ) from None
    converted = {
        "kernel": kernel.squeeze(1),
        "pos_embed": grid,
        "prefix": torch.cat(prefix),
        "prefix_pos_embed": positions[: len(prefix)],
    }
    for name, tensor in live.items():
        converted[_RELEASED.get(name, name.removeprefix("v."))] = tensor
    config = FlexiASTConfig(
        classes=classes,
        frames=cols * patch.time,
        patch_size=patch,
        width=width,
        depth=depth,
        heads=heads or max(1, width // 64),
        mlp_ratio=mlp_ratio,
        prefix_tokens=len(prefix),
        coverage="drop",
    )
    return Checkpoint(config, converted, ignored=ignored)


FORMATS: list[tuple[Callable[[State], bool], Callable[[State, Path, int | None], Checkpoint]]] = [
    (_is_released_flexiast, _convert_released_flexiast),
]
"""State-dict formats: whether a state dict is of this format, and how to convert it."""
