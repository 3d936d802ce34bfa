"""Commands as functions: `flexiast.train`, `flexiast.examine` and `flexiast.curve`."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

from ..classifier.audio_classifier import AudioClassifier
from ..classifier.curve import Curve
from ..classifier.load import load
from ..doctor.finding import Examination
from .command_line import read_arguments, table_options


def train(data: str | Path | Mapping[str, Any], out: str | Path = "exp/run", **settings: Any) -> AudioClassifier:
    """Train in `out`, or go on with the training there; returns the best model.

    data: what to train on, or a mapping of the `data.` settings. settings: those of `flexiast train`, nested as in a
    file of options: `train("sounds", epochs=20, patches={"sizes": [16, 32]})`. For one process; torchrun starts the
    command. Raises FlexiASTError for wrong input before anything is written, and as `traintest.train.train` does.
    """
    from ..traintest.train import train as train_as_configured

    section = dict(data) if isinstance(data, Mapping) else {"train": data}
    config = configuration("train", {"data": section, "out": out, **settings})
    return load(train_as_configured(config, progress=not config.quiet))


def examine(subject: str | Path | None = None, **settings: Any) -> Examination:
    """What is wrong with an installation (None), a data set, a checkpoint or a run: the findings of `flexiast doctor`.

    settings: those of `flexiast doctor`. Raises FlexiASTError if the subject cannot be read at all.
    """
    from .doctor import examine as examine_as_configured

    config = configuration("doctor", settings, *([] if subject is None else [subject]))
    return examine_as_configured(config, progress=not config.quiet)


def curve(checkpoint: str | Path, data: str | Path, **settings: Any) -> Curve:
    """Measure what each patch size of a model gives and costs, and keep that in its checkpoint, as `flexiast curve`.

    data: validation clips. settings: those of `flexiast curve`. Raises FlexiASTError for wrong input before measuring.
    """
    from .curve import curve as measure_as_configured

    config = configuration("curve", {"data": data, **settings}, checkpoint)
    return measure_as_configured(config, progress=not config.quiet)[0]


def configuration(command: str, settings: Mapping[str, Any], *subjects: str | Path) -> Any:
    """A command's configuration from settings as in a file of options; read and checked as on the command line.

    Raises ConfigError for settings that the command does not have or that are out of range.
    """
    options = table_options(_plain(settings), command)
    words = [word for option in options.values() for word in option]
    config_type = import_module(f".{command}", __package__).CONFIG
    return read_arguments(config_type, [*map(str, subjects), *words], f"flexiast {command}")


def _plain(value: Any) -> Any:
    """Tuples as lists, and whatever is no number and no text as text."""
    if isinstance(value, Mapping):
        return {name: _plain(one) for name, one in value.items()}
    if type(value) in (list, tuple):
        return [_plain(one) for one in value]
    return value if isinstance(value, (bool, int, float)) else str(value)
