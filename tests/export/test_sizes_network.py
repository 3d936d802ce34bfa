"""Several sizes, and clips of their own lengths, in one graph: the model's logits, from weights that are there once."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from flexiast.classifier.audio_classifier import AudioClassifier
from flexiast.cli import main
from flexiast.errors import ConfigError
from flexiast.export import export as exporting
from flexiast.export.export import export
from flexiast.export.sizes_network import SizesAST
from flexiast.export.waveform_network import MatrixFrontEnd
from flexiast.models.geometry import PatchSize
from flexiast.models.packed import forward_packed
from tests.export.test_export import FRAMES, SAMPLES, classifier, waveforms

SIZES = tuple(map(PatchSize.parse, (8, 24, "48x20", 16)))
VARIANTS = [
    {"coverage": "pad"},
    {"coverage": "drop"},
    {"coverage": "pad", "stride": 10, "prefix_tokens": 2},
    {"coverage": "drop", "stride": 10, "pool": "mean"},
    {"coverage": "pad", "pool": "mean"},
]


def native(**settings) -> AudioClassifier:
    """The tiny model, as if trained on clips of their own lengths."""
    model = classifier(**settings)
    features = dataclasses.replace(model.feature_config, length="native")
    made = AudioClassifier(model.config, features, model.labels, model.loss)
    made.load_state_dict(model.state_dict())
    return made.eval()


def log_mel(clips: int, frames: int) -> torch.Tensor:
    return torch.randn(clips, frames, 128, generator=torch.Generator().manual_seed(clips))


@torch.no_grad()
@pytest.mark.parametrize("frames", [FRAMES, 2 * FRAMES - 5], ids=["base", "longer"])
@pytest.mark.parametrize("variant", VARIANTS, ids=lambda v: "-".join(map(str, v.values())))
def test_every_size_gives_the_models_logits(variant: dict, frames: int) -> None:
    model, x = classifier(**variant), log_mel(3, frames)
    network = SizesAST(model, SIZES, frames)
    for number, size in enumerate(SIZES):
        torch.testing.assert_close(network(x, None, torch.tensor(number)), model(x, size), atol=5e-6, rtol=0)
    torch.testing.assert_close(network(x), model(x, SIZES[0]), atol=5e-6, rtol=0)


@torch.no_grad()
@pytest.mark.parametrize("variant", VARIANTS, ids=lambda v: "-".join(map(str, v.values())))
def test_padding_of_clips_of_their_own_length_is_not_heard(variant: dict) -> None:
    model, x, lengths = classifier(**variant), log_mel(4, FRAMES), torch.tensor([FRAMES, 31, 1, 50])
    network = SizesAST(model, SIZES, FRAMES)
    clips = [one[:length] for one, length in zip(x, lengths, strict=True)]
    for number, size in enumerate(SIZES):
        logits = network(x, lengths, torch.tensor(number))
        torch.testing.assert_close(logits, forward_packed(model, clips, size), atol=5e-6, rtol=0)


def test_the_transformer_is_shared() -> None:
    model = classifier()
    network, own = SizesAST(model, SIZES, FRAMES), dict(model.named_parameters())
    assert all(parameter is own[name] for name, parameter in network.named_parameters() if name.startswith("blocks."))
    assert network.kernels.shape == (8 * 8 + 24 * 24 + 48 * 20 + 16 * 16, 32)


def test_one_onnx_file_of_several_sizes(tmp_path: Path) -> None:
    import onnxruntime

    model = classifier("bce", depth=2, width=96)
    done = export(model, tmp_path / "m.onnx", "onnx", patch_sizes=[48, "16x24", 16])
    assert done.difference < 1e-3
    session = onnxruntime.InferenceSession(done.path)
    assert [(i.name, i.type, i.shape) for i in session.get_inputs()][2] == ("patch", "tensor(int64)", [])
    for clips, samples in ((1, SAMPLES), (3, 5000)):
        x = waveforms(clips, samples)
        given = {"waveform": x.numpy(), "lengths": np.full(clips, samples)}
        for number, size in enumerate((48, "16x24", 16)):
            scores, logits = session.run(None, given | {"patch": np.array(number)})
            with torch.no_grad():
                expected = model(model.front_end(x), size)
            np.testing.assert_allclose(logits, expected, atol=1e-3)
            np.testing.assert_allclose(scores, expected.sigmoid(), atol=1e-3)
    with pytest.raises(Exception, match="out of data bounds, idx=3"):
        session.run(None, given | {"patch": np.array(3)})
    metadata = session.get_modelmeta().custom_metadata_map
    assert json.loads(metadata["flexiast.patch_sizes"]) == ["48", "16x24", "16"]
    assert "flexiast.patch_size" not in metadata
    assert json.loads(metadata["flexiast.inputs"])["patch"].startswith("int64 scalar: place of the patch size in")
    assert b".py" not in done.path.read_bytes()  # no traces of the machine that made it
    front_end = sum(buffer.numel() for buffer in MatrixFrontEnd(model.feature_config).buffers())
    one = 4 * (front_end + sum(parameter.numel() for parameter in model.parameters()))  # with the kernel of 16
    kernels = 4 * 96 * (48 * 48 + 16 * 24)
    assert done.path.stat().st_size < one + kernels + 100_000  # positions, and the operations
    blocks = 4 * sum(parameter.numel() for parameter in model.blocks.parameters())
    assert blocks > 6 * 100_000  # a second transformer would not fit


@pytest.mark.slow
@torch.no_grad()
@pytest.mark.parametrize("input", ["spectrogram", pytest.param("waveform", marks=pytest.mark.slow)])
def test_clips_of_native_length_in_onnx_runtime(input: str, tmp_path: Path) -> None:
    import onnxruntime

    model = native(coverage="drop", pool="mean")
    done = export(model, tmp_path / "m.onnx", "onnx", 16, input)
    assert done.difference < (1e-4 if input == "spectrogram" else 1e-3)
    session = onnxruntime.InferenceSession(done.path)
    lengths = torch.tensor([SAMPLES, 5000, 8000])
    x = waveforms(3) * (torch.arange(SAMPLES) < lengths[:, None])
    expected = model(model.front_end.as_trained(x, lengths), 16)
    assert (model(model.front_end(x, lengths), 16) - expected).abs().max() > 0.01  # padding would be heard
    given = {"waveform": x.numpy(), "lengths": lengths.numpy()}
    if input == "spectrogram":
        frames = model.feature_config.frame_count(lengths)
        given = {"log_mel": model.front_end(x, lengths).numpy(), "lengths": frames.numpy()}
    np.testing.assert_allclose(session.run(["logits"], given)[0], expected, atol=1e-3)
    if input == "spectrogram":  # and fewer frames than the window's
        alone = {"log_mel": given["log_mel"][1:2, :29], "lengths": frames[1:2].numpy()}
        assert frames[1] == 29
        np.testing.assert_allclose(session.run(["logits"], alone)[0], expected[1:2], atol=1e-4)


@pytest.mark.slow
@torch.no_grad()
def test_a_torch_program_of_several_sizes(tmp_path: Path) -> None:
    model = classifier()
    done = export(model, tmp_path / "m.pt2", "torch", None, "spectrogram", patch_sizes=[24, 12])
    assert b".py" not in done.path.read_bytes()  # no traces of the machine that made it
    program, x = torch.export.load(done.path).module(), model.front_end(waveforms(3))
    for number, size in enumerate((24, 12)):
        torch.testing.assert_close(program(x, torch.tensor(number))[1], model(x, size), atol=1e-5, rtol=0)


def test_transformers_pads_short_clips_and_export_says_so(tmp_path: Path, monkeypatch, caplog) -> None:
    monkeypatch.setattr(exporting, "needed", lambda module: None)
    monkeypatch.setitem(exporting.FORMATS, "hf", (lambda job, path: path.mkdir(), lambda job, path: (0.0, "nothing")))
    export(native(), tmp_path / "hf", "hf")
    (record,) = caplog.records
    assert f"transformers' feature extractor pads them to {FRAMES} frames" in record.getMessage()
    caplog.clear()
    export(classifier(), tmp_path / "window", "hf")
    assert not caplog.records


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"format": "hf", "patch_sizes": [8, 16]}, r"patch_sizes: found 8, 16, expected one \(hf has one\)"),
        ({"format": "transformers", "patch_sizes": [8, 16]}, r"expected one \(transformers keeps every size"),
        ({"format": "onnx", "patch_sizes": [8, 8]}, "patch_sizes: found 8, 8, expected distinct sizes"),
        ({"format": "onnx", "patch_sizes": [8, 200]}, "patch size 200x200"),
        ({"format": "onnx", "patch_size": 8, "patch_sizes": [16]}, "patch_size: found 8 beside patch_sizes"),
    ],
)
def test_sizes_that_cannot_be_exported_are_refused(arguments: dict, message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=message):
        export(classifier(), tmp_path / "m.onnx", **arguments)
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_the_command_takes_several_sizes(tmp_path: Path, capsys) -> None:
    classifier().save_pretrained(tmp_path / "model")
    command = f"export {tmp_path / 'model'} --format torch --input spectrogram --out {tmp_path / 'm.pt2'} --json"
    assert main([*command.split(), "--patch-size", "24", "16x8"]) == 0
    assert json.loads(capsys.readouterr().out)["patch_size"] == "24, 16x8"
    told = {"flexiast.json": ""}
    torch.export.load(tmp_path / "m.pt2", extra_files=told)
    assert json.loads(json.loads(told["flexiast.json"])["flexiast.patch_sizes"]) == ["24", "16x8"]
