"""Checkpoints on disk: write our own format, read every known format, strictly and without running code.

Our format is a directory with `model.safetensors` (the weights) and `config.json` (what is needed to rebuild and
use the network), or one safetensors file with the same description in its header. A format is recognised by the
content of a source, never by its name. The formats are in `formats`.
"""

from __future__ import annotations

import dataclasses
import difflib
import json
import os
import re
from collections.abc import Iterable
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from safetensors.torch import save

from ..errors import CheckpointError, FlexiASTError
from ..runtime.files import to_json_text, write_atomically
from ..runtime.provenance import sha256
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
"""Weights in a single file. The same name plus `.index.json` is the index of sharded weights."""
INDEX = ".index.json"
WRAPPERS = ("module", "_orig_mod", "model", "net", "network", "ast", "backbone")
"""Attributes that hold a wrapped network (DataParallel, torch.compile, Lightning); they prefix every tensor name."""
HEADER = "config"
"""Key of the sidecar in the header of a single safetensors file."""


def save_checkpoint(directory: Path, checkpoint: Checkpoint) -> None:
    """Write our format into `directory`, each file atomically, the weights last. Metadata must be JSON."""
    write_atomically(directory / SIDECAR, (to_json_text(_sidecar(checkpoint), 1) + "\n").encode())
    write_atomically(directory / WEIGHTS, save(_contiguous(checkpoint.state), {"format": VERSION}))


def save_single_file(path: Path, checkpoint: Checkpoint) -> None:
    """Write our format atomically as one safetensors file, with the description in its header."""
    header = {"format": VERSION, HEADER: to_json_text(_sidecar(checkpoint))}
    write_atomically(path, save(_contiguous(checkpoint.state), header))


def _sidecar(checkpoint: Checkpoint) -> dict[str, Any]:
    metadata = dict(checkpoint.metadata)
    if "training" in metadata:
        metadata["training"] = without_folders(metadata["training"])
    return {"format": VERSION, "model": dataclasses.asdict(checkpoint.config), **metadata}


def without_folders(settings: Any) -> Any:
    """Settings with absolute paths cut to their last part: a model is shared, but paths belong to one machine.

    The training run keeps the full paths in train_config.json.
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
    """Read a file or a directory in any of `FORMATS`; the checkpoint's `report` lists what happened to each tensor.

    heads and frames are used only where the source does not state them. heads: attention heads, which a state dict
    does not record (default: one per 64 of the width, as in every ViT). frames: length of the input; an image model
    has none, and an AST state dict gives only the number of positions.
    Raises CheckpointError, naming the file, if it is missing, unreadable or of no known format, or if a tensor is
    missing, unexplained or of the wrong shape.
    """
    path = Path(path)
    if not path.exists():
        raise no_such_checkpoint(path)
    source, beside = _open(path)
    source.heads, source.frames = heads, frames
    for form in FORMATS:
        try:
            description = form.describe(source)
            checkpoint = convert(source, form, description, str(path)) if description else None
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


def no_such_checkpoint(path: Path, others: Iterable[str] = ()) -> CheckpointError:
    """The error for a path where nothing is, with names that are near: of the files beside it, and others."""
    folder = path.parent
    there = [str(folder / name) for name in os.listdir(folder)] if os.access(folder, os.R_OK) else []
    near = difflib.get_close_matches(str(path), [*there, *others], 3, 0.7)
    hint = f"; near it: {', '.join(near)}" if near else ""
    return CheckpointError(
        f"{path}: no such file or directory, expected a checkpoint: a file, or a directory with {WEIGHTS} and"
        f" {SIDECAR}{hint}"
    )


def _open(path: Path) -> tuple[Source, list[str]]:
    """The tensors and descriptions in a file or a directory, and the names of whatever else the file holds."""
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
    """The weight file in a directory, or the index of its shards."""
    names = (name + end for name in WEIGHT_FILES for end in ("", INDEX))
    return next((directory / name for name in names if (directory / name).exists()), directory / WEIGHTS)


def weight_files(path: Path) -> list[Path]:
    """The files that hold a checkpoint's weights: the file itself, or the weight files in its directory."""
    if not path.is_dir():
        return [path]
    weights = _weights(path)
    if not weights.name.endswith(INDEX):
        return [weights]
    return [path / name for name in sorted(set(_json_file(weights)["weight_map"].values()))]


def weights_digest(path: Path) -> str:
    """SHA-256 of each file with a checkpoint's weights, with a space between them."""
    return " ".join(map(sha256, weight_files(path)))


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
    """The source, with any prefix from WRAPPERS that all tensor names share removed."""
    removed = ""
    while (first := next(iter(state), "").split(".")[0]) in WRAPPERS and all(n.startswith(f"{first}.") for n in state):
        state = {name.removeprefix(f"{first}."): tensor for name, tensor in state.items()}
        removed += f"{first}."
    return Source(path, state, sidecar, preprocessor, sidecar_path, removed=removed)


def _unknown(path: Path, source: Source) -> str:
    """Error text for an unknown format: what the source holds, and which format knows most of its tensor names."""
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
