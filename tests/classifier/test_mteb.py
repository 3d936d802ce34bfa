"""MTEB's encoder protocol: our embeddings, in order, for batches as its loaders make them; the package's own check."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from flexiast.classifier.mteb import Encoder
from flexiast.errors import ConfigError, DataError
from tests.classifier.test_audio_classifier import classifier, noise


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Encoder:
    path = tmp_path_factory.mktemp("mteb") / "model"
    classifier().save_pretrained(path)
    return Encoder(str(path), patch_size="16x4")


def item(seconds: float, rate: int = 16_000) -> dict:
    return {"array": noise(seconds, rate=rate).numpy(), "sampling_rate": rate}


def test_batches_of_sounds_of_any_rate_and_length_become_our_embeddings(encoder: Encoder) -> None:
    batches = [{"audio": [item(0.3), item(1.3)], "id": ["a", "b"]}, {"audio": [item(0.4, 8_000)]}]
    vectors = encoder.encode(batches, task_metadata=None, hf_split="test", hf_subset="default", batch_size=2)
    assert (vectors.shape, vectors.dtype) == ((3, 16), np.float32)
    sounds = [sound for batch in batches for sound in batch["audio"]]
    expected = torch.stack([classifier().embed(sound, "16x4") for sound in sounds])
    torch.testing.assert_close(torch.from_numpy(vectors), expected)


def test_similarities_are_cosines(encoder: Encoder) -> None:
    one, other = np.array([[3.0, 4.0], [1.0, 0.0]]), np.array([[4.0, 3.0], [0.0, 2.0]])
    torch.testing.assert_close(encoder.similarity(one, other), torch.tensor([[0.96, 0.8], [0.8, 0.0]]))
    torch.testing.assert_close(encoder.similarity_pairwise(one, other), torch.tensor([0.96, 0.0]))


def test_what_it_cannot_encode_is_one_line(encoder: Encoder, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="task x: found text, expected audio"):
        encoder.encode([{"text": ["a"]}], task_metadata="x")
    short = {"array": np.zeros(3, np.float32), "sampling_rate": 16_000}
    with pytest.raises(DataError, match="sound 3: not usable"):
        encoder.encode([{"audio": [item(0.3)] * 2}, {"audio": [item(0.3), short]}], task_metadata="x")
    monkeypatch.setitem(sys.modules, "mteb.models", None)
    with pytest.raises(ConfigError, match="the extra `mteb`"):
        _ = encoder.mteb_model_meta


def test_the_package_takes_it_for_an_encoder(encoder: Encoder, tmp_path: Path) -> None:
    mteb = pytest.importorskip("mteb")
    assert isinstance(encoder, mteb.EncoderProtocol)
    assert encoder.mteb_model_meta.embed_dim == 16
