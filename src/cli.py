"""The command line: `flexiast train | measure | predict`, made from the same dataclasses that Python users fill in."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import tyro

from .errors import FlexiASTError
from .loading import load
from .traintest.config import PatchArg, TrainConfig
from .traintest.measure import MeasureConfig, format_table, measure
from .traintest.train import Interrupted, train

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


COMMANDS: dict[str, tuple[type, Callable[..., None]]] = {
    "train": (TrainConfig, run_train),
    "measure": (MeasureConfig, run_measure),
    "predict": (PredictConfig, run_predict),
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
    except KeyboardInterrupt:
        return 130
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of `flexiast`; returns the exit code."""

    def run() -> None:
        config = tyro.extras.subcommand_cli_from_dict(
            {name: config_type for name, (config_type, _) in COMMANDS.items()}, args=argv, prog="flexiast"
        )
        action = next(action for config_type, action in COMMANDS.values() if isinstance(config, config_type))
        action(config)

    return guarded(run)


def measure_main(argv: Sequence[str] | None = None) -> int:
    """Entry point of `measure_flexibility.py`."""
    return guarded(lambda: run_measure(tyro.cli(MeasureConfig, args=argv, prog="measure_flexibility.py")))


if __name__ == "__main__":
    sys.exit(main())
