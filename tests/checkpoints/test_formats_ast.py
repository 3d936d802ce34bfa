"""AST state dicts: golden logits, overlapping patches told by the positions, both ways without loss."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

import flexiast
from flexiast.checkpoints.checkpoint import Checkpoint, read_checkpoint
from flexiast.checkpoints.formats.ast import to_original_ast
from flexiast.checkpoints.formats.released_flexiast import to_released_flexiast
from flexiast.errors import CheckpointError, ConfigError
from flexiast.models.flexiast import FlexiAST

GOLDEN = Path(__file__).parents[1] / "golden"
PATCH_8, STRIDE_16 = GOLDEN / "flexirepo_ast_p8_tiny", GOLDEN / "ast_orig_s16_tiny"


def assert_golden(got: torch.Tensor, expected: np.ndarray) -> None:
    np.testing.assert_allclose(got.detach().numpy(), expected, atol=2e-5, rtol=0)  # see tests/golden/README.md


def released_ast(classes: int, frames: int, stride: int | None, width: int = 8) -> dict[str, torch.Tensor]:
    """An AST state dict as released, of a small random network."""
    config = flexiast.FlexiASTConfig(
        classes, frames, stride=stride, width=width, depth=1, heads=1, prefix_tokens=2, coverage="drop"
    )
    state = to_original_ast(Checkpoint(config, FlexiAST(config).state_dict()))
    return {f"module.{name}": tensor for name, tensor in state.items()}


@pytest.mark.parametrize(
    ("file", "key", "config"),
    [
        (PATCH_8, "logits_ast_8x8", {"patch_size": (8, 8), "stride": None, "prefix_tokens": 1, "frames": 256}),
        (STRIDE_16, "logits", {"patch_size": (16, 16), "stride": None, "prefix_tokens": 2, "frames": 256}),
    ],
    ids=["patch 8", "patch 16, stride 16"],
)
def test_golden_logits(file, key, config):
    golden = np.load(file.with_suffix(".npz"))
    model = flexiast.load(file.with_suffix(".pth"), heads=2)
    assert {name: getattr(model.config, name) for name in config} == config
    assert_golden(model(torch.from_numpy(golden["input"])), golden[key])


def test_golden_features_and_tokens():
    golden = np.load(STRIDE_16.with_suffix(".npz"))
    model, x = flexiast.load(STRIDE_16.with_suffix(".pth"), heads=2), torch.from_numpy(golden["input"])
    assert_golden(model.features(x), golden["feat"])
    positions = torch.cat([model.prefix_pos_embed, model.pos_embed.flatten(0, 1)])
    assert_golden(
        (model.embed_patches(x) - positions)[:, 2:], golden["tokens"]
    )  # before positions and prefix are added


def test_stride_10_under_the_original_names(tmp_path):
    golden, saved = np.load(GOLDEN / "hf_tiny_s10.npz"), read_checkpoint(GOLDEN / "hf_tiny_s10")
    torch.save(to_original_ast(saved), tmp_path / "ast.pth")
    model = flexiast.load(tmp_path / "ast.pth", heads=2)
    assert (model.config.stride, model.config.frames) == ((10, 10), 256)
    with torch.no_grad():
        for norm in (m for m in model.modules() if isinstance(m, torch.nn.LayerNorm)):
            norm.eps = 1e-12  # an AST file does not say that this one was trained with transformers' epsilon
        assert_golden(model(torch.from_numpy(golden["input"])), golden["logits"])


@pytest.mark.parametrize("prefix", ["module.", ""])
def test_two_prefix_flexiast_is_the_two_prefix_ast_at_its_own_patch(prefix, tmp_path):
    # The AudioSet release has this form: live patch and positions outside `v.`, dead ones of other shapes inside.
    ast = {name.removeprefix("module."): t for name, t in torch.load(STRIDE_16.with_suffix(".pth")).items()}
    state = {prefix + name: tensor for name, tensor in ast.items()}
    for live, dead in (
        ("patch_embed.proj.weight", "v.patch_embed.proj.weight"),
        ("patch_embed.proj.bias", "v.patch_embed.proj.bias"),
        ("pos_embed.pos_embed", "v.pos_embed"),
    ):
        state[prefix + live], state[prefix + dead] = ast[dead], torch.randn(1, 302, 64)
    names = json.loads((GOLDEN / "flexiast_deit_keys.json").read_text())
    assert {prefix + name.removeprefix("module.") for name in names} == state.keys()
    torch.save(state, tmp_path / "deit.pth")
    golden, model = np.load(STRIDE_16.with_suffix(".npz")), flexiast.load(tmp_path / "deit.pth", heads=2)
    assert model.load_report.format == "released FlexiAST state dict"
    assert_golden(model(torch.from_numpy(golden["input"])), golden["logits"])


# What a file does not say ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("frames", "stride", "positions"),
    [
        (1024, 10, 12 * 101),
        (1024, 12, 10 * 85),
        (1024, 14, 9 * 73),
        (1024, 16, 8 * 64),
        (128, 10, 12 * 12),
        (512, 10, 600),
    ],
)
def test_stride_and_length_are_told_by_the_number_of_positions(frames, stride, positions, tmp_path):
    # 12 x 101 positions at stride 10 on 1024 frames: AST, section 2.1
    torch.save(released_ast(5, frames, stride), tmp_path / "ast.pth")
    model = flexiast.load(tmp_path / "ast.pth")
    assert model.config.frames == model.feature_config.frames == frames
    assert model.config.stride == (None if stride == 16 else (stride, stride))
    assert model.pos_embed.shape[:2].numel() == positions
    assert any(f"stride {stride}, {frames} frames" in note for note in model.load_report.notes)


@pytest.mark.parametrize(("frames", "found"), [(None, "give the model's own `frames`"), (1000, "nor 1000")])
def test_an_unusual_length_has_to_be_given(frames, found, tmp_path):
    torch.save(released_ast(5, 100, 12), tmp_path / "ast.pth")
    with pytest.raises(CheckpointError, match=f"80 patch positions, which fit no stride.*{found}"):
        flexiast.load(tmp_path / "ast.pth", frames=frames)
    assert flexiast.load(tmp_path / "ast.pth", frames=100).config.stride == (12, 12)


@pytest.mark.parametrize(
    ("classes", "frames", "loss", "mean", "std"),
    [
        (527, 1024, "bce", -4.2677393, 4.5689974),  # AST, egs/audioset
        (35, 128, "bce", -6.845978, 5.5654526),  # AST, egs/speechcommands
        (50, 512, "ce", -6.6268077, 5.358466),  # AST, egs/esc50
        (35, 1024, "ce", -4.2677393, 4.5689974),  # no release: AudioSet's assumed
    ],
)
def test_features_and_loss_of_ast_releases(classes, frames, loss, mean, std, tmp_path):
    torch.save(released_ast(classes, frames, 10), tmp_path / "ast.pth")
    model = flexiast.load(tmp_path / "ast.pth")
    features = model.feature_config
    assert (model.loss, features.mean, features.std, features.downmix) == (loss, mean, std, "first")
    assert model.labels.numbered
    assumed = any("assumed" in note for note in model.load_report.notes)
    assert assumed == ((classes, frames) == (35, 1024))


@pytest.mark.parametrize(
    ("classes", "loss", "mean", "std"),
    [
        (527, "bce", -4.2677393, 4.5689974),
        (309, "bce", -5.0767093, 4.4533687),  # FlexiAST, egs/supvs_flexiast/vggsd_supvs.sh
        (1251, "ce", -3.7614744, 4.2011642),  # FlexiAST, egs/voxceleb/vox_sup_from16.sh
    ],
)
def test_features_and_loss_of_flexiast_releases(classes, loss, mean, std, tmp_path):
    config = flexiast.FlexiASTConfig(classes, 1024, width=8, depth=1, heads=1, coverage="drop")
    torch.save(to_released_flexiast(Checkpoint(config, FlexiAST(config).state_dict())), tmp_path / "flexiast.pth")
    model = flexiast.load(tmp_path / "flexiast.pth")
    assert (model.loss, model.feature_config.mean, model.feature_config.std) == (loss, mean, std)


# There and back --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("file", "write"),
    [
        (PATCH_8, to_original_ast),
        (STRIDE_16, to_original_ast),
        (GOLDEN / "flexiast_vit_tiny", to_released_flexiast),
    ],
    ids=["patch 8", "stride 16", "released FlexiAST"],
)
def test_there_and_back_is_exact(file, write, tmp_path):
    original = {name.removeprefix("module."): t for name, t in torch.load(file.with_suffix(".pth")).items()}
    checkpoint = read_checkpoint(file.with_suffix(".pth"), heads=2)
    written = write(checkpoint)
    assert written.keys() == original.keys() - checkpoint.report.ignored.keys()
    assert all(torch.equal(tensor, original[name]) for name, tensor in written.items())
    torch.save(written, tmp_path / "again.pth")
    again = read_checkpoint(tmp_path / "again.pth", heads=2)
    assert again.config == checkpoint.config
    assert all(torch.equal(tensor, checkpoint.state[name]) for name, tensor in again.state.items())


@pytest.mark.parametrize(
    ("write", "settings", "found"),
    [
        (to_original_ast, {"pool": "mean"}, "pool"),
        (to_released_flexiast, {"pool": "mean"}, "pool"),
        (to_released_flexiast, {"stride": 10}, "stride"),
        (to_released_flexiast, {"coverage": "pad"}, "coverage"),
    ],
)
def test_what_a_format_cannot_hold_is_refused(write, settings, found):
    options = {"coverage": "drop"} | settings
    config = flexiast.FlexiASTConfig(3, 64, width=8, depth=1, heads=1, **options)
    with pytest.raises(ConfigError, match=found):
        write(Checkpoint(config, FlexiAST(config).state_dict()))


@pytest.mark.parametrize(
    ("damage", "found"),
    [
        (lambda s: s.pop("module.v.norm.bias"), r"missing \(v.norm.bias\)"),
        (lambda s: s.pop("module.mlp_head.1.bias"), r"missing \(mlp_head.1.bias\)"),
        (lambda s: s.update({"module.v.extra": torch.zeros(1)}), r"unexplained \(v.extra\)"),
        (lambda s: s.update({"module.v.norm.bias": torch.zeros(9)}), r"v.norm.bias has shape \(9,\), expected \(64,\)"),
        (lambda s: s.update({"module.v.pos_embed": torch.zeros(1, 133, 64)}), "131 patch positions"),
        (lambda s: s.update({"module.v.patch_embed.proj.weight": torch.zeros(64, 3, 16, 16)}), r"\(64, 3, 16, 16\)"),
    ],
    ids=["missing", "no head", "extra", "shape", "positions", "channels"],
)
def test_an_ast_that_does_not_fit_is_refused(damage, found, tmp_path):
    state = torch.load(STRIDE_16.with_suffix(".pth"))
    damage(state)
    torch.save(state, tmp_path / "bad.pth")
    with pytest.raises(CheckpointError, match=f"bad.pth.*{found}"):
        flexiast.load(tmp_path / "bad.pth", heads=2)
