"""Swap the losses of Roboflow's RF-DETR, the package `rfdetr`."""

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from detloss.integrations._detr import Losses, Matched, box_terms, class_term
from detloss.integrations._losses import Given, box_loss, check_competes, classification_loss
from detloss.integrations._swap import Swap, check_free, check_version

TESTED = ("1.11", "1.12")
"""The least version, and the first that is not known."""


def swap_losses(
    model: nn.Module,
    classification: Given | None = None,
    box: Given | None = None,
    *,
    l1: Given | None = None,
    matcher: nn.Module | None = None,
    impl: str = "eager",
) -> Swap:
    """Let RF-DETR train with other losses, in its main, auxiliary and encoder outputs alike.

    The class term of all queries, the L1 and GIoU terms of matched ones are swapped. The matcher, the number
    of boxes over ranks and groups, the weights, masks, key points and the padding of targets stay. Losses
    that take a quality get the IoU of the matched box. rfdetr's compiled loss of all layers at once is off
    while losses are swapped.

    Args:
        model: `RFDETRModelModule` (`rfdetr.training`), or its criterion.
        classification: a name, function or Module; None leaves the criterion's (IA-BCE).
        box: in place of GIoU, on boxes that are parts of the image.
        l1: in place of the L1 distance: a function of two tensors `(N, 4)`, centre and size.
        matcher: in the place of the criterion's; None leaves it.
        impl: how losses of this package run; queries are few, and "auto" gains nothing here.

    Returns:
        The Swap: `restore()`, or a context manager.

    Raises:
        ValueError: another model, one that is swapped already, a loss that does not fit.
        RuntimeError: a version of rfdetr that was not tested.
    """
    check_version("rfdetr", *TESTED)
    from rfdetr.models.criterion import SetCriterion

    criterion: Any = getattr(model, "criterion", model)
    if type(criterion) is not SetCriterion:
        raise ValueError(
            f"model is {type(model).__name__}; it may be an RFDETRModelModule or a SetCriterion of rfdetr"
        )
    check_free(criterion)
    losses = Losses(
        classification_loss(classification, impl), box_loss(box, impl), box_loss(l1, impl, argument="l1")
    )
    check_competes(losses.classification, False, "RF-DETR")
    swap = Swap({**losses.names(), **({} if matcher is None else {"matcher": type(matcher).__name__})})
    if losses.classification is not None:
        swap.put(criterion, "loss_labels", partial(_labels, criterion, losses))
    if losses.box is not None or losses.l1 is not None:
        swap.put(criterion, "loss_boxes", partial(_boxes, criterion, losses))
    if matcher is not None:
        swap.put(criterion, "matcher", matcher)
    swap.put(criterion, "_can_batch_detection_losses", _never)
    swap.mark(criterion)
    return swap


def _never(*_: Any) -> bool:
    return False


def _labels(
    criterion: Any,
    losses: Losses,
    outputs: Any,
    targets: Any,
    indices: Any,
    num_boxes: Any,
    log: bool = True,
    **_: Any,
) -> dict[str, Tensor]:
    matched, logits = _matched(criterion, outputs, targets, indices), outputs["pred_logits"]
    assert losses.classification is not None
    terms = {"loss_ce": class_term(losses.classification, logits, matched, num_boxes)}
    if log:
        right = (logits[matched.at].argmax(-1) == matched.classes).float()
        real = torch.ones_like(right) if matched.real is None else matched.real
        terms["class_error"] = 100 - 100 * (right * real).sum() / real.sum().clamp(min=1)
    return terms


def _boxes(
    criterion: Any, losses: Losses, outputs: Any, targets: Any, indices: Any, num_boxes: Any, **more: Any
) -> dict[str, Tensor]:
    ours = box_terms(losses, _matched(criterion, outputs, targets, indices), num_boxes)
    if len(ours) == 2:
        return ours
    return {**type(criterion).loss_boxes(criterion, outputs, targets, indices, num_boxes, **more), **ours}


def _matched(criterion: Any, outputs: Any, targets: Any, indices: Any) -> Matched:
    at = criterion._get_src_permutation_idx(indices)
    of = {
        name: torch.cat([target[name][i] for target, (_, i) in zip(targets, indices)])
        for name in ("labels", "boxes", "valid")
        if name in targets[0]
    }
    return Matched(at, of["labels"], outputs["pred_boxes"][at], of["boxes"], of.get("valid"))
