"""Our own format: tensors under the network's own names, beside a JSON sidecar that rebuilds the network.

The sidecar is config.json in the directory, or the text `config` in the header of a single safetensors file.
"""

from __future__ import annotations

from ...errors import CheckpointError, FlexiASTError
from ...models.config import FlexiASTConfig
from .base import Description, Format, Source, network_state, same

VERSION = "flexiast-1"


def describe(source: Source) -> Description | None:
    """Describe a model in our own format; None for anything else."""
    if source.sidecar is None or "format" not in source.sidecar:
        return None
    sidecar = dict(source.sidecar)
    if (version := sidecar.pop("format")) != VERSION:
        raise CheckpointError(f"{source.sidecar_path}: found format {version!r}, expected {VERSION!r}")
    try:
        config = FlexiASTConfig(**sidecar.pop("model"))
    except (KeyError, TypeError, FlexiASTError) as error:
        raise CheckpointError(f"{source.sidecar_path}, model: not a valid network configuration ({error})") from None
    source.check_depth(config.depth)
    return Description(config, [same(name, name) for name in network_state(config)], sidecar)


FORMAT = Format(
    "FlexiAST",
    describe,
    r"kernel|kernel_bias|prefix|prefix_pos_embed|pos_embed|norm\.(weight|bias)|head_norm\.(weight|bias)"
    r"|head\.(weight|bias)|blocks\.\d+\..*",
)
