"""What a model must beat to have learnt anything: logistic regression on the mean and deviation of each mel bin."""

from __future__ import annotations

import warnings

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.multiclass import OneVsRestClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from ..data.manifest import Manifest
from ..data.survey import Survey
from ..models.config import Loss
from .metrics import Metrics, classification_metrics


def baseline(train: Manifest, seen: Survey, val: Manifest, val_seen: Survey, loss: Loss) -> Metrics:
    """Metrics on the validation clips that were looked at; takes about a second."""
    targets, val_targets = _targets(train, seen), _targets(val, val_seen)
    scaler, model = StandardScaler(), LogisticRegression(max_iter=200, C=0.1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of classes without a clip among those seen, and of a slow convergence
        if loss == "ce":
            pipeline = make_pipeline(scaler, model).fit(seen.summary, targets.argmax(axis=1))
            scores = np.zeros(val_targets.shape)
            scores[:, pipeline.classes_] = pipeline.predict_proba(val_seen.summary)
        else:
            pipeline = make_pipeline(scaler, OneVsRestClassifier(model)).fit(seen.summary, targets)
            scores = pipeline.predict_proba(val_seen.summary)
    return classification_metrics(scores, val_targets)


def _targets(manifest: Manifest, seen: Survey) -> np.ndarray:
    targets = np.zeros((len(seen.clips), len(manifest.labels)), dtype=np.float32)
    for row, clip in enumerate(seen.clips):
        targets[row, list(manifest.clips[clip].classes)] = 1
    return targets
