"""`flexiast doctor`: what is wrong with an installation, a data set, a checkpoint or a run, and what mends it."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated

import tyro

from ..checkpoints.hub import is_model_name
from ..classifier.load import load
from ..data.hugging_face import is_dataset
from ..data.remote import is_address
from ..data.shards import INDEX
from ..data.table_options import TableOptions
from ..data.webdataset import tars_of
from ..data.workers import MAX_WORKERS
from ..doctor.checkpoint import examine_checkpoint
from ..doctor.data import DataSet, examine_data
from ..doctor.finding import Examination
from ..doctor.installation import examine_installation, look
from ..doctor.run import examine_run
from ..errors import ConfigError, require
from ..reports.examination import format_examination
from ..runtime.output import Outcome, OutputOptions
from ..traintest.finished_run import FinishedRun, is_run

WEIGHTS = frozenset({".safetensors", ".pt", ".pth", ".ckpt", ".bin"})


@dataclasses.dataclass(frozen=True)
class DoctorConfig(TableOptions, OutputOptions):
    """Find what is wrong with an installation, a data set, a checkpoint or a run. Exit code 1: it is serious."""

    subject: Annotated[Path | None, tyro.conf.Positional, tyro.conf.arg(metavar="[SUBJECT]")] = None
    """Data (folder, table, manifest, `hf:NAME[:split]`, an address), a checkpoint (file, folder, name of the Hub), or
    the folder of a run (default: the installation)."""
    val: Path | None = None
    """Validation data, to be compared with the data."""
    test: Path | None = None
    """Test data, to be compared with the data; they are only compared, and listened to for faults."""
    checkpoint: str | None = None
    """Model that is to be used on the data: its classes, window and statistics are compared with them."""
    labels: Path | None = None
    """Label CSV (index, mid, display_name), for manifests."""
    root: Path | None = None
    """Where relative paths of the manifests start (default: the manifest's own folder)."""
    numbers: bool = False
    """The labels are numbers to predict (loss mse), not classes."""
    workers: int = 2
    """Decoding processes; 0 decodes in this process."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(0 <= self.workers <= MAX_WORKERS, "workers", self.workers, f"0 to {MAX_WORKERS}")
        named = self.subject is None or _is_named_data(self.subject) or is_model_name(str(self.subject))
        if self.subject is not None and not named and not self.subject.exists():
            raise ConfigError(
                f"subject: found {self.subject}, which is not there; expected data (a file, a folder, hf:NAME), a"
                " checkpoint (a file, a folder, a name of the Hub) or the folder of a run"
            )


def _is_named_data(subject: Path) -> bool:
    """Whether this is data that is no path: a data set of the Hub, an address, a pattern of tars."""
    return is_dataset(subject) or is_address(subject) or bool(tars_of(subject))


def is_checkpoint(subject: Path) -> bool:
    """Whether this is a checkpoint, by its name or its files, rather than data."""
    if _is_named_data(subject):
        return False
    packed = (subject / INDEX).is_file()
    return (
        not subject.exists()
        or subject.suffix.lower() in WEIGHTS
        or ((subject / "config.json").is_file() and not packed)
    )


def examine(config: DoctorConfig, progress: bool = True) -> Examination:
    """Look at what the subject is, and find its faults."""
    subject = config.subject
    if subject is None:
        return examine_installation(look())
    if is_run(subject):
        return examine_run(FinishedRun(subject), config.workers, progress)
    if is_checkpoint(subject):
        return examine_checkpoint(str(subject))
    model = load(config.checkpoint) if config.checkpoint else None
    numbers = config.numbers or (model is not None and model.loss == "mse")
    data = DataSet.of(
        subject, config.val, config.test, labels=config.labels, root=config.root, options=config, numbers=numbers
    )  # fmt: skip
    return examine_data(data, model, config.workers, progress)


def run(config: DoctorConfig) -> Outcome:
    """Examine; the outcome has the findings, and exit code 1 if any is serious."""
    examination = examine(config, not config.quiet)
    return Outcome(
        text=format_examination(examination, config.quiet),
        results=dataclasses.asdict(examination),
        exit_code=int(examination.serious),
    )


CONFIG = DoctorConfig
