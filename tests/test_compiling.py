"""What is compiled ahead is found by the calls of a training, and a first compilation is told once."""

import logging

import pytest
import torch

import detloss
from detloss import precompile
from detloss._core import compiler
from detloss._core.private import CAN_FUSE
from detloss.names import BOX_LOSSES, CLASSIFICATION_LOSSES

needs_fusing = pytest.mark.skipif(not CAN_FUSE, reason="needs the fused pass")


@pytest.fixture
def no_passes(monkeypatch):
    """A process that has compiled nothing yet."""
    monkeypatch.setattr(compiler, "passes", {})
    monkeypatch.setattr(compiler, "broken", {})


@needs_fusing
@pytest.mark.slow
@pytest.mark.parametrize("name", ["softmax_focal", "quality_focal", "ciou"])
def test_no_call_of_a_training_compiles_again(name, no_passes):
    assert precompile(name) > 0
    known = {loss: set(forms) for loss, forms in compiler.passes.items()}
    assert known
    boxes = torch.tensor([[0.0, 0, 4, 4], [1, 1, 3, 5]])
    logits, index = torch.randn(2, 5), torch.tensor([1, 0])
    loss = (BOX_LOSSES if name in BOX_LOSSES else CLASSIFICATION_LOSSES)[name]
    for reduction in ("none", "sum", "mean"):
        for first, second in (
            [(boxes, boxes + 1)] if name in BOX_LOSSES else [(logits, index), (logits, logits.sigmoid())]
        ):
            first = first.clone().requires_grad_()
            loss(first, second, reduction=reduction, impl="compile").sum().backward()
            assert first.grad.isfinite().all()
    assert {loss: set(forms) for loss, forms in compiler.passes.items()} == known


@needs_fusing
def test_only_what_is_asked_for(no_passes, monkeypatch):
    asked = []

    def build(form):
        asked.append(form)
        return lambda *tensors: pytest.fail("not run: compiled ahead by name only")

    monkeypatch.setattr(compiler._worker, "build", build)
    with pytest.raises(pytest.fail.Exception):
        precompile("bce", targets="index", reduction="sum", dtype=torch.bfloat16)
    assert {form.inputs[0][1] for form in asked} == {torch.bfloat16}
    assert {dict((key, dims) for key, dims, *_ in form.constants)["targets"] for form in asked} == {"N"}


def mine(boxes1, boxes2):
    """Half of the distance of the left edges."""
    return (boxes1.left - boxes2.left).abs() / 2


@needs_fusing
@pytest.mark.slow
@pytest.mark.parametrize(
    "loss", [detloss.distribution_focal_loss, detloss.quality_focal_loss, detloss.box_loss(mine)]
)
def test_functions_too(loss, no_passes):
    assert precompile(loss, reduction="mean") > 0
    assert compiler.passes


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"loss": "focl"}, "unknown loss 'focl'; did you mean 'focal'"),
        ({"loss": "focal", "targets": "soft"}, "targets is 'soft'; it may be index, quality, dense or None"),
        (
            {"loss": "focal", "targets": "quality"},
            "targets is 'quality', but the loss has no argument quality",
        ),
        ({"loss": "giou", "reduction": "avg"}, "reduction is 'avg'; it may be one of"),
    ],
)
def test_mistakes(given, message):
    with pytest.raises(ValueError, match=message):
        precompile(**given)


@needs_fusing
def test_a_wait_in_a_call_is_told_once_with_its_seconds(no_passes, monkeypatch, caplog):
    monkeypatch.setattr(compiler, "SECONDS_TOLD", 0.0)
    monkeypatch.setattr(compiler._worker, "build", lambda form: lambda x, t, *rest: (x.sum(), x))
    logits = torch.randn(1000, 80)
    with caplog.at_level(logging.WARNING, "detloss"):
        for loss in (detloss.iou_aware_bce_loss, detloss.poly_focal_loss):
            loss(logits, torch.zeros(1000, dtype=torch.int64), reduction="sum", impl="auto")
    assert len(caplog.records) == 1
    assert caplog.messages[0].startswith("compiled iou_aware_bce_loss in 0 s: each loss is compiled once")
    assert "detloss.precompile" in caplog.messages[0]
