"""Tensors out of a file, without running anything that is in it."""

from __future__ import annotations

import io
import pickle
import re
import struct
import warnings
import zipfile
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any, BinaryIO

import safetensors
import torch
from safetensors.torch import load_file
from torch import Tensor

from ..errors import CheckpointError

State = dict[str, Tensor]
NESTED = ("model", "state_dict")
"""Names under which training programs keep the state dict beside other things."""
DAMAGE = (
    safetensors.SafetensorError,
    pickle.UnpicklingError,
    zipfile.BadZipFile,
    struct.error,
    zlib.error,
    ArithmeticError,
    AssertionError,
    AttributeError,
    EOFError,
    ImportError,
    LookupError,
    MemoryError,
    OSError,
    RuntimeError,
    TypeError,
    ValueError,
)
"""What readers of files, torch.load above all, raise at damaged ones."""


def some(names: Iterable[str], most: int = 4) -> str:
    """A few of the names, for an error message."""
    names = sorted(names)
    return ", ".join(names[:most]) + (", ..." if len(names) > most else "")


def read_tensors(path: Path) -> tuple[State, dict[str, str], list[str]]:
    """Tensors of a safetensors or PyTorch file, the safetensors header's texts, and other things that lay beside.

    PyTorch files are read with `weights_only=True`. A state dict that lies under `model` or `state_dict` is taken
    out; what lay beside it is named. Memory is bounded by the size of the file, whatever it says of itself. Raises
    CheckpointError that names the file.
    """
    try:
        with open(path, "rb") as file:
            start = file.read(9)
        # Zip archive or older bare pickle; safetensors may start alike, but its JSON header begins at byte 8.
        if start[:2] in (b"PK", b"\x80\x02") and start[8:] != b"{":
            content = load_pickle(path)
        else:
            with safetensors.safe_open(path, "pt") as opened:
                header = opened.metadata() or {}
            return load_file(path), header, []
    except DAMAGE as error:
        raise CheckpointError(f"{path}: not readable as a checkpoint ({_reason(error)})") from None
    state, header, beside = _state_dict(content, path)
    _require_plain(state, path)
    return state, header, beside


def load_pickle(path: Path) -> Any:
    """What torch.save wrote, on the CPU, running no code. Raises one of DAMAGE for a damaged file, without warnings."""
    with open(path, "rb") as file:
        if file.read(2) == b"PK":
            _check_archive(file)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of strange pickles: they are read, or an error says what is wrong
        return torch.load(path, map_location="cpu", weights_only=True)


def _reason(error: Exception) -> str:
    """What is wrong, in a line. Of what torch says of a pickle, not that it could be read with its code run."""
    text = str(error).strip()
    if refused := re.search(r"([Uu]nsupported .*|WeightsUnpickler error: .*)", text):
        return refused[1].split(". ")[0]
    return text.splitlines()[0] if text else type(error).__name__


def _check_archive(file: BinaryIO) -> None:
    """Raise BadZipFile for what torch.save does not write and torch.load trusts.

    Packed records could fill the memory (they unpack to a thousandfold); of one that is marked as a folder torch
    returns whatever was in the memory before.
    """
    with zipfile.ZipFile(file) as archive:
        entries = archive.infolist()
    size = file.seek(0, io.SEEK_END)
    if any(entry.is_dir() or entry.external_attr & 0x10 for entry in entries):
        raise zipfile.BadZipFile("found a folder in the archive")
    if (unpacked := sum(entry.file_size for entry in entries)) > size:
        raise zipfile.BadZipFile(f"found {unpacked} bytes packed into {size}, expected no packing")


def _require_plain(state: State, path: Path) -> None:
    """Raise CheckpointError unless the tensors are real numbers that lie in the file, each in a place of its own.

    A view of stride 0 takes no room in a file, and as a parameter would take any amount of memory.
    """
    for name, tensor in state.items():
        if tensor.layout != torch.strided or tensor.device.type != "cpu" or tensor.is_quantized or tensor.is_complex():
            raise CheckpointError(
                f"{path}: tensor {name}: found {tensor.dtype} on {tensor.device} as {tensor.layout}, expected plain"
                " real numbers"
            )
    needed, there = sum(t.numel() * t.element_size() for t in state.values()), path.stat().st_size
    if needed > 2 * there:  # tensors may share their storage
        raise CheckpointError(f"{path}: its tensors would take {needed} bytes, expected at most twice its {there}")


def _state_dict(content: Any, path: Path) -> tuple[State, dict[str, str], list[str]]:
    def is_state(value: Any) -> bool:
        named = isinstance(value, dict) and bool(value) and all(isinstance(name, str) for name in value)
        return named and all(isinstance(tensor, Tensor) for tensor in value.values())

    if is_state(content):
        return content, {}, []
    if isinstance(content, dict):
        for name in NESTED:
            if is_state(content.get(name)):
                return content[name], {}, [str(other) for other in content if other != name]
    raise CheckpointError(f"{path}: found {type(content).__name__}, expected a state dict (names to tensors)")
