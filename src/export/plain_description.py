"""Metadata of an exported file as other loaders look for it: plain text under usual names."""

from __future__ import annotations

import csv
import io

from ..classifier.audio_classifier import AudioClassifier


def plain_description(model: AudioClassifier) -> dict[str, str]:
    """What other loaders look for in a file's metadata, under their names and as plain text.

    `class_labels_indices.csv` is AudioSet's table `index,mid,display_name`, as sherpa-onnx reads labels.
    """
    labels, table = model.labels, io.StringIO()
    rows = csv.writer(table, lineterminator="\n")
    rows.writerow(("index", "mid", "display_name"))
    rows.writerows(zip(range(len(labels)), labels.mids, labels.names, strict=True))
    return {
        "model_type": "flexiast",
        "sample_rate": str(model.feature_config.sample_rate),
        "labels": "\n".join(labels.names),
        "class_labels_indices.csv": table.getvalue(),
    }
