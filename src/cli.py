"""The command line: `flexiast train | measure | ...`, made from the same dataclasses that Python users fill in."""

from __future__ import annotations

import dataclasses
import json
import logging
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

import tyro

from .conversion import ConvertConfig, convert
from .data.manifest import distinct_labels, read_manifest
from .data.statistics import measure_statistics
from .errors import ConfigError, FlexiASTError
from .features import FeatureConfig
from .loading import load
from .models.checkpoint import write_atomically
from .traintest.checkpointing import require_writable
from .traintest.config import PatchArg, TrainConfig
from .traintest.interruption import Interrupted
from .traintest.measure import MeasureConfig, format_table, measure
from .traintest.train import train

EXIT_USER_ERROR = 2
EXIT_INTERRUPTED = 75  # EX_TEMPFAIL of sysexits.h: the same command, run again, goes on


@dataclasses.dataclass(frozen=True)
class PredictConfig:
    """Name the sounds in audio files."""

    checkpoint: tyro.conf.Positional[Path]
    """Model directory, or a released state dict."""
    audio: tyro.conf.Positional[tuple[Path, ...]]
    """Audio files (wav, flac, ogg, mp3)."""
    patch_size: PatchArg | None = None
    """Patch size to use (default: the model's base patch)."""
    top_k: int = 5
    """Classes named for each file."""


@dataclasses.dataclass(frozen=True)
class StatsConfig:
    """Measure mean and standard deviation of the log-mel over all real frames of a data set, for normalisation."""

    manifest: tyro.conf.Positional[Path]
    """Manifest JSON, CSV with the columns path and label, or a folder with one sub-folder per class."""
    labels: Path | None = None
    """Label CSV to check the labels against; the statistics do not depend on it."""
    root: Path | None = None
    """Where relative paths of the manifest start (default: the manifest's own folder)."""
    bins: int = 128
    """Mel bins."""
    sample_rate: int = 16_000
    """Sample rate in Hz that audio is converted to."""
    downmix: Literal["mean", "first"] = "mean"
    """Stereo to mono."""
    workers: int = 2
    """Decoding processes; 0 decodes in this process."""
    out: Path | None = None
    """JSON file to write the statistics to."""

    def __post_init__(self) -> None:
        if self.workers < 0:
            raise ConfigError(f"workers: found {self.workers}, expected 0 or more")


def run_train(config: TrainConfig) -> None:
    """Train, or resume, and say where the model is."""
    print(f"trained model: {train(config)}")


def run_measure(config: MeasureConfig) -> None:
    """Measure, and print the table."""
    print(format_table(measure(config)))
    print(f"written: {config.out}/flexibility.csv, .json, .png")


def run_predict(config: PredictConfig) -> None:
    """Print the best classes of each file."""
    model = load(config.checkpoint)
    for path in config.audio:
        for label, score in model.predict(path, config.patch_size, config.top_k):
            print(f"{path}\t{label}\t{score:.4f}")


def run_stats(config: StatsConfig) -> None:
    """Print the statistics, and the options that use them."""
    features = FeatureConfig(config.sample_rate, config.bins, downmix=config.downmix)
    labels = config.labels or (distinct_labels(config.manifest) if config.manifest.is_file() else None)
    data = read_manifest(config.manifest, labels, config.root)
    if config.out:
        require_writable(config.out.parent)
    found = measure_statistics(data, features, config.workers)
    if config.out:
        write_atomically(config.out, (json.dumps(dataclasses.asdict(found)) + "\n").encode())
    print(f"mean {found.mean:.7f}, std {found.std:.7f}, frames {found.frames}, clips {found.clips}")
    print(f"--data.mean {found.mean:.7f} --data.std {found.std:.7f}")


def run_convert(config: ConvertConfig) -> None:
    """Print what became of every tensor, and where the model is."""
    print(convert(config))
    print(f"written: {config.out}")


COMMANDS: dict[str, tuple[type, Callable[..., None]]] = {
    "train": (TrainConfig, run_train),
    "measure": (MeasureConfig, run_measure),
    "predict": (PredictConfig, run_predict),
    "stats": (StatsConfig, run_stats),
    "convert": (ConvertConfig, run_convert),
}


def guarded(action: Callable[[], object]) -> int:
    """Run and return the exit code; a user's mistake becomes one line on stderr, never a traceback."""
    try:
        action()
    except Interrupted as error:
        print(f"flexiast: {error}", file=sys.stderr)
        return EXIT_INTERRUPTED
    except FlexiASTError as error:
        print(f"flexiast: error: {error}", file=sys.stderr)
        return EXIT_USER_ERROR
    except BrokenPipeError:  # whoever read our output has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        print(f"flexiast: error: {error.filename or 'system'}: {error.strerror or error}", file=sys.stderr)
        return EXIT_USER_ERROR
    except KeyboardInterrupt:
        return 130
    return 0


def _log_to_stderr() -> None:
    """What the package reports while it works goes to stderr; of several processes the leading one informs."""
    rank = os.environ.get("RANK", "0")
    handler = logging.StreamHandler()
    handler.setFormatter(
        logging.Formatter("flexiast: %(message)s" if rank == "0" else f"flexiast[{rank}]: %(message)s")
    )
    logger = logging.getLogger("flexiast")
    logger.handlers = [handler]
    logger.setLevel(logging.INFO if rank == "0" else logging.WARNING)


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of `flexiast`; returns the exit code."""

    def run() -> None:
        config = tyro.extras.subcommand_cli_from_dict(
            {name: config_type for name, (config_type, _) in COMMANDS.items()}, args=argv, prog="flexiast"
        )
        action = next(action for config_type, action in COMMANDS.values() if isinstance(config, config_type))
        _log_to_stderr()
        action(config)

    return guarded(run)


def measure_main(argv: Sequence[str] | None = None) -> int:
    """Entry point of `measure_flexibility.py`."""
    return guarded(lambda: run_measure(tyro.cli(MeasureConfig, args=argv, prog="measure_flexibility.py")))


if __name__ == "__main__":
    sys.exit(main())
