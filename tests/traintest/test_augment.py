"""Augmentation: random numbers of the right kind from keys alone, and what each operation may change."""

import numpy as np
import pytest
import torch
from scipy import stats

from flexiast.errors import ConfigError
from flexiast.features import FeatureConfig
from flexiast.traintest.augment import (
    AugmentConfig,
    add_noise,
    augment_features,
    clip_keys,
    mask_band,
    mixup,
    roll_frames,
    stretch_frames,
    uniform,
)


def keys(clips: int, seed: int = 0, epoch: int = 0) -> torch.Tensor:
    """Keys of the first clips of a data set."""
    return clip_keys(seed, torch.full((clips,), epoch), torch.arange(clips))


# Random numbers ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "numbers",
    [
        lambda: uniform(keys(100_000), stream=0),  # across clips
        lambda: uniform(keys(1), 100_000, stream=5),  # within a clip
        lambda: torch.stack([uniform(keys(1), stream=s) for s in range(2000)]),  # across uses
        lambda: torch.stack([uniform(keys(1, epoch=e), stream=0) for e in range(2000)]),
        lambda: torch.stack([uniform(keys(1, seed=s), stream=0) for s in range(2000)]),
    ],
    ids=["clips", "numbers", "streams", "epochs", "seeds"],
)
def test_numbers_are_uniform_and_uncorrelated(numbers):
    u = numbers().flatten().double().numpy()
    assert u.min() >= 0
    assert u.max() < 1
    assert stats.kstest(u, "uniform").pvalue > 1e-3
    # Neighbours' correlation is normal with a standard deviation of 1 / sqrt(n).
    assert abs(np.corrcoef(u[:-1], u[1:])[0, 1]) < 4 / np.sqrt(len(u))
    assert u.mean() == pytest.approx(0.5, abs=4 * np.sqrt(1 / 12 / len(u)))
    assert u.var() == pytest.approx(1 / 12, abs=4 * np.sqrt(1 / 180 / len(u)))


@pytest.mark.parametrize("change", [{"seed": 1}, {"epoch": 1}])
def test_seeds_and_epochs_give_unrelated_numbers(change):
    pair = uniform(keys(10_000), stream=0), uniform(keys(10_000, **change), stream=0)
    assert abs(np.corrcoef(*pair)[0, 1]) < 4 / np.sqrt(10_000)


def test_streams_give_unrelated_numbers():
    pair = uniform(keys(10_000), stream=1), uniform(keys(10_000), stream=2)
    assert abs(np.corrcoef(*pair)[0, 1]) < 4 / np.sqrt(10_000)


def test_numbers_depend_on_the_clip_and_not_on_its_place_in_a_batch():
    everyone, order = keys(8), torch.tensor([5, 2, 7])
    one_by_one = clip_keys(0, torch.zeros(3, dtype=torch.int64), order)
    assert torch.equal(uniform(everyone, 3, stream=1)[order], uniform(one_by_one, 3, stream=1))


# Operations ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("axis", "extent"), [(1, 40), (2, 32)])
@pytest.mark.parametrize("widest", [1, 10, 1000])
def test_mask_is_one_band_not_wider_than_asked(axis, extent, widest):
    masked = mask_band(torch.ones(2000, 40, 32), widest, axis, keys(2000)) == 0
    assert torch.equal(masked.any(dim=3 - axis), masked.all(dim=3 - axis))  # whole rows or columns
    band = masked.any(dim=3 - axis).int()  # (B, extent)
    edges = torch.diff(band, prepend=torch.zeros(2000, 1), append=torch.zeros(2000, 1)).abs().sum(dim=1)
    widths = band.sum(dim=1)
    assert ((edges == 2) | (widths == 0)).all()
    assert widths.max() == min(widest, extent) - 1  # [0, widest), and 2000 draws reach its end
    assert widths.min() == 0
    # Every place is masked in some clip, except the last: rounding start and width down never gets there.
    assert band.any(dim=0).tolist() == [widest > 1] * (extent - 1) + [False]


def test_roll_shifts_frames_both_ways_and_keeps_them_all():
    clip = torch.arange(20.0)[None, :, None].expand(500, 20, 2)
    rolled = roll_frames(clip, 3, keys(500))
    shifts = {int(r[0, 0]) for r in rolled}
    assert shifts == {17, 18, 19, 0, 1, 2, 3}
    for row in rolled[:20]:
        assert torch.equal(row, torch.roll(clip[0], -int(row[0, 0]), dims=0))


def test_a_stretched_clip_is_read_at_its_rate_and_padded_at_its_end():
    clips, frames = 400, 50
    log_mel = torch.rand(clips, frames, 3)
    rates = (1 + 0.3 * (2 * uniform(keys(clips), 1, stream=9) - 1))[:, 0].numpy()
    stretched = stretch_frames(log_mel, 0.3, keys(clips)).numpy()
    for clip, rate in enumerate(rates):
        place = np.arange(frames) * rate
        for band in range(3):
            expected = np.interp(place, np.arange(frames), log_mel[clip, :, band].numpy())
            np.testing.assert_allclose(stretched[clip, :, band], np.where(place > frames - 1, 0, expected), atol=1e-4)
    assert stats.kstest((rates - 0.7) / 0.6, "uniform").pvalue > 0.01
    assert torch.equal(stretch_frames(log_mel, 0.0, keys(clips)), log_mel)


def test_noise_is_bounded_and_differs_in_strength():
    noise = add_noise(torch.zeros(200, 30, 20), 0.1, keys(200))
    strengths = noise.flatten(1).max(dim=1).values
    assert noise.min() >= 0
    assert strengths.max() < 0.1
    assert strengths.max() > 0.09
    assert strengths.min() < 0.01


def test_mixup_weights_are_beta_distributed():
    clips = 100_000
    targets = torch.eye(2).repeat(clips // 2, 1)  # neighbours have different classes
    _, _, mixed = mixup(torch.zeros(clips, 1), torch.ones(clips).long(), targets, 1.0, keys(clips))
    own = (mixed * targets).sum(dim=1)
    assert stats.kstest(own.numpy(), stats.beta(10, 10).cdf).pvalue > 1e-3


def test_mixup_mixes_documented_pairs_and_leaves_the_odd_clip():
    waveform, lengths = torch.eye(5) * 2, torch.tensor([5, 3, 2, 4, 1])
    mixed, longest, targets = mixup(waveform, lengths, torch.eye(5), 1.0, keys(5))
    assert [row.nonzero().flatten().tolist() for row in mixed] == [[0, 1], [0, 1], [2, 3], [2, 3], [4]]
    assert longest.tolist() == [5, 5, 4, 4, 1]
    torch.testing.assert_close(mixed, 2 * targets)
    torch.testing.assert_close(targets.sum(dim=1), torch.ones(5))


def test_mixup_share():
    targets = torch.eye(2).repeat(2000, 1)
    mixed = mixup(torch.zeros(4000, 1), torch.ones(4000).long(), targets, 0.3, keys(4000))[2]
    changed = (mixed != targets).any(dim=1).float().mean()
    assert changed == pytest.approx(0.3, abs=4 * np.sqrt(0.3 * 0.7 / 4000))


def test_mixup_share_of_zero_changes_nothing():
    given = torch.randn(6, 10), torch.arange(1, 7), torch.eye(6)
    assert all(torch.equal(a, b) for a, b in zip(given, mixup(*given, 0.0, keys(6)), strict=True))


# Together ------------------------------------------------------------------------------------------------------


def test_without_augmentation_there_is_only_normalisation():
    log_mel, features = torch.randn(3, 20, 8), FeatureConfig(bins=8, frames=20)
    assert torch.equal(augment_features(log_mel, features, AugmentConfig(), keys(3)), features.normalise(log_mel))


def test_masked_places_look_like_padding_and_each_operation_is_applied():
    log_mel, features = torch.full((50, 40, 8), -5.0), FeatureConfig(bins=8, frames=40)
    plain = features.normalise(-5.0)
    masked = augment_features(log_mel, features, AugmentConfig(freq_mask=4, time_mask=20), keys(50))
    assert masked.unique().tolist() == pytest.approx([plain, features.pad_value])
    together = augment_features(log_mel, features, AugmentConfig(4, 20, roll=10, noise=0.1), keys(50))
    in_turn = roll_frames(add_noise(masked, 0.1, keys(50)), 10, keys(50))  # AST's order
    assert torch.equal(together, in_turn)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("freq_mask", -1),
        ("time_mask", -1),
        ("roll", -1),
        ("noise", -0.1),
        ("mixup", -0.1),
        ("mixup", 1.1),
        ("stretch", 1.0),
    ],
)
def test_wrong_setting_is_refused_by_name(field, value):
    with pytest.raises(ConfigError, match=f"{field}.*{value}"):
        AugmentConfig(**{field: value})
