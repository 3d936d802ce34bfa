"""The command line: `flexiast train | measure | ...`, made from the same dataclasses that Python users fill in."""

from __future__ import annotations

import dataclasses
import io
import json
import logging
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import tyro

from .bench import BenchConfig, bench, format_bench
from .command_line import parsed
from .conversion import ConvertConfig, convert
from .data.dataset import MAX_WORKERS
from .data.manifest import distinct_labels, read_manifest
from .data.pack import PackConfig, pack
from .data.statistics import measure_statistics
from .errors import ConfigError, FlexiASTError
from .export import Format, Input, export
from .features import FeatureConfig
from .files import write_atomically
from .loading import load
from .predict import Aggregate
from .traintest.checkpointing import require_writable
from .traintest.config import PatchArg, TrainConfig
from .traintest.flexify import FlexifyConfig, flexify
from .traintest.interruption import Interrupted
from .traintest.measure import MeasureConfig, format_table, measure
from .traintest.stepper import is_out_of_memory
from .traintest.train import train

EXIT_USER_ERROR = 2
EXIT_INTERRUPTED = 75  # EX_TEMPFAIL of sysexits.h: the same command, run again, goes on


@dataclasses.dataclass(frozen=True)
class PredictConfig:
    """Name the sounds in audio files."""

    checkpoint: tyro.conf.Positional[Path]
    """Checkpoint of any readable format."""
    audio: tyro.conf.Positional[tuple[Path, ...]]
    """Audio files (wav, flac, ogg, mp3)."""
    patch_size: PatchArg | None = None
    """Patch size to use (default: the model's base patch)."""
    top_k: int = 5
    """Classes named for each file."""
    hop: float | None = None
    """Seconds between the windows in which a file longer than the model's window is heard (default: side by side)."""
    aggregate: Aggregate = "mean"
    """Scores of such a file from those of its windows."""
    windows: bool = False
    """Name the classes of every window, with start and end in seconds, instead of those of the file."""


@dataclasses.dataclass(frozen=True)
class ExportConfig:
    """Write one patch size as a fixed model for ONNX Runtime, transformers or PyTorch, and check that it agrees."""

    checkpoint: tyro.conf.Positional[Path]
    """Model directory, or any other readable checkpoint."""
    out: Path
    """File to write, ending in .onnx or .pt2; for `hf` a new directory."""
    format: Format = "onnx"
    """`onnx`: ONNX Runtime. `hf`: a transformers AST for pipeline("audio-classification"). `torch`: torch.export."""
    patch_size: PatchArg | None = None
    """Patch size to keep (default: the model's base patch)."""
    input: Input = "waveform"
    """`waveform`: (batch, samples), log-mel inside. `spectrogram`: normalised log-mel (batch, frames, bins)."""


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
        if not 0 <= self.workers <= MAX_WORKERS:
            raise ConfigError(f"workers: found {self.workers}, expected 0 to {MAX_WORKERS}")


def _say(text: str) -> None:
    """Print, in one process if torchrun has started several."""
    if os.environ.get("RANK", "0") == "0":
        print(text)


def run_train(config: TrainConfig) -> None:
    """Train, or resume, and say where the model is."""
    _say(f"trained model: {train(config)}")


def run_flexify(config: FlexifyConfig) -> None:
    """Flexify, and print the curves before and after."""
    _say(f"{format_table(flexify(config))}\nflexible model: {config.train.out}")


def run_measure(config: MeasureConfig) -> None:
    """Measure, and print the table."""
    _say(f"{format_table(measure(config))}\nwritten: {config.out}/flexibility.csv, .json, .png")


def run_predict(config: PredictConfig) -> None:
    """Print the best classes of each file."""
    model = load(config.checkpoint)
    for path in config.audio:
        if config.windows:
            for window in model.predict_windows(path, config.patch_size, hop=config.hop):
                for label, score in model.best(window.scores, config.top_k):
                    print(f"{path}\t{window.start:.2f}\t{window.end:.2f}\t{label}\t{score:.4f}")
            continue
        best = model.predict(path, config.patch_size, config.top_k, hop=config.hop, aggregate=config.aggregate)
        for prediction in best:
            print(f"{path}\t{prediction[0]}\t{prediction[1]:.4f}")


def run_export(config: ExportConfig) -> None:
    """Export, and say how well it agrees."""
    done = export(load(config.checkpoint), config.out, config.format, config.patch_size, config.input)
    print(f"written: {done.path} (largest difference of logits {done.difference:.1e}, run by {done.runtime})")


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


def run_bench(config: BenchConfig) -> None:
    """Time, and print the table."""
    print(format_bench(bench(config)))
    if config.out is not None:
        print(f"written: {config.out}/bench.csv, .json, .png")


def run_pack(config: PackConfig) -> None:
    """Pack, and say what is where."""
    packed = pack(config)
    print(f"written: {config.out}, {len(packed)} clips")


COMMANDS: dict[str, tuple[type, Callable[..., None]]] = {
    "train": (TrainConfig, run_train),
    "flexify": (FlexifyConfig, run_flexify),
    "measure": (MeasureConfig, run_measure),
    "predict": (PredictConfig, run_predict),
    "export": (ExportConfig, run_export),
    "stats": (StatsConfig, run_stats),
    "convert": (ConvertConfig, run_convert),
    "bench": (BenchConfig, run_bench),
    "pack": (PackConfig, run_pack),
}


def guarded(action: Callable[[], object]) -> int:
    """Run and return the exit code; a user's mistake becomes one line on stderr, never a traceback."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="surrogateescape")  # file names are bytes, which need not be UTF-8
    try:
        action()
    except Interrupted as error:
        print(f"flexiast: {error}", file=sys.stderr)
        return EXIT_INTERRUPTED
    except FlexiASTError as error:
        print(f"flexiast: error: {' '.join(str(error).splitlines())}", file=sys.stderr)
        return EXIT_USER_ERROR
    except BrokenPipeError:  # whoever read our output has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        print(f"flexiast: error: {error.filename or 'system'}: {error.strerror or error}", file=sys.stderr)
        return EXIT_USER_ERROR
    except KeyboardInterrupt:
        return 130
    except (MemoryError, RuntimeError) as error:
        if not isinstance(error, MemoryError) and not is_out_of_memory(error):
            raise
        reason = (str(error).splitlines() or ["no reason given"])[0]
        print(
            f"flexiast: error: out of memory ({reason}); smaller batches or larger patches need less", file=sys.stderr
        )
        return EXIT_USER_ERROR
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
        types: dict[str, Any] = {name: config_type for name, (config_type, _) in COMMANDS.items()}
        config = parsed(lambda: tyro.extras.subcommand_cli_from_dict(types, args=argv, prog="flexiast"))
        action = next(action for config_type, action in COMMANDS.values() if isinstance(config, config_type))
        _log_to_stderr()
        action(config)

    return guarded(run)


def measure_main(argv: Sequence[str] | None = None) -> int:
    """Entry point of `measure_flexibility.py`."""
    return guarded(
        lambda: run_measure(parsed(lambda: tyro.cli(MeasureConfig, args=argv, prog="measure_flexibility.py")))
    )


if __name__ == "__main__":
    sys.exit(main())
