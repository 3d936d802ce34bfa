"""Training losses, all on logits (B, C) with targets (B, C) that may be soft; each returns the mean over clips."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from ..models.config import Loss


def classification_loss(logits: Tensor, targets: Tensor, loss: Loss, label_smoothing: float = 0.0) -> Tensor:
    """Cross-entropy of the kind `loss` against hard, multi-hot or mixed-up targets."""
    classes = logits.shape[-1]
    if loss == "ce":
        return F.cross_entropy(logits, targets / targets.sum(dim=-1, keepdim=True), label_smoothing=label_smoothing)
    smoothed = targets * (1 - label_smoothing) + label_smoothing / classes
    return F.binary_cross_entropy_with_logits(logits, smoothed)


def distillation_loss(logits: Tensor, teacher_logits: Tensor, loss: Loss, temperature: float = 1.0) -> Tensor:
    """How far the student's softened probabilities are from the teacher's, times temperature squared.

    `ce`: KL divergence of the class distributions (Hinton et al., 2015). `bce`: binary cross-entropy against
    the teacher's probability of each class.
    """
    student, teacher = logits.float() / temperature, teacher_logits.float() / temperature
    if loss == "ce":
        divergence = F.kl_div(student.log_softmax(-1), teacher.log_softmax(-1), reduction="batchmean", log_target=True)
    else:
        divergence = F.binary_cross_entropy_with_logits(student, teacher.sigmoid())
    return divergence * temperature**2
