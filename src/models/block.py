"""A transformer block that can stop at the tokens which are needed after it.

Dimensions: B batch, N tokens, D width.
"""

from __future__ import annotations

from timm.models import vision_transformer
from torch import Tensor


class Block(vision_transformer.Block):
    """timm's pre-norm block, with a shorter way for the last one of a network.

    After the last block only the tokens that are pooled are used. All tokens are still keys and values there, but
    queries, projection and MLP of the others would be computed for nothing.
    """

    def forward(
        self, x: Tensor, attn_mask: Tensor | None = None, is_causal: bool = False, first: int | None = None
    ) -> Tensor:
        """Tokens (B, N, D) after the block, (B, N, D); if a number is given, only the `first` ones, (B, first, D)."""
        mixed = self.attn(self.norm1(x), attn_mask=attn_mask, is_causal=is_causal, first=first)
        x = x[:, :first] + self.drop_path1(self.ls1(mixed))
        return x + self.drop_path2(self.ls2(self.mlp(self.norm2(x))))
