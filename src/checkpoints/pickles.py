"""What torch.save wrote, read without running anything: classes of the program that saved it become empty objects."""

from __future__ import annotations

import contextlib
import io
import pickle
import pickletools
import struct
import threading
import warnings
import zipfile
import zlib
from _compat_pickle import IMPORT_MAPPING, NAME_MAPPING
from collections import OrderedDict
from pathlib import Path
from typing import Any, BinaryIO

import safetensors
import torch

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

PLAIN = frozenset(f"builtins.{n}" for n in ("bool", "int", "float", "str", "bytes", "list", "dict", "object", "slice"))
NEVER = frozenset({"builtins", "os", "posix", "nt", "sys", "subprocess", "shutil", "importlib", "runpy"})
"""Modules that no description of a training needs: a file that names them is refused, not read around."""
_lock = threading.Lock()


class Placeholder:
    """Stands for an object of a class that is not loaded: it takes any arguments and state, and keeps neither."""

    def __new__(cls, *_args: Any, **_options: Any) -> Placeholder:
        return super().__new__(cls)

    def __init__(self, *_args: Any, **_options: Any) -> None: ...

    def __setstate__(self, _state: Any) -> None: ...


def _mapping(*_args: Any) -> OrderedDict:
    return OrderedDict()


def load_pickle(path: Path, placeholders: bool = False) -> Any:
    """What torch.save wrote, on the CPU, running no code. Raises one of DAMAGE for a damaged file, without warnings.

    placeholders: read around classes that torch does not know (argparse.Namespace, NumPy scalars, paths, enums,
    configurations of a training program): each object of theirs is a `Placeholder`. Nothing of theirs is imported.
    """
    with open(path, "rb") as file:
        if file.read(2) == b"PK":
            _check_archive(file)
        unknown = _unknown_classes(file) if placeholders else []
    with warnings.catch_warnings(), _lock, torch.serialization.safe_globals(unknown):
        warnings.simplefilter("ignore")  # of strange pickles: they are read, or an error says what is wrong
        return torch.load(path, map_location="cpu", weights_only=True)


def _unknown_classes(file: BinaryIO) -> list[Any]:
    """For torch's safe_globals: what stands for each class that the pickles of this file name and torch does not know.

    torch knows its own first; of the modules in NEVER nothing is replaced.
    """
    named = set()
    with contextlib.suppress(ValueError):  # of damage, which torch.load will find and describe
        for pickled in _pickles(file):
            for operation, argument, _ in pickletools.genops(pickled):
                if operation.name == "GLOBAL":
                    module, _, name = str(argument).partition(" ")
                    # torch.save writes names of Python 2 to this day
                    module, name = NAME_MAPPING.get((module, name), (IMPORT_MAPPING.get(module, module), name))
                    named.add(f"{module}.{name}")
    allowed = [name for name in sorted(named) if name in PLAIN or name.split(".")[0] not in NEVER]
    return [(_mapping if name == "collections.defaultdict" else Placeholder, name) for name in allowed]


def _pickles(file: BinaryIO) -> list[Any]:
    """The pickles in a file of torch.save: one in an archive; four one after the other in the older format."""
    file.seek(0)
    if not zipfile.is_zipfile(file):
        file.seek(0)
        return [file] * 4
    with zipfile.ZipFile(file) as archive:
        return [io.BytesIO(archive.read(n)) for n in archive.namelist() if n.split("/")[-1] == "data.pkl"]


def _check_archive(file: BinaryIO) -> None:
    """Raise BadZipFile for what torch.save does not write and torch.load trusts.

    Packed records could fill the memory (they unpack to a thousandfold); of one that is marked as a folder torch
    returns whatever was in the memory before. A TorchScript program is no state dict.
    """
    with zipfile.ZipFile(file) as archive:
        entries = archive.infolist()
    size = file.seek(0, io.SEEK_END)
    if any(entry.is_dir() or entry.external_attr & 0x10 for entry in entries):
        raise zipfile.BadZipFile("found a folder in the archive")
    if (unpacked := sum(entry.file_size for entry in entries)) > size:
        raise zipfile.BadZipFile(f"found {unpacked} bytes packed into {size}, expected no packing")
    if any(entry.filename.split("/")[-1] == "constants.pkl" for entry in entries):
        raise zipfile.BadZipFile(
            "found a TorchScript program, expected a state dict: save its weights with"
            " torch.save(torch.jit.load(FILE).state_dict(), ...)"
        )
