"""One patch size of a FlexiAST as the AST of transformers, `ASTForAudioClassification`.

That network has square patches without padding, two prefix tokens whose mean is classified, and one epsilon for
all its layer norms.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

from torch import Tensor

from ..checkpoints.formats.base import Checkpoint
from ..checkpoints.formats.huggingface import MODEL_TYPE, to_huggingface
from ..errors import ConfigError
from ..models.config import FlexiASTConfig
from ..models.flexiast import FlexiAST
from ..models.geometry import PatchLike, PatchSize
from ..models.resize import resize_kernel
from .second_prefix import add_second_prefix

INSTEAD = "; onnx and torch exports hold every model"
PROBLEMS = {"ce": "single_label_classification", "bce": "multi_label_classification", "mse": "regression"}
"""What transformers calls the losses."""
State = dict[str, Tensor]


def huggingface_ast(model: FlexiAST, patch_size: PatchLike, frames: int | None = None) -> tuple[dict[str, Any], State]:
    """config.json (without labels) and tensors of a transformers AST that gives the logits of `model` at `patch_size`.

    frames: length of the input (default: the model's base). A network with one prefix token becomes a slightly wider
    one with two (see `second_prefix`). Raises ConfigError for what that AST cannot express: rectangular patches, the
    mean of patch tokens, padding of the last patches.
    """
    patch = PatchSize.parse(patch_size)
    base = model.config if frames is None else dataclasses.replace(model.config, frames=frames)
    _require_expressible(base, patch)
    config, state = _fixed(model, base, patch)
    if config.prefix_tokens == 1:
        config, state = add_second_prefix(config, state)
    else:
        state |= _with_one_epsilon(config, state)
    stride = config.stride_at(patch)
    settings = {
        "architectures": ["ASTForAudioClassification"],
        "model_type": MODEL_TYPE,
        "dtype": "float32",
        "hidden_size": config.width,
        "num_hidden_layers": config.depth,
        "num_attention_heads": config.heads,
        "intermediate_size": state["blocks.0.mlp.fc1.bias"].shape[0],
        "hidden_act": "gelu",
        "layer_norm_eps": config.norm_eps,
        "qkv_bias": True,
        "patch_size": patch.freq,
        "frequency_stride": stride.freq,
        "time_stride": stride.time,
        "max_length": config.frames,
        "num_mel_bins": config.bins,
    }
    return settings, to_huggingface(Checkpoint(config, state))


def _require_expressible(config: FlexiASTConfig, patch: PatchSize) -> None:
    if patch.freq != patch.time:
        raise ConfigError(f"patch size: found {patch}, transformers' AST has square patches only{INSTEAD}")
    if config.pool != "cls":
        raise ConfigError(
            f"model.pool: found {config.pool!r}, transformers' AST classifies prefix tokens: train the model with"
            f" --model.pool cls for it{INSTEAD}"
        )
    layout = config.layout(patch)
    padded = [
        f"{extent} {name} to {extent + extra}"
        for extent, extra, name in zip((config.bins, config.frames), layout.padding, ("bins", "frames"), strict=True)
        if extra
    ]
    if padded:
        raise ConfigError(
            f"patch size: found {patch}, for which this model pads {' and '.join(padded)} (coverage pad);"
            f" transformers' AST does not pad: expected a size that divides both{INSTEAD}"
        )


def _fixed(model: FlexiAST, base: FlexiASTConfig, patch: PatchSize) -> tuple[FlexiASTConfig, State]:
    """Configuration and state dict of a network whose base patch is `patch`; it drops partial patches."""
    config = dataclasses.replace(
        base,
        patch_size=patch,
        stride=base.stride_at(patch) if base.stride else None,
        coverage="drop",
    )
    state = {name: tensor.detach().float().cpu() for name, tensor in model.state_dict().items()}
    state["kernel"] = resize_kernel(model.kernel, patch).detach().float().cpu()
    state["pos_embed"] = model.positions(base.layout(patch), base.frames).detach().float().cpu()
    return config, state


def _with_one_epsilon(config: FlexiASTConfig, state: State) -> State:
    """The final norm scaled so that the classifier's norm gives the same result with the encoder's epsilon."""
    gain = math.sqrt(config.norm_eps / config.head_norm_eps)
    return {name: gain * state[name] for name in ("norm.weight", "norm.bias")}
