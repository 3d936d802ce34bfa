"""`flexiast predict`: name the sounds in audio files, folders of them, and manifests."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import tyro

from ..classifier.audio_classifier import AudioClassifier
from ..classifier.budget import cascade_arguments
from ..classifier.listening import Answer, answers
from ..classifier.load import load
from ..classifier.results import Choice
from ..classifier.tally import Aggregate
from ..data.manifest import require_tables
from ..data.shards import ShardMember
from ..data.sources import audio_sources
from ..errors import ConfigError, DataError
from ..reports.predictions import Part, Report, as_json, as_lines, require_results_file, results_file
from ..runtime.bars import tqdm
from ..runtime.output import Outcome
from ..runtime.side_by_side import use_threads
from ..runtime.terminal import printable
from .over_files import OverFiles

logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class PredictConfig(OverFiles):
    """Name the sounds in audio files. A file that cannot be used is reported, the rest goes on; exit code 2 then."""

    checkpoint: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="MODEL")]
    """Checkpoint of any readable format: a directory, a file, a Hub id."""
    audio: Annotated[tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="AUDIO [AUDIO ...]")]
    """Audio files, folders (with all folders below), patterns in quotes such as 'calls/**/*.wav', manifests; or an
    address, such as s3://bucket/calls/*.wav."""
    budget: str | None = None
    """Take the best patch size within 20ms, 5GFLOPs or 256tokens for each window, or the cheapest of accuracy>=0.9, by
    the curve that `flexiast curve` has put into the checkpoint."""
    cascade: tuple[str, ...] = ()
    """Hear every window at a coarse size, and only those in doubt at finer ones: `auto` for the curve's best cascade
    (within the budget on average, if there is one), or sizes such as 48 16 12 beside --threshold."""
    threshold: tuple[float, ...] = ()
    """Confidence, 0 to 1, below which a window goes on to the cascade's next size: one, or one for each step."""
    top_k: int = 5
    """Classes named for each file. A model that predicts numbers (loss mse) names all of them, with their values."""
    hop: float | None = None
    """A file longer than the model's window is split into windows this many seconds apart (default: side by side)."""
    window: float | None = None
    """Hear up to this many seconds in one pass, more than the model's window; its positions are stretched over them.
    The budget is still counted for the model's own window."""
    aggregate: Aggregate = "mean"
    """How the scores of such windows are combined into the file's."""
    windows: bool = False
    """Name the classes of every window, with its start and end in seconds, instead of those of the file."""
    out: Path | None = None
    """Write the results to this file, *.csv or *.json, instead of printing them; each is written as soon as it is
    ready."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.audio:
            raise ConfigError("audio: found no files, expected at least one file, folder, pattern or manifest")
        require_tables(self, *self.audio)
        if self.patch_size is not None and (self.budget or self.cascade):
            raise ConfigError(f"patch_size: found {self.patch_size} beside a budget or cascade, expected one of them")
        if self.out is not None:
            require_results_file(self.out, self.overwrite)


def run(config: PredictConfig) -> Outcome:
    """Print or write the best classes of each file. The outcome holds a DataError if some cannot be used."""
    sources, refused = audio_sources(config.audio, config.root, config)
    total = len(sources) + len(refused)
    if not sources and total == 1:
        raise DataError(refused[0].reason)
    use_threads(config.threads)
    model = load(config.checkpoint, config.device)
    choice = _choice(config, model)
    rule = choice.rule if choice else None
    how = config.hearing(len(sources), hop=config.hop, aggregate=config.aggregate, rule=rule, window=config.window)
    model.best(model.head.bias, config.top_k)  # so that a wrong top_k is reported before the work
    failed: list[str] = []
    done = 0
    try:
        with _shown(config, total, model.loss == "mse") as show:
            for name in refused:
                failed.append(name.reason)
                show(Report(str(name.path), [], name.reason))
            for answer in answers(model, sources, how, config.windows):
                report = _report(model, sources[answer.clip], answer, config.top_k)
                if choice:
                    sizes = tuple(map(str, answer.patch_sizes))
                    report = report._replace(patch_sizes=sizes, chosen=repr(choice))
                if report.error is not None:
                    failed.append(report.error)
                show(report)
                done += 1
    except KeyboardInterrupt:
        where = f"; their results are in {config.out}" if config.out and done else ""
        print(f"flexiast: stopped after {done} of {total} files{where}", file=sys.stderr)
        raise
    return _outcome(config, total, failed)


def _outcome(config: PredictConfig, total: int, failed: list[str]) -> Outcome:
    """What was done. A single file, whose answer stands on the terminal, needs no table."""
    good = total - len(failed)
    rows = {"files": f"{good:,}", "left out": f"{len(failed):,}" if failed else ""}
    failure = None
    if failed:
        failure = failed[0] if total == 1 else f"{len(failed)} of {total} files could not be used"  # and were reported
    return Outcome(
        written=config.out,
        summary=rows if config.out or total > 1 else {},
        results={"files": good, "failures": failed},
        streamed=config.out is None,
        failure=DataError(failure) if failure else None,
    )


def _choice(config: PredictConfig, model: AudioClassifier) -> Choice | None:
    """What is chosen for the budget or the cascade, if one is given; it is logged."""
    cascade, threshold = cascade_arguments(config.cascade, config.threshold)
    choice = model.choose(config.budget, cascade, threshold, precision=config.precision)
    if choice:
        logger.info("patch size %r", choice)
    return choice


def _report(model: AudioClassifier, source: Path | ShardMember, answer: Answer, top_k: int) -> Report:
    if answer.error is not None:
        return Report(str(source), [], str(answer.error))
    if answer.windows:
        parts = [Part(w.start, w.end, model.best(w.scores, top_k)) for w in answer.windows]
    else:
        parts = [Part(None, None, model.best(answer.scores, top_k))]
    return Report(str(source), parts, None, numbers=model.loss == "mse")


@contextlib.contextmanager
def _shown(config: PredictConfig, files: int, numbers: bool) -> Iterator:
    """Give a function that prints or writes a report and advances the progress bar."""
    with contextlib.ExitStack() as stack:
        add = (
            stack.enter_context(results_file(config.out, bool(config.budget or config.cascade), numbers))
            if config.out
            else None
        )
        hidden = config.quiet or not sys.stderr.isatty()
        bar = stack.enter_context(tqdm(total=files, unit="file", desc="predict", disable=hidden, leave=False))

        def show(report: Report) -> None:
            if add:
                add([report])
            elif config.json:
                tqdm.write(as_json(report), file=sys.stdout)
            elif report.error is None:
                tqdm.write(as_lines(report), file=sys.stdout)
            if report.error is not None and files > 1:  # a single one is reported at the end
                tqdm.write(f"flexiast: {printable(report.error)}", file=sys.stderr)
            bar.update()

        yield show


CONFIG = PredictConfig
