"""FlexiAST: one audio spectrogram transformer for every patch size."""

from .classifier import AudioClassifier
from .features import FeatureConfig, LogMel
from .loading import load
from .models import resize
from .models.flexiast import FlexiAST, FlexiASTConfig
from .models.geometry import PatchSize
from .traintest import metrics

__version__ = "0.1.0"
__all__ = [
    "AudioClassifier",
    "FeatureConfig",
    "FlexiAST",
    "FlexiASTConfig",
    "LogMel",
    "PatchSize",
    "load",
    "metrics",
    "resize",
]
