"""Training losses, all on logits (B, C) with targets (B, C) that may be soft; each returns the mean over clips."""

from __future__ import annotations

import dataclasses

import torch
import torch.nn.functional as F
from torch import Tensor

from ..models.config import Loss


@dataclasses.dataclass(frozen=True)
class Emphasis:
    """Which clips and classes weigh more in a classification loss."""

    weights: Tensor | None = None
    """(C,) weight of each class where it is the target: `weight` of cross-entropy, `pos_weight` of the binary one."""
    focal: float = 0.0
    """Exponent of the focal loss, which down-weights what is already right (Lin et al., ICCV 2017, equation 4)."""


EVEN = Emphasis()
MOST_WEIGHT = 100.0
"""Largest weight of a rare class."""


def class_weights(counts: Tensor, clips: int, loss: Loss) -> Tensor:
    """Weights (C,) that let every class count alike, from the clips of each (C,); no more than MOST_WEIGHT.

    `ce`: clips / (classes x clips of the class), 1 on average over the clips. `bce`: clips without the class for each
    one with it.
    """
    counts = counts.float()
    weights = clips / (len(counts) * counts) if loss == "ce" else (clips - counts) / counts
    return torch.where(counts > 0, weights, torch.ones_like(weights)).clamp(max=MOST_WEIGHT)


def classification_loss(
    logits: Tensor, targets: Tensor, loss: Loss, label_smoothing: float = 0.0, emphasis: Emphasis = EVEN
) -> Tensor:
    """Cross-entropy of the kind `loss` against hard, multi-hot or mixed-up targets; for `mse` the mean over clips and
    targets of the squared error, of standardised logits and targets."""
    if loss == "mse":
        return F.mse_loss(logits, targets)
    if emphasis.weights is not None or emphasis.focal:
        return _emphasised(logits, targets, loss, label_smoothing, emphasis)
    classes = logits.shape[-1]
    if loss == "ce":
        return F.cross_entropy(logits, targets / targets.sum(dim=-1, keepdim=True), label_smoothing=label_smoothing)
    smoothed = targets * (1 - label_smoothing) + label_smoothing / classes
    return F.binary_cross_entropy_with_logits(logits, smoothed)


def _emphasised(logits: Tensor, targets: Tensor, loss: Loss, label_smoothing: float, emphasis: Emphasis) -> Tensor:
    if loss == "ce":
        targets = targets / targets.sum(dim=-1, keepdim=True)
    targets = targets * (1 - label_smoothing) + label_smoothing / logits.shape[-1]
    weighted = targets if emphasis.weights is None else targets * emphasis.weights
    right = logits.log_softmax(dim=-1) if loss == "ce" else F.logsigmoid(logits)  # log-probability of each class
    per_class = -weighted * (1 - right.exp()).clamp(min=0) ** emphasis.focal * right  # (B, C)
    if loss == "ce":
        return per_class.sum(dim=-1).mean()
    wrong = F.logsigmoid(-logits)
    return (per_class - (1 - targets) * (1 - wrong.exp()).clamp(min=0) ** emphasis.focal * wrong).mean()


def logits_of(scores: Tensor, loss: Loss) -> Tensor:
    """Logits (n, C) that give these scores, which may have been rounded to 0 or 1."""
    return scores.clamp_min(torch.finfo(scores.dtype).tiny).log() if loss == "ce" else scores.logit(eps=1e-7)


def distillation_loss(logits: Tensor, teacher_logits: Tensor, loss: Loss, temperature: float = 1.0) -> Tensor:
    """How far the student's softened probabilities are from the teacher's, times temperature squared.

    `ce`: KL divergence of the class distributions (Hinton et al., 2015). `bce`: binary cross-entropy against
    the teacher's probability of each class. `mse`: mean squared error between the outputs.
    """
    if loss == "mse":
        return F.mse_loss(logits.float(), teacher_logits.float())
    student, teacher = logits.float() / temperature, teacher_logits.float() / temperature
    if loss == "ce":
        divergence = F.kl_div(student.log_softmax(-1), teacher.log_softmax(-1), reduction="batchmean", log_target=True)
    else:
        divergence = F.binary_cross_entropy_with_logits(student, teacher.sigmoid())
    return divergence * temperature**2
