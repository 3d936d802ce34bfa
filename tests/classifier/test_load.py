"""Loading by path, Hub id and timm name, and fitting a model to another task."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file

import flexiast
from flexiast import AudioClassifier, FeatureConfig, FlexiASTConfig
from flexiast.classifier.adapt import adapt
from flexiast.data.manifest import Labels
from flexiast.errors import CheckpointError, ConfigError
from flexiast.models.geometry import Grid
from flexiast.models.resize import fit_positions, pi_resize

GOLDEN = Path(__file__).parents[1] / "golden"


def classifier(classes: int = 3, frames: int = 256, seed: int = 0, **settings: object) -> AudioClassifier:
    """A small random model."""
    torch.manual_seed(seed)
    options = {"width": 32, "depth": 1, "heads": 2, "coverage": "drop"} | settings
    config = FlexiASTConfig(classes, frames, **options)
    model = AudioClassifier(config, FeatureConfig(frames=frames), Labels.numbers(classes)).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return model.requires_grad_(False)


def named(*names: str) -> Labels:
    return Labels(names, names)


# Loading ---------------------------------------------------------------------------------------------------------


def test_a_path_in_any_spelling(tmp_path, monkeypatch):
    classifier().save_pretrained(tmp_path / "runs" / "model")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("flexiast.checkpoints.hub.snapshot_download", lambda *_a, **_k: pytest.fail("asked the Hub"))
    for source in ("runs/model", Path("runs/model"), tmp_path / "runs" / "model", "runs/model/"):
        model = flexiast.load(source)  # a path that exists, though it looks like a Hub id
        assert not model.training
        assert model.load_report.source == str(source)


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A Hub with the repositories that a test puts into the dictionary: id -> directory of files."""
    repositories: dict[str, Path] = {}
    asked = []

    def snapshot_download(repository: str, allow_patterns: list[str], **options: object) -> str:
        asked.append((repository, tuple(allow_patterns), options))
        if repository not in repositories:
            raise FileNotFoundError(f"no repository {repository}\nsecond line")
        cache = tmp_path / "cache" / repository
        cache.mkdir(parents=True, exist_ok=True)
        for file in repositories[repository].iterdir():
            if file.name in allow_patterns:
                shutil.copy(file, cache)
        return str(cache)

    monkeypatch.setattr("flexiast.checkpoints.hub.snapshot_download", snapshot_download)
    repositories["asked"] = asked
    return repositories


def test_a_hub_id(hub, tmp_path):
    hub["somebody/ast-tiny.v1"] = GOLDEN / "hf_tiny_s10"
    model = flexiast.load("somebody/ast-tiny.v1")
    golden = np.load(GOLDEN / "hf_tiny_s10.npz")
    np.testing.assert_allclose(model(torch.from_numpy(golden["input"])).detach(), golden["logits"], atol=2e-5, rtol=0)
    assert model.load_report.source == "somebody/ast-tiny.v1"
    assert not any("pytorch_model.bin" in patterns for _, patterns, _ in hub["asked"])  # safetensors were there


def test_pickled_weights_are_fetched_only_if_there_are_no_others(hub, tmp_path):
    old = Path(shutil.copytree(GOLDEN / "hf_tiny_s10", tmp_path / "old"))
    state = load_file(old / "model.safetensors")
    torch.save(state, old / "pytorch_model.bin")
    (old / "model.safetensors").unlink()
    hub["somebody/old"] = old
    assert flexiast.load("somebody/old").config.stride == (10, 10)


def test_a_timm_name(hub, tmp_path):
    from tests.checkpoints.test_formats_timm import SMALL, image_model, write_directory

    model = image_model("vit_tiny_patch16_224")
    hub["timm/vit_tiny_patch16_224.augreg_in21k_ft_in1k"] = write_directory(
        tmp_path / "hub", "vit_tiny_patch16_224", model, **SMALL
    )
    loaded = flexiast.load("timm:vit_tiny_patch16_224", frames=512)
    assert loaded.load_report.source == "timm:vit_tiny_patch16_224"
    assert loaded.feature_config.frames == 512
    assert torch.equal(loaded.pos_embed, fit_positions(model.pos_embed[0, 1:].unflatten(0, (14, 14)), Grid(8, 32)))


@pytest.mark.parametrize(
    ("source", "found"),
    [
        (
            "nobody/nothing",
            r"no such file or directory, and no model that the Hugging Face Hub gives .*no repository nobody/nothing\)",
        ),
        ("timm:vit_tiny_patch16_224", "no model that the Hugging Face Hub gives"),
        ("timm:no_such_model", "timm knows no such model"),
        ("nothing", "nothing: no such file or directory"),
        ("a/b/c", "a/b/c: no such file or directory"),
    ],
)
def test_what_is_nowhere_is_one_line(source, found, hub):
    with pytest.raises(CheckpointError, match=found) as error:
        flexiast.load(source)
    assert "\n" not in str(error.value)


# Adapting --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("coverage", ["drop", "pad"])
def test_the_same_task_changes_nothing(coverage):
    model = classifier(coverage=coverage)
    same = adapt(model, model.feature_config, model.labels, model.loss)
    assert all(torch.equal(tensor, same.state_dict()[name]) for name, tensor in model.state_dict().items())
    assert {e.action for e in same.load_report.entries} == {"used"}


@pytest.mark.parametrize("frames", [64, 128, 250, 256])
def test_a_shorter_input_takes_the_middle_of_the_positions(frames):
    model = classifier()
    adapted = adapt(model, FeatureConfig(frames=frames), model.labels, "ce")
    new = frames // 16
    start = 8 - new // 2  # of 16 columns, as AST cuts
    assert torch.equal(adapted.pos_embed, model.pos_embed[:, start : start + new])


def test_a_longer_input_stretches_the_positions():
    model = classifier()
    adapted = adapt(model, FeatureConfig(frames=512), model.labels, "ce")
    image = model.pos_embed.permute(2, 0, 1)[None]
    expected = F.interpolate(image, (8, 32), mode="bilinear")[0].permute(1, 2, 0)
    torch.testing.assert_close(adapted.pos_embed, expected)


SQUARES = [f"{size}x{size}" for size in (8, 10, 12, 16, 20, 24, 30, 32, 40, 48)]


@pytest.mark.parametrize("key", [*SQUARES, "16x8", "16x12", "16x32", "8x16", "32x16"])
def test_another_base_patch_is_the_originals_import(key):
    """Golden: a patch-8 AST imported at base 16 by the original FlexiAST."""
    golden = np.load(GOLDEN / "flexirepo_ast_p8_tiny.npz")
    model = flexiast.load(GOLDEN / "flexirepo_ast_p8_tiny.pth", heads=2)
    adapted = adapt(model, model.feature_config, model.labels, model.loss, patch_size=16)
    positions = torch.cat([adapted.prefix_pos_embed, adapted.pos_embed.flatten(0, 1)])
    np.testing.assert_allclose(adapted.kernel.detach(), golden["flexi_kernel16"][:, 0], atol=2e-5, rtol=0)
    np.testing.assert_allclose(positions.detach(), golden["flexi_pos16"][0], atol=2e-5, rtol=0)
    logits = adapted(torch.from_numpy(golden["input"]), key).detach()
    np.testing.assert_allclose(logits, golden[f"logits_flexi_{key}"], atol=2e-5, rtol=0)


@pytest.mark.parametrize("coverage", ["drop", "pad"])
@pytest.mark.parametrize("patch", [8, 32, "16x32", 24])
def test_another_base_patch_gives_the_logits_of_that_patch_size(patch, coverage):
    model, x = classifier(coverage=coverage), torch.randn(2, 192 if coverage == "pad" else 256, 128)
    x = x if patch != 24 else x[:, :240]  # whole patches; 120 of 128 bins only
    adapted = adapt(model, model.feature_config, model.labels, "ce", patch_size=patch)
    assert adapted.config.patch_size == flexiast.PatchSize.parse(patch)
    assert torch.equal(adapted.kernel, pi_resize(model.kernel, patch))
    if patch != 24:
        torch.testing.assert_close(adapted(x), model(x, patch), atol=1e-5, rtol=0)


@pytest.mark.parametrize("patch", [8, 16, 32])
def test_overlapping_patches_are_laid_side_by_side(patch):
    """The released AudioSet AST (12 x 101 positions) as a start: 8 x 64 at patch 16, and any other size."""
    model = classifier(frames=1024, stride=10, prefix_tokens=2)
    adapted = adapt(model, FeatureConfig(frames=1024), named("a", "b"), "ce", patch_size=patch)
    assert model.pos_embed.shape[:2] == (12, 101)
    assert adapted.config.stride is None
    assert adapted.pos_embed.shape[:2] == (128 // patch, 1024 // patch)
    ramp = (torch.arange(101) * 10 + 8.0).expand(12, 101)  # centre of each old token, in frames
    with torch.no_grad():
        model.pos_embed.copy_(ramp[:, :, None])
    adapted = adapt(model, FeatureConfig(frames=1024), named("a", "b"), "ce", patch_size=patch)
    centres = torch.arange(1024 // patch) * patch + patch / 2
    inside = (centres >= 8 + patch) & (centres <= 1008 - patch)  # away from the borders, where sampling is cut
    torch.testing.assert_close(adapted.pos_embed[0, inside, 0], centres[inside], atol=1.0, rtol=0)  # a frame


@pytest.mark.parametrize("frames", [128, 512, 1024])
def test_an_overlapping_ast_starts_every_recipe(frames):
    model = classifier(frames=1024, stride=10)
    adapted = adapt(model, FeatureConfig(frames=frames), named("a", "b"), "ce", "pad", 16)
    whole = adapt(model, FeatureConfig(frames=1024), named("a", "b"), "ce", "pad", 16)
    start = 32 - frames // 32
    assert torch.equal(adapted.pos_embed, whole.pos_embed[:, start : start + frames // 16])
    assert adapted(torch.randn(1, frames, 128)).shape == (1, 2)


def test_overlap_can_be_kept():
    model = classifier(frames=1024, stride=10)
    x = torch.randn(1, 1024, 128)
    kept = adapt(model, model.feature_config, model.labels, "ce", overlap=True)
    assert torch.equal(kept(x), model(x))
    assert adapt(model, model.feature_config, model.labels, "ce", patch_size=32, overlap=True).config.stride == (20, 20)


@pytest.mark.parametrize(
    ("own", "other", "kept"),
    [
        (named("a", "b", "c"), named("a", "b", "c"), True),
        (named("a", "b", "c"), named("a", "b", "d"), False),
        (named("a", "b", "c"), named("a", "b"), False),
        (Labels.numbers(3), Labels(("a", "b", "c"), ("A", "B", "C")), True),  # names that come by a table
        (Labels.numbers(3), named("b", "a", "c"), True),  # no folder gives them in this order: also a table
        (Labels.numbers(3), Labels(("0", "1", "2"), ("cat", "dog", "rain")), True),
        (Labels.numbers(3), named("a", "b"), False),
    ],
)
def test_the_classifier_stays_if_the_classes_are_the_same(own, other, kept):
    model = classifier()
    model.labels = own
    adapted = adapt(model, model.feature_config, other, "bce")
    assert (
        adapted.head.weight.shape == model.head.weight.shape and torch.equal(adapted.head.weight, model.head.weight)
    ) == kept
    assert (adapted.labels, adapted.loss) == (other, "bce")
    report = adapted.load_report
    assert report.of("new").keys() == (set() if kept else {"head.weight", "head.bias"})
    assert kept or report.of("new")["head.bias"] == f"classifier of {len(other)} classes"
    assert kept or report.ignored["head.bias"] == "classifier of 3 other classes"


NUMBERS = [str(i) for i in range(12)]


@pytest.mark.parametrize(
    ("own", "other", "order"),
    [
        (Labels.numbers(12), named(*sorted(NUMBERS)), [0, 1, 10, 11, *range(2, 10)]),  # a folder sorted as text
        (named("a", "b", "c"), named("c", "a", "b"), [2, 0, 1]),
        (Labels(("/m/1", "/m/2"), ("cat", "dog")), named("dog", "cat"), [1, 0]),  # ids and names
        (named("cat", "dog"), Labels(("x", "y"), ("dog", "cat")), [1, 0]),
    ],
    ids=["numbers", "names", "names of ids", "names in a table"],
)
def test_the_same_classes_in_another_order_keep_their_rows(own, other, order):
    model = classifier(classes=len(own))
    model.labels = own
    adapted = adapt(model, model.feature_config, other, "ce")
    x = torch.randn(2, 256, 128)
    assert torch.equal(adapted(x), model(x)[:, order])
    assert adapted.labels == other
    assert set(adapted.load_report.of("converted")) == {"head.weight", "head.bias"}


def test_a_model_of_numbers_refuses_as_many_names_that_no_table_orders():
    model = classifier()
    with pytest.raises(ConfigError, match=r"model of 3 classes .* data of 3 classes \(a, b, c, .*--data\.labels"):
        adapt(model, model.feature_config, named("a", "b", "c"), "ce")
    adapted = adapt(model, model.feature_config, named("a", "b", "c"), "ce", table=True)
    assert torch.equal(adapted.head.weight, model.head.weight)
    with pytest.raises(ConfigError, match=r"expected --model\.new-head if these are other classes, a label table"):
        adapt(model, model.feature_config, named("a", "b", "c"), "ce")
    adapted = adapt(model, model.feature_config, named("a", "b", "c"), "ce", new_head=True)
    assert not torch.equal(adapted.head.weight, model.head.weight)
    assert torch.equal(adapted.kernel, model.kernel)
    assert adapted.load_report.of("new").keys() == {"head.weight", "head.bias"}


def test_a_device_that_is_not_there_is_one_line(monkeypatch):
    monkeypatch.setattr(torch, "zeros", _no_device)
    with pytest.raises(ConfigError, match=r"device: found 'cuda', which is not usable here \(no CUDA GPUs\)") as error:
        flexiast.load(GOLDEN / "flexiast_vit_tiny.pth", device="cuda", heads=2)
    assert "\n" not in str(error.value)


def _no_device(*_args, **_options):
    raise RuntimeError("no CUDA GPUs\nsecond line")


def test_a_window_far_longer_than_the_network_is_refused(tmp_path):
    classifier(frames=48).save_pretrained(tmp_path)
    content = json.loads((tmp_path / "config.json").read_text())
    content["features"]["frames"] = 100_000
    (tmp_path / "config.json").write_text(json.dumps(content))
    with pytest.raises(CheckpointError, match=r"features\.frames: found 100000 for a network of 48 frames"):
        flexiast.load(tmp_path)


def test_the_report_names_what_was_changed():
    model = flexiast.load(GOLDEN / "hf_tiny_s10")
    adapted = adapt(model, FeatureConfig(frames=128), named("a"), "ce", patch_size=8)
    converted = adapted.load_report.of("converted")
    assert converted["kernel"] == "PI-resize from patch 16 to 8"
    assert converted["pos_embed"] == "grid 12x25 of patch 16, stride 10, fitted to 16x16 of patch 8, stride 8"
    assert converted.keys() == {"kernel", "pos_embed"}
    assert adapted.load_report.source == str(GOLDEN / "hf_tiny_s10")


def test_settings_that_do_not_fit_are_refused():
    model = classifier()
    with pytest.raises(ConfigError, match="larger than the input"):
        adapt(model, model.feature_config, model.labels, "ce", patch_size="16x512")


@pytest.mark.parametrize("coverage", ["drop", "pad"])
def test_fewer_bins_shrink_the_kernel_and_keep_the_rows_of_positions(coverage):
    model = classifier(coverage=coverage)
    adapted = adapt(model, FeatureConfig(bins=64, frames=256), model.labels, "ce")
    assert (adapted.config.bins, adapted.config.patch_size) == (64, (8, 16))
    torch.testing.assert_close(adapted.kernel, pi_resize(model.kernel, (8, 16)))
    torch.testing.assert_close(adapted.pos_embed, model.pos_embed)
    report = adapted.load_report
    assert report.of("converted") == {
        "kernel": "PI-resize from patch 16 to 8x16",
        "pos_embed": "grid 8x16 of patch 16, stride 16, 128 bins, fitted to 8x16 of patch 8x16, stride 8x16, 64 bins",
    }
    assert report.notes == ["other front end: 128 mel bins -> 64"]


def test_twice_the_bins_of_a_smooth_spectrogram_give_the_same_logits():
    """Every value twice along frequency is the spectrogram at twice the bins; its patches span twice as many."""
    model = classifier(coverage="pad")
    adapted = adapt(model, FeatureConfig(bins=256, frames=256), model.labels, "ce")
    assert adapted.config.patch_size == (32, 16)
    smooth = F.interpolate(torch.randn(2, 1, 16, 8), (256, 128), mode="bicubic")[:, 0]
    finer = F.interpolate(smooth[:, None], (256, 256), mode="bilinear")[:, 0]
    torch.testing.assert_close(adapted(finer), model(smooth), atol=0.05, rtol=0)


def test_another_patch_at_other_bins_reads_the_positions_where_its_rows_lie():
    model = classifier(coverage="pad")
    adapted = adapt(model, FeatureConfig(bins=64, frames=256), model.labels, "ce", patch_size=16)
    assert adapted.pos_embed.shape == (4, 16, 32)
    assert torch.equal(adapted.kernel, model.kernel)
    weights = torch.tensor([0.125, 0.375, 0.375, 0.125])  # the second row's triangle over rows 1 to 4, two rows wide
    expected = (weights[:, None, None] * model.pos_embed[1:5]).sum(dim=0)
    torch.testing.assert_close(adapted.pos_embed[1], expected)


def test_half_the_hop_doubles_the_patch_along_time():
    model = classifier(coverage="pad")
    adapted = adapt(model, FeatureConfig(frames=512, hop_ms=5), model.labels, "ce")
    assert adapted.config.patch_size == (16, 32)
    torch.testing.assert_close(adapted.pos_embed, model.pos_embed)
    assert adapted.load_report.notes == ["other front end: 10 ms hop -> 5"]
