"""What a model must beat to have learnt anything: logistic or linear regression on means and deviations of mel bins."""

from __future__ import annotations

import warnings

import numpy as np
from sklearn.linear_model import LogisticRegression, RidgeCV
from sklearn.multiclass import OneVsRestClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from ..data.manifest import Manifest
from ..data.survey import Survey
from ..models.config import Loss
from .metrics import Metrics, classification_metrics
from .regression import RegressionMetrics, regression_metrics


def baseline(train: Manifest, seen: Survey, val: Manifest, val_seen: Survey, loss: Loss) -> Metrics | RegressionMetrics:
    """Metrics on the validation clips that were looked at; takes about a second."""
    targets, val_targets = train.targets(seen.clips.tolist()), val.targets(val_seen.clips.tolist())
    scaler, model = StandardScaler(), LogisticRegression(max_iter=200, C=0.1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of classes without a clip among those seen, and of a slow convergence
        if loss == "mse":
            ridge = RidgeCV(np.logspace(-1, 5, 7), alpha_per_target=True)
            pipeline = make_pipeline(scaler, ridge).fit(seen.summary, targets.astype(np.float64))
            scores = pipeline.predict(val_seen.summary).reshape(val_targets.shape)
            return regression_metrics(scores, val_targets, train.labels.names)
        if loss == "ce":
            pipeline = make_pipeline(scaler, model).fit(seen.summary, targets.argmax(axis=1))
            scores = np.zeros(val_targets.shape)
            scores[:, pipeline.classes_] = pipeline.predict_proba(val_seen.summary)
        else:
            pipeline = make_pipeline(scaler, OneVsRestClassifier(model)).fit(seen.summary, targets)
            scores = pipeline.predict_proba(val_seen.summary)
    return classification_metrics(scores, val_targets)
