"""Checkpoints as training programs leave them: nested, wrapped, with own objects beside the tensors, in shards."""

import argparse
import collections
import dataclasses
import enum
import json
import pathlib
import re

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import flexiast
from flexiast.checkpoints.checkpoint import save_checkpoint, weight_files
from flexiast.checkpoints.pickles import Placeholder, load_pickle
from flexiast.errors import CheckpointError

GOLDEN = pathlib.Path(__file__).parents[1] / "golden"
RELEASED = GOLDEN / "flexiast_vit_tiny.pth"
TRANSFORMERS = GOLDEN / "hf_tiny_s10"


class Phase(enum.Enum):
    FIT = "fit"


@dataclasses.dataclass
class Settings:
    rate: float = 0.1
    made: int = dataclasses.field(default=0)

    def __setstate__(self, state: dict) -> None:
        raise AssertionError("code of the file's program was run")


BESIDE = {
    "args": argparse.Namespace(lr=1e-3, out=pathlib.PurePosixPath("/home/me/exp")),
    "best": np.float64(0.5),
    "curve": np.arange(3.0),
    "out": pathlib.PosixPath("exp"),
    "windows": pathlib.PureWindowsPath("C:/exp"),
    "phase": Phase.FIT,
    "settings": Settings(),
    "counts": collections.defaultdict(int, {"steps": 3}),
    "optimizer": collections.OrderedDict(state={}, lr=[0.1]),
    "epoch": 3,
}


@pytest.fixture(scope="module")
def state() -> dict[str, torch.Tensor]:
    return {name.removeprefix("module."): t for name, t in torch.load(RELEASED, weights_only=True).items()}


def assert_same(path: pathlib.Path) -> flexiast.AudioClassifier:
    model, released = flexiast.load(path, heads=2), flexiast.load(RELEASED, heads=2)
    assert all(torch.equal(tensor, released.state_dict()[name]) for name, tensor in model.state_dict().items())
    return model


@pytest.mark.parametrize("older", [False, True], ids=["archive", "older"])
@pytest.mark.parametrize("place", ["model_state_dict", "state_dict", "model", "net", "ema"])
def test_a_state_dict_among_objects_of_its_program(place, older, state, tmp_path):
    torch.save(BESIDE | {place: state}, tmp_path / "run.pth", _use_new_zipfile_serialization=not older)
    model = assert_same(tmp_path / "run.pth")
    (note,) = [note for note in model.load_report.notes if note.startswith("beside the state dict")]
    assert note == f"beside the state dict, not read: {', '.join(sorted(BESIDE))}"


def test_settings_among_the_tensors_themselves(state, tmp_path):
    torch.save(state | {"args": BESIDE["args"], "epoch": 3}, tmp_path / "flat.pth")
    assert "beside the state dict, not read: args, epoch" in assert_same(tmp_path / "flat.pth").load_report.notes


@pytest.mark.parametrize("prefix", ["model.", "net.", "module.model.", "_orig_mod.", "model._orig_mod."])
def test_the_name_of_a_wrapper_is_left_out(prefix, state, tmp_path):
    named = {prefix + name: tensor for name, tensor in state.items()}
    torch.save({"state_dict": named, "hyper_parameters": {"lr": 0.1}, "epoch": 3}, tmp_path / "last.ckpt")
    notes = assert_same(tmp_path / "last.ckpt").load_report.notes
    assert f"every name began with {prefix}, which is left out" in notes


def test_a_prefix_of_some_names_only_stays(state, tmp_path):
    torch.save({f"model.{name}": t for name, t in state.items()} | {"loss.weight": torch.ones(1)}, tmp_path / "x.ckpt")
    with pytest.raises(CheckpointError, match=r"found \d+ tensors \(loss\.weight, model\."):
        flexiast.load(tmp_path / "x.ckpt")


def test_objects_are_placeholders_and_only_if_asked_for(tmp_path):
    torch.save({"args": BESIDE["args"], "settings": Settings(), "x": [Phase.FIT]}, tmp_path / "x.pt")
    content = load_pickle(tmp_path / "x.pt", placeholders=True)
    assert all(type(one) is Placeholder for one in (content["args"], content["settings"], content["x"][0]))
    with pytest.raises(Exception, match=r"argparse\.Namespace was not an allowed global"):
        load_pickle(tmp_path / "x.pt")


class Call:
    def __init__(self, function, *arguments) -> None:
        self.call = function, arguments

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("function", [eval, exec, getattr, __import__, pathlib.os.system], ids=lambda f: f.__name__)
def test_files_that_call_python_itself_are_refused(function, state, tmp_path):
    torch.save({"state_dict": state, "extra": Call(function, "print(1)")}, tmp_path / "bad.pth")
    with pytest.raises(CheckpointError, match=r"bad\.pth: not readable as a checkpoint \(.*[Uu]nsupported"):
        flexiast.load(tmp_path / "bad.pth")


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (
            {"agent": {"w": torch.ones(2)}, "args": argparse.Namespace()},
            "found the keys agent (dict), args (an object)",
        ),
        ({"model": torch.nn.Linear(2, 2), "epoch": 3}, "found the keys epoch (int), model (an object)"),
        (torch.nn.Linear(2, 2), "found a whole object of a program that is not here"),
        ({}, "found nothing"),
    ],
    ids=["unknown key", "model under a key", "model", "empty"],
)
def test_what_holds_no_state_dict_says_what_it_holds_and_the_remedy(content, found, tmp_path):
    torch.save(content, tmp_path / "other.pth")
    expected = "expected a state dict (names to tensors), alone or under model_state_dict, state_dict, model"
    with pytest.raises(CheckpointError, match=re.escape(f"other.pth: {found}, {expected}")) as error:
        flexiast.load(tmp_path / "other.pth")
    assert "torch.save(model.state_dict(), FILE)" in str(error.value)
    assert "weights_only" not in str(error.value)


@pytest.mark.filterwarnings("ignore")
def test_a_torchscript_program_is_refused_without_advice_to_run_it(tmp_path):
    torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), tmp_path / "program.pt")
    with pytest.raises(CheckpointError, match="found a TorchScript program, expected a state dict") as error:
        flexiast.load(tmp_path / "program.pt")
    assert "weights_only" not in str(error.value)


# Shards ----------------------------------------------------------------------------------------------------------


def sharded(directory: pathlib.Path, suffix: str) -> None:
    """Make the weights of a directory two shards and an index."""
    state = load_file(directory / "model.safetensors")
    (directory / "model.safetensors").unlink()
    stem, weight_map = ("model" if suffix == "safetensors" else "pytorch_model"), {}
    for number, names in enumerate((list(state)[::2], list(state)[1::2]), start=1):
        name = f"{stem}-0000{number}-of-00002.{suffix}"
        part = {n: state[n].contiguous() for n in names}
        (save_file if suffix == "safetensors" else torch.save)(part, directory / name)
        weight_map |= dict.fromkeys(names, name)
    index = {"metadata": {"total_size": 1}, "weight_map": weight_map}
    (directory / f"{stem}.{suffix}.index.json").write_text(json.dumps(index))


@pytest.fixture
def directory(tmp_path):
    for file in TRANSFORMERS.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    return tmp_path


@pytest.mark.parametrize("suffix", ["safetensors", "bin"])
def test_shards_are_read_as_one(suffix, directory):
    sharded(directory, suffix)
    whole, model = flexiast.load(TRANSFORMERS), flexiast.load(directory)
    assert all(torch.equal(t, whole.state_dict()[n]) for n, t in model.state_dict().items())
    names = [path.name for path in weight_files(directory)]
    stem = "model" if suffix == "safetensors" else "pytorch_model"
    assert names == [f"{stem}-0000{number}-of-00002.{suffix}" for number in (1, 2)]


INDEX = "model.safetensors.index.json"


@pytest.mark.parametrize(
    ("edit", "found"),
    [
        (lambda i: i.pop("weight_map"), "found no weight_map"),
        (
            lambda i: i["weight_map"].update(x="../x.safetensors"),
            "found shard '../x.safetensors', expected a file that",
        ),
        (lambda i: i["weight_map"].update(x="gone.safetensors"), "found shard 'gone.safetensors'"),
        (lambda i: i["weight_map"].update(x="model-00001-of-00002.safetensors"), "than its shards hold (x)"),
        (lambda i: i["weight_map"].update(x=3), "found no weight_map"),
    ],
    ids=["no map", "elsewhere", "gone", "tensor", "number"],
)
def test_an_index_that_does_not_fit_its_shards_is_refused(edit, found, directory):
    sharded(directory, "safetensors")
    index = json.loads((directory / INDEX).read_text())
    edit(index)
    (directory / INDEX).write_text(json.dumps(index))
    with pytest.raises(CheckpointError, match=re.escape(found)):
        flexiast.load(directory)


def test_an_index_alone_names_its_folder(directory):
    sharded(directory, "safetensors")
    with pytest.raises(CheckpointError, match="found an index of shards, expected the folder it lies in"):
        flexiast.load(directory / INDEX)


# Transformers without a classifier -------------------------------------------------------------------------------


@pytest.mark.parametrize("prefix", ["", "audio_spectrogram_transformer."])
def test_an_ast_model_without_head_is_a_backbone(prefix, directory):
    start = "audio_spectrogram_transformer."
    state = load_file(directory / "model.safetensors")
    body = {prefix + n.removeprefix(start): t for n, t in state.items() if n.startswith(start)}
    save_file(body, directory / "model.safetensors")
    whole, model = flexiast.load(TRANSFORMERS), flexiast.load(directory)
    x = torch.randn(1, whole.config.frames, whole.config.bins)
    assert torch.equal(model.features(x), whole.features(x))
    assert model.labels.names == ("untrained",)
    assert model.load_report.of("new").keys() == {
        "head_norm.weight",
        "head_norm.bias",
        "head.weight",
        "head.bias",
    }
    assert set(model.load_report.of("new").values()) == {"an ASTModel has no classifier"}


@pytest.mark.slow
def test_what_transformers_saves_as_ast_model_is_read(tmp_path):
    from transformers import ASTConfig, ASTModel

    config = ASTConfig(hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=64, max_length=64)
    ASTModel(config).save_pretrained(tmp_path)
    assert flexiast.load(tmp_path).config.width == 32


def test_a_regression_head_is_refused_in_one_line(directory):
    content = json.loads((directory / "config.json").read_text())
    (directory / "config.json").write_text(json.dumps(content | {"problem_type": "regression"}))
    with pytest.raises(CheckpointError, match="problem_type: found 'regression' with 10 outputs") as error:
        flexiast.load(directory)
    assert "\n" not in str(error.value)
    state = load_file(directory / "model.safetensors")
    state |= {f"classifier.dense.{part}": state[f"classifier.dense.{part}"][:1] for part in ("weight", "bias")}
    save_file(state, directory / "model.safetensors")
    content.pop("problem_type", None)
    (directory / "config.json").write_text(json.dumps(content | {"num_labels": 1}))
    with pytest.raises(CheckpointError, match="problem_type: found None with 1 outputs, a regression"):
        flexiast.load(directory)


# What a model says of its training -------------------------------------------------------------------------------


def test_a_model_to_hand_on_names_no_folders_of_the_trainer(tmp_path):
    model = flexiast.load(RELEASED, heads=2)
    model.metadata = {
        "training": {
            "data": {"train": "/home/me/data/train.csv", "root": "~/sounds", "val": "data/val.csv"},
            "out": "C:\\Users\\me\\exp",
            "seed": 0,
            "list": ["/a/b", None],
        },
        "validation": {"16": {"d_prime": float("inf"), "auc": float("nan"), "accuracy": 0.5}},
    }
    save_checkpoint(tmp_path / "model", model.checkpoint())
    text = (tmp_path / "model" / "config.json").read_text()
    content = json.loads(text, parse_constant=pytest.fail)  # Infinity and NaN are no JSON
    assert content["training"] == {
        "data": {"train": "train.csv", "root": "sounds", "val": "data/val.csv"},
        "out": "exp",
        "seed": 0,
        "list": ["b", None],
    }
    assert content["validation"] == {"16": {"d_prime": None, "auc": None, "accuracy": 0.5}}
    assert flexiast.load(tmp_path / "model").metadata["validation"]["16"]["d_prime"] is None


def test_an_older_description_with_infinity_is_read(tmp_path):
    flexiast.load(RELEASED, heads=2).save_pretrained(tmp_path)
    content = json.loads((tmp_path / "config.json").read_text())
    content["validation"] = {"16": {"d_prime": float("inf")}}
    (tmp_path / "config.json").write_text(json.dumps(content))  # Infinity, as Python writes it
    assert flexiast.load(tmp_path).metadata["validation"]["16"]["d_prime"] == float("inf")
