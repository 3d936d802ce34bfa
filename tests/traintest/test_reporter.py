"""What the bar of a training shows."""

import io
from pathlib import Path
from types import SimpleNamespace

from flexiast import PatchSize
from flexiast.runtime.bars import tqdm
from flexiast.traintest.config import TrainConfig
from flexiast.traintest.options import DataConfig
from flexiast.traintest.progress import Progress
from flexiast.traintest.reporter import Reporter
from flexiast.traintest.validation import Validation


def test_the_bar_shows_loss_rate_eta_and_the_last_validation() -> None:
    plan = SimpleNamespace(steps_per_epoch=10, total_steps=100)
    reporter = Reporter(TrainConfig(DataConfig(Path("clips"), batch_size=4), loss="ce"), plan)
    with tqdm(total=100, unit="step", file=io.StringIO(), mininterval=0) as bar:

        def shown_after_steps(step: int) -> str:
            bar.update()
            progress = Progress(step=step, losses=[0.25, 0.75])
            reporter.steps(progress, bar, (PatchSize(16, 16),), lr=1e-3)
            return str(bar)

        before = shown_after_steps(10)
        assert "loss=0.500" in before
        assert "patch=16" in before
        assert "val" not in before
        for score in (0.5, 0.934):
            curve = {"16": {"accuracy": score, "loss": 1.0}}
            reporter.validated(Progress(step=20), Validation(score, curve, 0, 6), lr=1e-3)
        after = shown_after_steps(30)
        assert "val_accuracy=93.4%" in after
        assert "/100 [00:00<" in after  # and the time that is left
        reporter.validated(Progress(step=40), Validation(), lr=1e-3)  # without validation clips: the last one stays
        assert "val_accuracy=93.4%" in shown_after_steps(50)
