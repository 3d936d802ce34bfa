"""Hugging Face `ASTForAudioClassification` directories: config.json, weights, and usually preprocessor_config.json.

Tensor names are those that transformers writes to disk. All layer norms share the epsilon in config.json.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ...errors import CheckpointError, ConfigError
from ...models.config import FlexiASTConfig
from ...models.geometry import PatchSize
from . import vit_names as vit
from .base import Description, Format, Rule, Source, network_state, revert, same
from .published import AUDIOSET

if TYPE_CHECKING:
    from ..tensors import State
    from .base import Checkpoint

MODEL_TYPE = "audio-spectrogram-transformer"
START = "audio_spectrogram_transformer."
NO_HEAD = "an ASTModel has no classifier"
IN_BLOCK = {
    "norm1": "layernorm_before",
    "norm2": "layernorm_after",
    "attn.proj": "attention.output.dense",
    "mlp.fc1": "intermediate.dense",
    "mlp.fc2": "output.dense",
}
"""Layers of a block: our names (timm's) and theirs."""


def rules(config: FlexiASTConfig, qkv_bias: bool = True, start: str = START, classifier: bool = True) -> list[Rule]:
    """Rules for every tensor. start: prefix of the encoder's names. classifier: whether the network has one."""
    embeddings = f"{start}embeddings."
    encoder = [
        vit.prefix_tokens(config, embeddings, dist="distillation_token"),
        vit.positions(f"{embeddings}position_embeddings", config),
        *vit.kernel(f"{embeddings}patch_embeddings.projection"),
    ]
    for block in range(config.depth):
        ours, theirs = f"blocks.{block}.", f"{start}encoder.layer.{block}."
        for part in ("weight", "bias"):
            encoder += [same(f"{theirs}{b}.{part}", f"{ours}{a}.{part}") for a, b in IN_BLOCK.items()]
            if part == "weight" or qkv_bias:
                encoder.append(_qkv(theirs, ours, part))
    ends = {f"{start}layernorm": "norm"}
    if classifier:
        ends |= {"classifier.layernorm": "head_norm", "classifier.dense": "head"}
    return encoder + [same(f"{a}.{part}", f"{b}.{part}") for a, b in ends.items() for part in ("weight", "bias")]


def _qkv(theirs: str, ours: str, part: str) -> Rule:
    """Query, key and value, which our attention holds in one tensor in this order."""
    names = tuple(f"{theirs}attention.attention.{name}.{part}" for name in ("query", "key", "value"))

    def read(*tensors: Tensor) -> tuple[Tensor]:
        return (torch.cat(tensors),)

    return Rule(names, (f"{ours}attn.qkv.{part}",), read, lambda tensor: tensor.chunk(3), "joined")


def describe(source: Source) -> Description | None:
    """Describe a transformers AST; None for anything else."""
    sidecar = source.sidecar
    if sidecar is None or sidecar.get("model_type") != MODEL_TYPE:
        return None
    if (activation := sidecar.get("hidden_act", "gelu")) != "gelu":
        raise CheckpointError(f"{source.sidecar_path}, hidden_act: found {activation!r}, a FlexiAST has 'gelu'")
    start = START if any(name.startswith(START) for name in source.state) else ""
    headless = not any(name.startswith("classifier.") for name in source.state)
    classes = 1 if headless else source.need("classifier.dense.weight").shape[0]
    if not headless:
        _require_classifier(source, sidecar, classes)
    # transformers omits fields that have its default values.
    patch = PatchSize.parse(sidecar.get("patch_size", 16))
    stride = PatchSize.parse((sidecar.get("frequency_stride", 10), sidecar.get("time_stride", 10)))
    eps = sidecar.get("layer_norm_eps", 1e-12)
    width = sidecar.get("hidden_size", 768)
    config = FlexiASTConfig(
        classes=classes,
        frames=sidecar.get("max_length", 1024),
        bins=sidecar.get("num_mel_bins", 128),
        patch_size=patch,
        stride=None if stride == patch else stride,
        width=width,
        depth=sidecar.get("num_hidden_layers", 12),
        heads=sidecar.get("num_attention_heads", 12),
        mlp_ratio=sidecar.get("intermediate_size", 3072) / width,
        prefix_tokens=2,
        coverage="drop",
        norm_eps=eps,
        head_norm_eps=eps,
    )
    source.check_depth(config.depth)
    new: dict[str, tuple[Tensor, str]] = {}
    qkv_bias = sidecar.get("qkv_bias", True)
    if not qkv_bias:
        names = {name: t.shape for name, t in network_state(config).items() if name.endswith("attn.qkv.bias")}
        new = {name: (torch.zeros(shape), "zeros: attention without biases") for name, shape in names.items()}
    features, notes = _features(source, config)
    ruled = rules(config, qkv_bias, start, not headless)
    if headless:
        untrained = {"features": features, "labels": vit.UNTRAINED}
        return Description(config, ruled, untrained, new=new | vit.new_head(width, NO_HEAD), notes=notes)
    labels = _labels(sidecar, config.classes)
    loss, note = _loss(sidecar, config.classes)
    metadata = {"features": features, "loss": loss} | ({"labels": labels} if labels else {})
    return Description(config, ruled, metadata, new=new, notes=[*notes, note])


def _require_classifier(source: Source, sidecar: Any, classes: int) -> None:
    """Raise CheckpointError for a regression head; transformers also treats a single output as regression."""
    kind = sidecar.get("problem_type")
    if kind == "regression" or (kind is None and classes == 1):
        raise CheckpointError(
            f"{source.sidecar_path}, problem_type: found {kind!r} with {classes} outputs, a regression; expected a"
            " classifier; saved as ASTModel, without the head, its encoder can start a training"
        )


def _features(source: Source, config: FlexiASTConfig) -> tuple[dict[str, Any], list[str]]:
    """Feature settings from preprocessor_config.json; without the file, the defaults of transformers' extractor."""
    extractor = source.preprocessor
    notes = [] if extractor else ["no preprocessor_config.json: AudioSet's mean and std, as in transformers"]
    extractor = extractor or {}
    bins, frames = extractor.get("num_mel_bins", config.bins), extractor.get("max_length", config.frames)
    if (bins, frames) != (config.bins, config.frames):
        raise CheckpointError(
            f"{source.path.parent / 'preprocessor_config.json'}: found {bins} mel bins and {frames} frames,"
            f" config.json says {config.bins} and {config.frames}"
        )
    normalised = extractor.get("do_normalize", True)
    features = {
        "sample_rate": extractor.get("sampling_rate", 16_000),
        "bins": config.bins,
        "frames": config.frames,
        # (x - mean) / (2 std) is x for mean 0 and std 1/2
        "mean": extractor.get("mean", AUDIOSET.mean) if normalised else 0.0,
        "std": extractor.get("std", AUDIOSET.std) if normalised else 0.5,
        "downmix": "mean",
    }
    return features, notes


def _labels(sidecar: Any, classes: int) -> dict[str, list[str]] | None:
    """Class names, or None if they are only placeholders."""
    table = sidecar.get("id2label") or {}
    names = [str(table.get(str(i), "")) for i in range(classes)]
    if len(table) != classes or not all(names) or names == [f"LABEL_{i}" for i in range(classes)]:
        return None
    unique = len(set(names)) == classes
    return {"mids": names if unique else [str(i) for i in range(classes)], "names": names}


def _loss(sidecar: Any, classes: int) -> tuple[str, str]:
    """The loss, from `problem_type` or else guessed from the number of classes, and a note that says which."""
    kind = sidecar.get("problem_type")
    if kind:
        return ("bce" if kind == "multi_label_classification" else "ce"), f"loss: from problem_type {kind!r}"
    loss = "bce" if classes == AUDIOSET.classes else "ce"
    return loss, f"loss {loss}: no problem_type; bce for the {AUDIOSET.classes} classes of AudioSet, ce for others"


FORMAT = Format(
    "Hugging Face ASTForAudioClassification",
    describe,
    r"(audio_spectrogram_transformer|embeddings|encoder\.layer)\..*|layernorm\.(weight|bias)|classifier\.(layernorm|dense)\.(weight|bias)",
)


def to_huggingface(checkpoint: Checkpoint) -> State:
    """The tensors of `ASTForAudioClassification`, without settings, under the names that transformers writes to disk.

    Raises ConfigError for a network that it cannot hold: one prefix token, pooled patch tokens, rectangular patches.
    """
    config = checkpoint.config
    for field, value, expected in (
        ("prefix_tokens", config.prefix_tokens, 2),
        ("pool", config.pool, "cls"),
        ("patch_size", config.patch_size, PatchSize(config.patch_size.freq, config.patch_size.freq)),
    ):
        if value != expected:
            raise ConfigError(f"model.{field}: found {value}, transformers' AST can only hold {expected}")
    return revert(checkpoint, rules(config))
