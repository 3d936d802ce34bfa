"""Reading any format: one function adds one, what is unknown is described, and every tensor is accounted for."""

import json
import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import flexiast
from flexiast.checkpoints import formats
from flexiast.checkpoints.checkpoint import Checkpoint, read_checkpoint, save_checkpoint, save_single_file
from flexiast.checkpoints.formats.base import Description, Format, Source, same
from flexiast.errors import CheckpointError
from flexiast.models.flexiast import FlexiAST

GOLDEN = Path(__file__).parents[1] / "golden"
FILES = {
    "released FlexiAST": GOLDEN / "flexiast_vit_tiny.pth",
    "AST, patch 8": GOLDEN / "flexirepo_ast_p8_tiny.pth",
    "AST, patch 16": GOLDEN / "ast_orig_s16_tiny.pth",
    "Hugging Face": GOLDEN / "hf_tiny_s10",
}


@pytest.fixture
def checkpoint() -> Checkpoint:
    config = flexiast.FlexiASTConfig(3, frames=64, bins=32, patch_size="8x16", width=16, depth=1, heads=2)
    return Checkpoint(config, FlexiAST(config).state_dict(), {"loss": "bce", "trained_steps": 7})


def test_one_function_and_one_line_add_a_format(checkpoint, tmp_path, monkeypatch):
    def describe(source: Source) -> Description | None:
        if not source.has("acme.kernel"):
            return None
        config = checkpoint.config
        rules = [same(f"acme.{name}", name) for name in checkpoint.state]
        return Description(config, rules, ignored={"acme.optimizer.": "of the training"}, notes=["made by ACME"])

    monkeypatch.setattr(formats, "FORMATS", [*formats.FORMATS, Format("ACME", describe)])
    monkeypatch.setattr("flexiast.checkpoints.checkpoint.FORMATS", formats.FORMATS)
    state = {f"acme.{name}": tensor for name, tensor in checkpoint.state.items()}
    torch.save(state | {"acme.optimizer.step": torch.tensor(3)}, tmp_path / "acme.pt")
    model = flexiast.load(tmp_path / "acme.pt")
    assert all(torch.equal(tensor, checkpoint.state[name]) for name, tensor in model.state_dict().items())
    assert (model.load_report.format, model.load_report.notes) == ("ACME", ["made by ACME"])
    assert model.load_report.ignored == {"acme.optimizer.step": "of the training"}
    torch.save(state | {"acme.extra": torch.zeros(1)}, tmp_path / "extra.pt")
    with pytest.raises(CheckpointError, match=r"extra\.pt: 1 tensors are unexplained \(acme\.extra\)"):
        flexiast.load(tmp_path / "extra.pt")


@pytest.mark.parametrize("kind", FILES)
def test_every_tensor_of_the_source_and_of_the_network_is_in_the_report(kind):
    found = read_checkpoint(FILES[kind], heads=2)
    path = FILES[kind]
    theirs = load_file(path / "model.safetensors") if path.is_dir() else torch.load(path, weights_only=True)
    entries = found.report.entries
    assert sorted(n for e in entries for n in e.source) == sorted(n.removeprefix("module.") for n in theirs)
    assert sorted(n for e in entries for n in e.target) == sorted(found.state)
    assert all(e.reason for e in entries if e.action != "used")


def test_the_report_is_a_table_with_blocks_in_one_row():
    text = str(flexiast.load(FILES["Hugging Face"]).load_report)
    lines = text.splitlines()
    assert lines[0] == f"{FILES['Hugging Face']}: Hugging Face ASTForAudioClassification"
    (row,) = [line for line in lines if "query" in line and "weight" in line]
    assert row.split("  ")[0] == "converted"
    assert " 2 x " in row
    assert "layer.*.attention.attention.{query, key, value}.weight" in row
    assert len(lines) < 30
    assert max(map(len, lines)) < 200
    assert len({line.index("blocks.*") for line in lines if "blocks.*" in line}) == 1  # columns stand below each other


@pytest.mark.parametrize(
    ("names", "nearest", "share"),
    [
        (["v.cls_token", "v.norm.weight", "mlp_head.0.bias", "x"], "released FlexiAST state dict", "75%"),
        (["cls_token", "patch_embed.proj.weight"], "timm ViT", "100%"),
        (["audio_spectrogram_transformer.layernorm.weight", "x"], "Hugging Face ASTForAudioClassification", "50%"),
        (["kernel", "prefix", "head.bias"], "FlexiAST", "100%"),
    ],
)
def test_an_unknown_source_is_described_with_the_nearest_format(names, nearest, share, tmp_path):
    torch.save({name: torch.zeros(1) for name in names}, tmp_path / "unknown.pth")
    with pytest.raises(CheckpointError) as error:
        flexiast.load(tmp_path / "unknown.pth")
    text = str(error.value)
    assert text.startswith(f"{tmp_path / 'unknown.pth'}: found {len(names)} tensors (")
    assert sorted(names)[0] in text
    assert f"nearest is {nearest}, which knows {share} of these names" in text
    assert "\n" not in text
    assert ("give the directory that also holds config.json" in text) == (nearest == "FlexiAST")


def test_an_unknown_directory_says_what_its_description_holds(checkpoint, tmp_path):
    save_checkpoint(tmp_path, checkpoint)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "wav2vec2"}))
    with pytest.raises(CheckpointError, match="a description with model_type, of no known format"):
        flexiast.load(tmp_path)


def test_half_precision_is_read_and_named(tmp_path):
    state = torch.load(FILES["AST, patch 16"], weights_only=True)
    torch.save({name: tensor.half() for name, tensor in state.items()}, tmp_path / "half.pth")
    model = flexiast.load(tmp_path / "half.pth", heads=2)
    assert torch.equal(model.norm.weight, state["module.v.norm.weight"].half().float())
    assert model.load_report.of("converted")["v.norm.weight"] == "float16 to float32"


# Our own single file ---------------------------------------------------------------------------------------------


def test_a_single_file_holds_the_whole_model(checkpoint, tmp_path):
    save_single_file(tmp_path / "new" / "model.st", checkpoint)
    again = read_checkpoint(tmp_path / "new" / "model.st")
    assert (again.config, again.metadata) == (checkpoint.config, checkpoint.metadata)
    assert all(torch.equal(tensor, checkpoint.state[name]) for name, tensor in again.state.items())


@pytest.mark.parametrize(
    ("config", "found"),
    [
        ("{", "not readable as a model description"),
        ("[]", "found list"),
        ('{"format": "flexiast-9"}', "'flexiast-9', expected 'flexiast-1'"),
        ('{"format": "flexiast-1"}', "not a valid network configuration"),
    ],
)
def test_a_single_file_with_a_wrong_description_is_refused(config, found, checkpoint, tmp_path):
    save_file(checkpoint.state, tmp_path / "model.safetensors", {"config": config})
    with pytest.raises(CheckpointError, match=f"model.safetensors.*{found}"):
        read_checkpoint(tmp_path / "model.safetensors")


# Every format, damaged -------------------------------------------------------------------------------------------


class Payload:
    """Creates a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


@pytest.mark.parametrize("kind", [kind for kind in FILES if kind != "Hugging Face"])
def test_a_payload_among_real_weights_is_refused_and_nothing_runs(kind, tmp_path):
    state = torch.load(FILES[kind], weights_only=True)
    marker = tmp_path / "marker"
    torch.save(state | {"payload": Payload(marker)}, tmp_path / "hostile.pth")
    with pytest.raises(CheckpointError, match=r"hostile\.pth: not readable"):
        flexiast.load(tmp_path / "hostile.pth")
    assert not marker.exists()
    pickle.loads(pickle.dumps(Payload(marker)))
    assert marker.exists()  # the payload does work


@pytest.mark.parametrize("kind", [kind for kind in FILES if kind != "Hugging Face"])
@pytest.mark.parametrize(
    ("damage", "found"),
    [
        (lambda s: s.pop("module.v.blocks.1.attn.qkv.weight"), r"missing \(v\.blocks\.1\.attn\.qkv\.weight\)"),
        (
            lambda s: s.update({"module.v.blocks.1.attn.gate": torch.zeros(1)}),
            r"unexplained \(v\.blocks\.1\.attn\.gate\)",
        ),
        (
            lambda s: s.update({"module.mlp_head.0.bias": torch.zeros(3)}),
            r"mlp_head\.0\.bias has shape \(3,\), expected",
        ),
    ],
    ids=["missing", "extra", "shape"],
)
def test_each_kind_of_damage_has_its_own_error(kind, damage, found, tmp_path):
    state = torch.load(FILES[kind], weights_only=True)
    damage(state)
    torch.save(state, tmp_path / "bad.pth")
    with pytest.raises(CheckpointError, match=rf"bad\.pth: .*{found}"):
        flexiast.load(tmp_path / "bad.pth", heads=2)


@pytest.mark.parametrize("kind", [kind for kind in FILES if kind != "Hugging Face"])
@pytest.mark.parametrize("share", [0.1, 0.5, 0.99])
def test_a_truncated_file_is_not_readable(kind, share, tmp_path):
    content = FILES[kind].read_bytes()
    (tmp_path / "cut.pth").write_bytes(content[: int(share * len(content))])
    with pytest.raises(CheckpointError, match=r"cut\.pth: not readable"):
        flexiast.load(tmp_path / "cut.pth")
