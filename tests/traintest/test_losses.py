"""Losses against PyTorch's and against their formulas, soft targets included."""

import pytest
import torch
import torch.nn.functional as F

from flexiast.traintest.losses import Emphasis, class_weights, classification_loss, distillation_loss


@pytest.fixture
def logits() -> torch.Tensor:
    return 2 * torch.randn(6, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def teacher() -> torch.Tensor:
    return 2 * torch.randn(6, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_ce_of_one_class_per_clip_is_that_of_torch(smoothing, logits):
    classes = torch.tensor([0, 3, 1, 2, 2, 0])
    got = classification_loss(logits, F.one_hot(classes, 4).double(), "ce", smoothing)
    torch.testing.assert_close(got, F.cross_entropy(logits, classes, label_smoothing=smoothing))


def test_ce_of_mixed_targets_is_the_mix_of_both_losses(logits):
    one, other, share = torch.tensor([0, 3, 1, 2, 2, 0]), torch.tensor([1, 3, 0, 0, 1, 2]), 0.3
    targets = share * F.one_hot(one, 4) + (1 - share) * F.one_hot(other, 4)
    expected = share * F.cross_entropy(logits, one) + (1 - share) * F.cross_entropy(logits, other)
    torch.testing.assert_close(classification_loss(logits, targets.double(), "ce"), expected)


def test_ce_shares_the_target_between_the_classes_of_a_clip(logits):
    several = torch.tensor([[1.0, 0, 1, 0]]).double().expand(6, -1)
    expected = -logits.log_softmax(-1)[:, [0, 2]].mean()
    torch.testing.assert_close(classification_loss(logits, several, "ce"), expected)


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_bce_is_the_mean_over_clips_and_classes(smoothing, logits):
    targets = torch.tensor([[1.0, 0, 1, 0], [0, 0, 0, 0], [0.3, 0.7, 0, 0]]).double().repeat(2, 1)
    soft = targets * (1 - smoothing) + smoothing / 4
    p = logits.sigmoid()
    expected = -(soft * p.log() + (1 - soft) * (1 - p).log()).mean()
    torch.testing.assert_close(classification_loss(logits, targets, "bce", smoothing), expected)


@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_ce_distillation_is_the_divergence_of_softened_classes(temperature, logits, teacher):
    p, q = (teacher / temperature).softmax(-1), (logits / temperature).softmax(-1)
    expected = (p * (p / q).log()).sum(-1).mean() * temperature**2
    got = distillation_loss(logits, teacher, "ce", temperature)
    torch.testing.assert_close(got, expected.float(), check_dtype=False)


@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_bce_distillation_is_cross_entropy_against_the_teacher(temperature, logits, teacher):
    p, q = (teacher / temperature).sigmoid(), (logits / temperature).sigmoid()
    expected = -(p * q.log() + (1 - p) * (1 - q).log()).mean() * temperature**2
    got = distillation_loss(logits, teacher, "bce", temperature)
    torch.testing.assert_close(got, expected.float(), check_dtype=False)


@pytest.mark.parametrize(("loss", "entries"), [("ce", 6), ("bce", 24)])
@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_distillation_gradient_is_that_of_the_formula(loss, entries, temperature, logits, teacher):
    logits.requires_grad_()
    distillation_loss(logits, teacher, loss, temperature).backward()
    soften = (lambda x: (x / temperature).softmax(-1)) if loss == "ce" else (lambda x: (x / temperature).sigmoid())
    # Hinton et al., 2015, section 2: (q - p) / T for each term, here times T squared; mean over clips or entries.
    expected = temperature * (soften(logits) - soften(teacher)) / entries
    torch.testing.assert_close(logits.grad, expected.detach(), atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("loss", ["ce", "bce"])
def test_student_that_equals_its_teacher_has_nothing_to_learn(loss, teacher):
    student = teacher.clone().requires_grad_()
    distilled = distillation_loss(student, teacher, loss, 2.0)
    distilled.backward()
    assert student.grad.abs().max() < 1e-7
    if loss == "ce":
        assert abs(float(distilled.detach())) < 1e-6


@pytest.mark.parametrize("loss", ["ce", "bce"])
def test_gradient_at_high_temperature_no_longer_depends_on_it(loss, logits, teacher):
    gradients = []
    for temperature in (500.0, 1000.0):
        student = logits.clone().requires_grad_()
        distillation_loss(student, teacher, loss, temperature).backward()
        gradients.append(student.grad)
    torch.testing.assert_close(*gradients, rtol=0.02, atol=1e-4)


WEIGHTS = torch.tensor([0.5, 2.0, 1.0, 4.0]).double()


def test_class_weights_are_those_of_torch(logits):
    classes = torch.tensor([0, 3, 1, 2, 2, 0])
    targets = F.one_hot(classes, 4).double()
    expected = F.cross_entropy(logits, classes, WEIGHTS, reduction="sum") / len(classes)
    torch.testing.assert_close(classification_loss(logits, targets, "ce", 0.0, Emphasis(WEIGHTS)), expected)
    expected = F.binary_cross_entropy_with_logits(logits, targets, pos_weight=WEIGHTS)
    torch.testing.assert_close(classification_loss(logits, targets, "bce", 0.0, Emphasis(WEIGHTS)), expected)


@pytest.mark.parametrize("loss", ["ce", "bce"])
def test_focal_loss_is_its_formula_and_the_plain_one_without_emphasis(loss, logits):
    targets = F.one_hot(torch.tensor([0, 3, 1, 2, 2, 0]), 4).double()
    p = logits.softmax(-1) if loss == "ce" else logits.sigmoid()
    right = -targets * (1 - p) ** 2 * p.log()
    wrong = -(1 - targets) * p**2 * (1 - p).log()
    expected = right.sum(-1).mean() if loss == "ce" else (right + wrong).mean()
    torch.testing.assert_close(classification_loss(logits, targets, loss, 0.0, Emphasis(focal=2)), expected)
    ones = Emphasis(torch.ones(4).double())
    plain = classification_loss(logits, targets, loss, 0.1)
    torch.testing.assert_close(classification_loss(logits, targets, loss, 0.1, ones), plain)


def test_balanced_weights_let_every_class_count_alike():
    counts = torch.tensor([80, 15, 5, 0])
    ce, bce = class_weights(counts, 100, "ce"), class_weights(counts, 100, "bce")
    assert (ce * counts).tolist() == pytest.approx([25, 25, 25, 0])
    assert bce.tolist() == pytest.approx([0.25, 85 / 15, 19, 1])
    assert float(class_weights(torch.tensor([1, 9999]), 10_000, "bce")[0]) == 100
