"""Files of scores: both formats, clips by the end of their path, classes by name, several views; what is refused."""

from pathlib import Path

import numpy as np
import pytest
import torch

from flexiast.data.manifest import Clip, Labels, Manifest
from flexiast.data.scores import scores_of, write_scores
from flexiast.errors import ConfigError, DataError

LABELS = Labels(("/m/1", "/m/2"), ("dog", "cat"))
CLIPS = ("/data/a/1.wav", "/data/a/2.wav", "/data/b/3.wav")


def manifest(*paths: str) -> Manifest:
    return Manifest(Path("data"), tuple(Clip(Path(path), (0,)) for path in paths or CLIPS), LABELS)


def npz(path: Path, **arrays: object) -> Path:
    np.savez(path, **{name: np.array(value) for name, value in arrays.items()})
    return path


PROBABILITIES = np.array([[0.1, 0.2, 0.7], [0.5, 0.25, 0.25], [0.6, 0.4, 0.0]], dtype=np.float32)


@pytest.mark.parametrize("suffix", [".npz", ".parquet"])
@pytest.mark.parametrize(
    "names", [CLIPS, ("a/1.wav", "a/2.wav", "b/3.wav"), ("1.wav", "2.wav", "3"), ("a/1", "2", "3")]
)
def test_clips_and_classes_are_found_by_name(suffix: str, names, tmp_path: Path) -> None:
    if suffix == ".parquet":
        pytest.importorskip("pyarrow")
    path = tmp_path / f"s{suffix}"
    write_scores(path, names[::-1], ["cow", "/m/2", "dog"], PROBABILITIES[::-1])
    found = scores_of(path, manifest(), single_label=False)
    torch.testing.assert_close(found, torch.from_numpy(PROBABILITIES[:, [2, 1]]))
    share = scores_of(path, manifest(), single_label=True)
    torch.testing.assert_close(share, found / found.sum(dim=1, keepdim=True))


def test_logits_become_probabilities_and_views_their_mean(tmp_path: Path) -> None:
    logits = np.array([[0.0, 2.0], [1.0, -1.0], [3.0, 0.0], [0.5, 0.5]], dtype=np.float32)
    clips = ["1", "1", "2", "3"]
    path = npz(tmp_path / "s.npz", clip=clips, labels=["dog", "cat"], logits=logits)
    for single, to_probabilities in ((True, lambda x: x.softmax(1)), (False, torch.sigmoid)):
        by_row = to_probabilities(torch.from_numpy(logits))
        expected = torch.stack([by_row[:2].mean(0), by_row[2], by_row[3]])
        torch.testing.assert_close(scores_of(path, manifest(), single_label=single), expected)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        (
            {"clip": ["1", "2"], "labels": ["dog", "cat"], "logits": np.zeros((2, 2))},
            "no scores of 1 of 3 clips; the first: /data/b/3.wav; the file's first: 1",
        ),
        (
            {"clip": ["1"], "labels": ["dog"], "logits": np.zeros((1, 1))},
            "no scores of 1 of 2 classes; the first: cat; the file's first: dog",
        ),
        (
            {"clip": ["1", "2", "3"], "labels": ["dog", "cat"], "probabilities": [[1, 0], [0, 0], [0, 1]]},
            "only zeros for 2",
        ),
        ({"clip": ["1"], "labels": ["dog", "cat", "dog"], "logits": np.zeros((1, 3))}, "the label 'dog' twice"),
        (
            {"clip": np.array(["1"], object), "labels": ["dog"], "logits": [[0]]},
            r"Python objects, .*array\.astype\(str\)",
        ),
        ({"clip": ["1"], "labels": ["dog", "cat"], "logits": np.zeros((1, 3))}, r"found scores \(1, 3\), expected"),
        ({"clip": ["1"], "labels": ["dog", "cat"], "logits": [[0, np.nan]]}, "scores that are not finite"),
        ({"clip": ["1"], "labels": ["dog", "cat"], "probabilities": [[0, 1.5]]}, "probabilities outside 0 to 1"),
        ({"clip": ["1"], "scores": [[0.5]]}, "found clip, scores, expected clip, labels, and probabilities or logits"),
    ],
)
def test_what_does_not_fit_is_named(arrays, message: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=message):
        scores_of(npz(tmp_path / "s.npz", **arrays), manifest(), single_label=True)


def test_names_may_be_bytes_or_numbers(tmp_path: Path) -> None:
    path = npz(
        tmp_path / "s.npz", clip=[3, 2, 1], labels=[b"cat", b"dog"], probabilities=[[0, 1], [1, 0], [0.25, 0.75]]
    )
    found = scores_of(path, manifest(), single_label=True)
    assert found.tolist() == [[0.75, 0.25], [0, 1], [1, 0]]


def test_a_name_that_fits_two_clips_is_refused_and_so_is_no_file_of_scores(tmp_path: Path) -> None:
    path = npz(tmp_path / "s.npz", clip=["1.wav"], labels=["dog", "cat"], logits=np.zeros((1, 2)))
    with pytest.raises(DataError, match=r"'1\.wav' stands for both /a/1\.wav and /b/1\.wav"):
        scores_of(path, manifest("/a/1.wav", "/b/1.wav"), single_label=True)
    (tmp_path / "bad.npz").write_bytes(b"no archive")
    with pytest.raises(DataError, match=r"bad\.npz: not readable as scores"):
        scores_of(tmp_path / "bad.npz", manifest(), single_label=True)
    with pytest.raises(ConfigError, match=r"expected a file name that ends in \.npz or \.parquet"):
        scores_of(tmp_path / "s.csv", manifest(), single_label=True)
