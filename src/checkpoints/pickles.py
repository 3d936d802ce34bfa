"""Read torch.save files without running code: objects of unknown classes become empty placeholders."""

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
"""What file readers, torch.load above all, raise for damaged files."""

PLAIN = frozenset(f"builtins.{n}" for n in ("bool", "int", "float", "str", "bytes", "list", "dict", "object", "slice"))
NEVER = frozenset({"builtins", "os", "posix", "nt", "sys", "subprocess", "shutil", "importlib", "runpy"})
"""Modules that no training checkpoint needs: a file that names them is rejected, not filled with placeholders."""
_lock = threading.Lock()


class Placeholder:
    """Stands in for an object of a class that is not loaded: accepts any arguments and state, and keeps neither."""

    def __new__(cls, *_args: Any, **_options: Any) -> Placeholder:
        return super().__new__(cls)

    def __init__(self, *_args: Any, **_options: Any) -> None: ...

    def __setstate__(self, _state: Any) -> None: ...


def _mapping(*_args: Any) -> OrderedDict:
    return OrderedDict()


def load_pickle(path: Path, placeholders: bool = False) -> Any:
    """Load a torch.save file on the CPU without running code or warning. Raises one of DAMAGE for a damaged file.

    placeholders: replace each object of a class that torch does not allow (argparse.Namespace, NumPy scalars, paths,
    enums, configurations of a training program) with a `Placeholder`. Their modules are not imported.
    """
    with open(path, "rb") as file:
        if file.read(2) == b"PK":
            _check_archive(file)
        unknown = _unknown_classes(file) if placeholders else []
    with warnings.catch_warnings(), _lock, torch.serialization.safe_globals(unknown):
        warnings.simplefilter("ignore")  # about odd pickles: they are read, or an error says what is wrong
        return torch.load(path, map_location="cpu", weights_only=True)


def _unknown_classes(file: BinaryIO) -> list[Any]:
    """Stand-ins, for torch's safe_globals, for the classes that the pickles of this file name.

    torch looks up its own classes first. Nothing from the modules in NEVER is replaced, except the names in PLAIN.
    """
    named = set()
    with contextlib.suppress(ValueError):  # damage, which torch.load will find and describe
        for pickled in _pickles(file):
            for operation, argument, _ in pickletools.genops(pickled):
                if operation.name == "GLOBAL":
                    module, _, name = str(argument).partition(" ")
                    # torch.save still writes Python 2 names
                    module, name = NAME_MAPPING.get((module, name), (IMPORT_MAPPING.get(module, module), name))
                    named.add(f"{module}.{name}")
    allowed = [name for name in sorted(named) if name in PLAIN or name.split(".")[0] not in NEVER]
    return [(_mapping if name == "collections.defaultdict" else Placeholder, name) for name in allowed]


def _pickles(file: BinaryIO) -> list[Any]:
    """The pickles in a torch.save file: one in a zip archive; four in a row in the older format."""
    file.seek(0)
    if not zipfile.is_zipfile(file):
        file.seek(0)
        return [file] * 4
    with zipfile.ZipFile(file) as archive:
        return [io.BytesIO(archive.read(n)) for n in archive.namelist() if n.split("/")[-1] == "data.pkl"]


def _check_archive(file: BinaryIO) -> None:
    """Raise BadZipFile for archives that torch.save never writes but torch.load would trust.

    Compressed records could exhaust memory (they can expand a thousandfold). For a record marked as a folder, torch
    returns uninitialised memory. A TorchScript program is not a state dict.
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
