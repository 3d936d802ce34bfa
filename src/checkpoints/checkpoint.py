"""Checkpoints on disk: our own format written, every known format read, strictly and without running code.

Our format is a directory with `model.safetensors` (the weights) and `config.json` (what is needed to rebuild and
use the network), or one safetensors file with the same description in its header. A format is recognised by what a
source holds, never by its name; the formats are in `formats`.
"""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from safetensors.torch import save

from ..errors import CheckpointError, FlexiASTError
from ..runtime.files import to_json_text, write_atomically
from .formats import FORMATS, OWN
from .formats.base import Checkpoint, Source, convert
from .formats.own import VERSION
from .tensors import State, read_shards, read_tensors, some

__all__ = [
    "SIDECAR",
    "WEIGHTS",
    "Checkpoint",
    "read_checkpoint",
    "save_checkpoint",
    "save_single_file",
    "write_atomically",
]

WEIGHTS, SIDECAR, PREPROCESSOR = "model.safetensors", "config.json", "preprocessor_config.json"
WEIGHT_FILES = (WEIGHTS, "pytorch_model.bin")
"""Weights in one file; a file of this name with `.index.json` lists those of many."""
INDEX = ".index.json"
WRAPPERS = ("module", "_orig_mod", "model", "net", "network", "ast", "backbone")
"""Attributes that wrap a network (DataParallel, torch.compile, Lightning), whose name then begins all names."""
HEADER = "config"
"""Where a single safetensors file keeps the sidecar in its header."""


def save_checkpoint(directory: Path, checkpoint: Checkpoint) -> None:
    """Write our format into `directory`; metadata must be JSON. The weights come last, each file atomically."""
    write_atomically(directory / SIDECAR, (to_json_text(_sidecar(checkpoint), 1) + "\n").encode())
    write_atomically(directory / WEIGHTS, save(_contiguous(checkpoint.state), {"format": VERSION}))


def save_single_file(path: Path, checkpoint: Checkpoint) -> None:
    """Write our format as one safetensors file, the description in its header; atomically."""
    header = {"format": VERSION, HEADER: to_json_text(_sidecar(checkpoint))}
    write_atomically(path, save(_contiguous(checkpoint.state), header))


def _sidecar(checkpoint: Checkpoint) -> dict[str, Any]:
    metadata = dict(checkpoint.metadata)
    if "training" in metadata:
        metadata["training"] = without_folders(metadata["training"])
    return {"format": VERSION, "model": dataclasses.asdict(checkpoint.config), **metadata}


def without_folders(settings: Any) -> Any:
    """Settings in which absolute paths are only names: a model is handed on, and they are of one machine.

    The run that trained it keeps them, in train_config.json.
    """
    if isinstance(settings, dict):
        return {name: without_folders(value) for name, value in settings.items()}
    if isinstance(settings, (list, tuple)):
        return [without_folders(value) for value in settings]
    if not isinstance(settings, str):
        return settings
    if settings.startswith("~") or PurePosixPath(settings).is_absolute():
        return PurePosixPath(settings).name
    return PureWindowsPath(settings).name if PureWindowsPath(settings).is_absolute() else settings


def _contiguous(state: State) -> State:
    return {name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}


def read_checkpoint(path: Path, heads: int | None = None, frames: int | None = None) -> Checkpoint:
    """Read a file or a directory of any format in `FORMATS`; the checkpoint's `report` says what became of what.

    heads and frames are used where the source leaves them open, and not where it tells. heads: attention heads, which
    a state dict does not tell; by default one per 64 of the width, as in every ViT. frames: length of the input, which
    an image model has not, and of which an AST state dict tells the number of positions only.
    Raises CheckpointError that names the file and what is wrong with it: missing, unreadable, of no known format,
    a tensor that is missing, unexplained or of the wrong shape.
    """
    path = Path(path)
    if not path.exists():
        raise CheckpointError(
            f"{path}: no such checkpoint, expected a file, or a directory with {WEIGHTS} and {SIDECAR}"
        )
    source, beside = _open(path)
    source.heads, source.frames = heads, frames
    for form in FORMATS:
        try:
            found = form.describe(source)
            checkpoint = convert(source, form, found, str(path)) if found else None
        except FlexiASTError as error:
            where = source.path if source.sidecar is None else source.sidecar_path
            prefix = "" if isinstance(error, CheckpointError) else f"{where}: "
            raise CheckpointError(f"{prefix}{error}") from None
        except (AttributeError, LookupError, ValueError, TypeError, ArithmeticError, RuntimeError) as error:
            raise CheckpointError(f"{source.path}: looks like a {form.name}, but does not fit ({error})") from None
        if checkpoint is not None:
            if checkpoint.report and beside:
                checkpoint.report.notes.append(f"beside the state dict, not read: {some(beside, 12)}")
            if checkpoint.report and source.removed not in ("", "module."):
                checkpoint.report.notes.append(f"every name began with {source.removed}, which is left out")
            return checkpoint
    raise CheckpointError(_unknown(path, source))


def _open(path: Path) -> tuple[Source, list[str]]:
    """The tensors and descriptions of a file or a directory, and the names of what else the file holds."""
    if not path.is_dir():
        if path.name.endswith(INDEX):
            raise CheckpointError(f"{path}: found an index of shards, expected the folder it lies in")
        state, header, beside = read_tensors(path)
        described = header.get(HEADER)
        sidecar = None if described is None else _json(described, path)
        return _source(path, state, sidecar, sidecar_path=path), beside
    sidecar = _json_file(path / SIDECAR)
    preprocessor = _json_file(path / PREPROCESSOR) if (path / PREPROCESSOR).exists() else None
    weights = _weights(path)
    if weights.name.endswith(INDEX):
        state, beside = read_shards(weights, _json_file(weights).get("weight_map")), []
    else:
        state, _, beside = read_tensors(weights)
    return _source(weights, state, sidecar, preprocessor, path / SIDECAR), beside


def _weights(directory: Path) -> Path:
    """The file of weights in a directory, or the index of its shards."""
    names = (name + end for name in WEIGHT_FILES for end in ("", INDEX))
    return next((directory / name for name in names if (directory / name).exists()), directory / WEIGHTS)


def weight_files(path: Path) -> list[Path]:
    """The files that hold the weights of a checkpoint: itself, or those in its directory."""
    if not path.is_dir():
        return [path]
    weights = _weights(path)
    if not weights.name.endswith(INDEX):
        return [weights]
    return [path / name for name in sorted(set(_json_file(weights)["weight_map"].values()))]


def _json_file(path: Path) -> dict[str, Any]:
    try:
        return _json(path.read_text(encoding="utf-8"), path)
    except (OSError, UnicodeDecodeError) as error:
        raise CheckpointError(f"{path}: not readable as a model description ({error})") from None


def _json(text: str, path: Path) -> dict[str, Any]:
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: not readable as a model description ({error})") from None
    if not isinstance(content, dict):
        raise CheckpointError(f"{path}: found {type(content).__name__}, expected a model description (an object)")
    return content


def _source(
    path: Path, state: State, sidecar: Any, preprocessor: Any = None, sidecar_path: Path | None = None
) -> Source:
    """What was found, without the names of WRAPPERS that all tensors' names begin with."""
    removed = ""
    while (first := next(iter(state), "").split(".")[0]) in WRAPPERS and all(n.startswith(f"{first}.") for n in state):
        state = {name.removeprefix(f"{first}."): tensor for name, tensor in state.items()}
        removed += f"{first}."
    return Source(path, state, sidecar, preprocessor, sidecar_path, removed=removed)


def _unknown(path: Path, source: Source) -> str:
    """What was found in a source of no known format, and which format knows most of its names."""
    shares = {
        form: sum(re.fullmatch(form.names, name) is not None for name in source.state) / max(1, len(source.state))
        for form in FORMATS
    }
    nearest = max(FORMATS, key=lambda form: shares[form])
    described = f", a description with {some(source.sidecar)}" if source.sidecar else ""
    advice = ""
    if nearest.name == OWN.name and shares[nearest] == 1:
        advice = f"; its description is missing: give the directory that also holds {SIDECAR}"
    return (
        f"{path}: found {len(source.state)} tensors ({some(source.state)}){described}, of no known format; nearest is"
        f" {nearest.name}, which knows {shares[nearest]:.0%} of these names{advice}; known are:"
        f" {'; '.join(form.name for form in FORMATS)}"
    )
