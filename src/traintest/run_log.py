"""The log of a run: every line in train.jsonl, every epoch in epochs.csv, curves in TensorBoard or Weights & Biases."""

from __future__ import annotations

import csv
import io
import json
import logging
import os
import secrets
import socket
import time
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

from ..errors import ConfigError, FileError
from ..runtime.files import file_errors, to_json_text, write_atomically
from .config import Log

logger = logging.getLogger(__name__)


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
    """Event files, written here and now: SummaryWriter's own thread would end the program where the disk is full."""

    def __init__(self, directory: Path, step: int) -> None:
        from tensorboard.compat.proto import event_pb2, summary_pb2
        from tensorboard.summary.writer.record_writer import RecordWriter

        self.event, self.summary = event_pb2.Event, summary_pb2.Summary
        folder = directory / "tensorboard"
        folder.mkdir(parents=True, exist_ok=True)
        name = f"events.out.tfevents.{time.time():.9f}.{socket.gethostname()}.{os.getpid()}"  # read in this order
        self.records = RecordWriter(open(folder / name, "wb"))  # noqa: SIM115 (closed by `close`)
        self._add(file_version="brain.Event:2")
        # Points from this step on, of an earlier start, are hidden.
        self._add(step=step + 1, session_log=event_pb2.SessionLog(status=event_pb2.SessionLog.START))

    def write(self, step: int, values: dict[str, float]) -> None:
        points = [self.summary.Value(tag=name, simple_value=value) for name, value in values.items()]
        self._add(step=step, summary=self.summary(value=points))

    def _add(self, **content: Any) -> None:
        self.records.write(self.event(wall_time=time.time(), **content).SerializeToString())
        self.records.flush()

    def close(self) -> None:
        self.records.close()


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
            self.file = open(self.path, "a+b", buffering=0)  # noqa: SIM115 (closed by `close`)
            self._repair(step, size)
        self.curves: _Curves = _NoCurves()
        if log == "tensorboard":
            self._try_curves(lambda: _TensorBoard(directory, step))
        elif log == "wandb":
            self._try_curves(lambda: _WeightsAndBiases(directory, settings, step))

    def _try_curves(self, make: Callable[[], _Curves]) -> None:
        try:
            self.curves = make()
        except OSError as error:
            self._without_curves(error)

    def _repair(self, step: int, size: int) -> None:
        """Cut off lines of steps that will be repeated and lines damaged by a power cut; log what is missing."""
        file_size = self.file.seek(0, io.SEEK_END)
        self.file.seek(0)
        good = 0
        for line in self.file.read()[:size].splitlines(keepends=True):
            if not line.endswith(b"\n") or _record(line) is None:
                break
            good += len(line)
        self.file.truncate(good)
        if size and not file_size:
            logger.warning("%s: deleted or emptied since the last start; it begins anew after step %d", self.path, step)
        elif good < size:
            logger.warning(
                "%s: damaged or cut after %d of %d bytes; the lines from there to step %d are lost",
                self.path, good, size, step,
            )  # fmt: skip

    @property
    def size(self) -> int:
        """Bytes of train.jsonl so far."""
        return self.file.seek(0, io.SEEK_END)

    def write(self, step: int, epoch: float, **record: Any) -> None:
        """Write a record; its numbers become points of the curves. Raises FileError if it cannot be written."""
        line = (to_json_text({"step": step, "epoch": round(epoch, 4), **record}) + "\n").encode()
        self.require_in_place()
        with file_errors(self.path):
            before = self.size
            written = 0
            try:
                while written < len(line):
                    written += self.file.write(line[written:])
            except OSError:
                self.file.truncate(before)  # no half a line
                raise
        try:
            self.curves.write(step, _numbers(record))
        except OSError as error:
            self._without_curves(error)

    def _without_curves(self, error: OSError) -> None:
        logger.warning("curves: not written (%s); the run goes on, and train.jsonl has the numbers", error)
        self.curves = _NoCurves()

    def sync(self) -> None:
        """Put the log on the disk: a state that is saved next must not be ahead of it."""
        self.require_in_place()
        with file_errors(self.path):
            os.fsync(self.file.fileno())

    def require_in_place(self) -> None:
        """Raise FileError if the run directory has been moved, removed or replaced since the run was started."""
        try:
            in_place = os.path.samestat(os.stat(self.path), os.fstat(self.file.fileno()))
        except FileNotFoundError:
            in_place = False
        except OSError:  # a disk that does not answer says so when it is written to
            return
        if not in_place:
            raise FileError(
                f"{self.path}: moved or removed while the run was writing to it; put {self.directory} back and repeat"
                " the command to go on"
            )

    def write_epochs(self) -> None:
        """Make epochs.csv anew from the validations in train.jsonl."""
        validations = [record for record in read_log(self.path) if "validation" in record]
        rows = [{"step": r["step"], "epoch": r["epoch"], **_numbers(r)} for r in validations]
        columns = list(dict.fromkeys(name for row in rows for name in row))
        text = io.StringIO()
        writer = csv.DictWriter(text, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        write_atomically(self.directory / "epochs.csv", text.getvalue().encode())

    def close(self) -> None:
        """Finish the files."""
        self.file.close()
        try:
            self.curves.close()
        except OSError as error:
            self._without_curves(error)


def read_log(path: Path) -> Iterator[dict[str, Any]]:
    """The lines of a train.jsonl, damaged ones left out. Raises FileError if it cannot be read."""
    with file_errors(path):
        lines = path.read_bytes().splitlines()
    yield from (record for record in map(_record, lines) if record is not None)


def _record(line: bytes) -> dict[str, Any] | None:
    """A line of the log; nothing if it is damaged."""
    try:
        record = json.loads(line)
    except ValueError:
        return None
    return record if isinstance(record, dict) and {"step", "epoch"} <= record.keys() else None


def _numbers(record: dict[str, Any]) -> dict[str, float]:
    """The numbers of a record by name; those of a validation as `accuracy@16`."""
    numbers = {n: v for n, v in record.items() if isinstance(v, (int, float)) and n not in ("step", "epoch")}
    for patch, metrics in record.get("validation", {}).items():
        numbers |= {f"{name}@{patch}": value for name, value in metrics.items()}
    return numbers
