"""The log of a run: every line in train.jsonl, every epoch in epochs.csv, curves in TensorBoard or Weights & Biases."""

from __future__ import annotations

import csv
import io
import json
import secrets
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

from ..errors import ConfigError
from ..runtime.files import file_errors, to_json_text, write_atomically
from .config import Log


class _Curves(Protocol):
    """Where curves go."""

    def write(self, step: int, values: dict[str, float]) -> None: ...
    def close(self) -> None: ...


class _NoCurves:
    def write(self, step: int, values: dict[str, float]) -> None:
        pass

    def close(self) -> None:
        pass


class _TensorBoard:
    def __init__(self, directory: Path, step: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self.writer = SummaryWriter(str(directory / "tensorboard"), purge_step=step + 1)

    def write(self, step: int, values: dict[str, float]) -> None:
        for name, value in values.items():
            self.writer.add_scalar(name, value, step)

    def close(self) -> None:
        self.writer.close()


class _WeightsAndBiases:
    def __init__(self, directory: Path, settings: dict[str, Any], step: int) -> None:
        import wandb

        run_id = directory / "wandb_id"  # so that a resumed run goes on in the same curves
        if step == 0 or not run_id.exists():
            run_id.write_text(secrets.token_hex(4))
        self.run = wandb.init(
            project="flexiast",
            name=directory.resolve().name,
            id=run_id.read_text(),
            dir=str(directory),
            config=settings,
            resume="allow",
        )

    def write(self, step: int, values: dict[str, float]) -> None:
        self.run.log(values, step=step)

    def close(self) -> None:
        self.run.finish()


def require_log(log: Log) -> None:
    """Raise ConfigError now, not after the set-up, if the chosen log is not installed."""
    if log == "wandb" and find_spec("wandb") is None:
        raise ConfigError("log: found wandb, which is not installed; expected `pip install wandb` first")


class RunLog:
    """Writes the log of a run from a step on; what lies beyond `size` bytes is of steps about to be repeated."""

    def __init__(self, directory: Path, log: Log, settings: dict[str, Any], step: int = 0, size: int = 0) -> None:
        self.directory = directory
        self.path = directory / "train.jsonl"
        with file_errors(self.path):
            self.file = open(self.path, "a+b")  # noqa: SIM115 (closed by `close`)
            self.file.truncate(min(size, self.file.seek(0, io.SEEK_END)))
        self.curves: _Curves = _NoCurves()
        if log == "tensorboard":
            self.curves = _TensorBoard(directory, step)
        elif log == "wandb":
            self.curves = _WeightsAndBiases(directory, settings, step)

    @property
    def size(self) -> int:
        """Bytes of train.jsonl so far."""
        return self.file.tell()

    def write(self, step: int, epoch: float, **record: Any) -> None:
        """Add a line; its numbers become points of the curves."""
        line = to_json_text({"step": step, "epoch": round(epoch, 4), **record})
        with file_errors(self.path):
            self.file.write((line + "\n").encode())
            self.file.flush()
        self.curves.write(step, _numbers(record))

    def write_epochs(self) -> None:
        """Make epochs.csv anew from the validations in train.jsonl."""
        self.file.seek(0)
        records = [json.loads(line) for line in self.file.read().splitlines()]
        self.file.seek(0, io.SEEK_END)
        rows = [{"step": r["step"], "epoch": r["epoch"], **_numbers(r)} for r in records if "validation" in r]
        columns = list(dict.fromkeys(name for row in rows for name in row))
        text = io.StringIO()
        writer = csv.DictWriter(text, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        write_atomically(self.directory / "epochs.csv", text.getvalue().encode())

    def close(self) -> None:
        """Finish the files."""
        self.file.close()
        self.curves.close()


def _numbers(record: dict[str, Any]) -> dict[str, float]:
    """The numbers of a record by name; those of a validation as `accuracy@16`."""
    numbers = {n: v for n, v in record.items() if isinstance(v, (int, float)) and n not in ("step", "epoch")}
    for patch, metrics in record.get("validation", {}).items():
        numbers |= {f"{name}@{patch}": value for name, value in metrics.items()}
    return numbers
