"""Checkpoints on disk: our own format written, every known format read, strictly and without running code.

Our format is a directory with `model.safetensors` (the weights) and `config.json` (what is needed to rebuild and
use the network), or one safetensors file with the same description in its header. A format is recognised by what a
source holds, never by its name; the formats are in `formats`.
"""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path
from typing import Any

from safetensors.torch import save

from ..errors import CheckpointError, FlexiASTError
from ..runtime.files import write_atomically
from .formats import FORMATS, OWN
from .formats.base import Checkpoint, Source, convert
from .formats.own import VERSION
from .tensors import State, read_tensors, some

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
HEADER = "config"
"""Where a single safetensors file keeps the sidecar in its header."""


def save_checkpoint(directory: Path, checkpoint: Checkpoint) -> None:
    """Write our format into `directory`; metadata must be JSON. The weights come last, each file atomically."""
    write_atomically(directory / SIDECAR, (json.dumps(_sidecar(checkpoint), indent=1) + "\n").encode())
    write_atomically(directory / WEIGHTS, save(_contiguous(checkpoint.state), {"format": VERSION}))


def save_single_file(path: Path, checkpoint: Checkpoint) -> None:
    """Write our format as one safetensors file, the description in its header; atomically."""
    header = {"format": VERSION, HEADER: json.dumps(_sidecar(checkpoint))}
    write_atomically(path, save(_contiguous(checkpoint.state), header))


def _sidecar(checkpoint: Checkpoint) -> dict[str, Any]:
    return {"format": VERSION, "model": dataclasses.asdict(checkpoint.config), **checkpoint.metadata}


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
                checkpoint.report.notes.append(f"beside the state dict, not read: {some(beside)}")
            return checkpoint
    raise CheckpointError(_unknown(path, source))


def _open(path: Path) -> tuple[Source, list[str]]:
    """The tensors and descriptions of a file or a directory, and the names of what else the file holds."""
    if not path.is_dir():
        state, header, beside = read_tensors(path)
        described = header.get(HEADER)
        sidecar = None if described is None else _json(described, path)
        return Source(path, _without_module(state), sidecar, sidecar_path=path), beside
    sidecar = _json_file(path / SIDECAR)
    preprocessor = _json_file(path / PREPROCESSOR) if (path / PREPROCESSOR).exists() else None
    weights = next((path / name for name in WEIGHT_FILES if (path / name).exists()), path / WEIGHTS)
    state, _, beside = read_tensors(weights)
    return Source(weights, _without_module(state), sidecar, preprocessor, path / SIDECAR), beside


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


def _without_module(state: State) -> State:
    """Drop the `module.` that DataParallel puts before every name."""
    wrapped = bool(state) and all(name.startswith("module.") for name in state)
    return {name.removeprefix("module.") if wrapped else name: tensor for name, tensor in state.items()}


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
