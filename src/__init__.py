"""FlexiAST: one Audio Spectrogram Transformer for every patch size.

The names below are imported when they are first used, so that `import flexiast` is quick.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .classifier.audio_classifier import AudioClassifier
    from .classifier.load import load
    from .commands.calls import curve, examine, train
    from .features import FeatureConfig, LogMel
    from .models import resize
    from .models.config import FlexiASTConfig
    from .models.flexiast import FlexiAST
    from .models.geometry import PatchSize
    from .traintest import metrics

__version__ = "0.2.0"
__all__ = [
    "AudioClassifier",
    "FeatureConfig",
    "FlexiAST",
    "FlexiASTConfig",
    "LogMel",
    "PatchSize",
    "curve",
    "examine",
    "load",
    "metrics",
    "resize",
    "train",
]

_HOMES = {
    "AudioClassifier": "classifier.audio_classifier",
    "FeatureConfig": "features",
    "FlexiAST": "models.flexiast",
    "FlexiASTConfig": "models.config",
    "LogMel": "features",
    "PatchSize": "models.geometry",
    "curve": "commands.calls",
    "examine": "commands.calls",
    "load": "classifier.load",
    "train": "commands.calls",
}
_MODULES = {"metrics": "traintest.metrics", "resize": "models.resize"}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        value = getattr(import_module(f".{_HOMES[name]}", __name__), name)
    elif name in _MODULES:
        value = import_module(f".{_MODULES[name]}", __name__)
    elif name in ("models", "traintest"):  # for `flexiast.models.resize` and `flexiast.traintest.metrics` as they are
        value = import_module(f".{name}", __name__)
        import_module(f".{'models.resize' if name == 'models' else 'traintest.metrics'}", __name__)
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value
    return value
