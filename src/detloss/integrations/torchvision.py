"""Swap the losses of torchvision's RetinaNet, FCOS, SSD and SSDlite."""

from functools import partial

from torch import nn

from detloss.integrations._losses import Given, box_loss, check_competes, classification_loss
from detloss.integrations._swap import Swap, check_free, check_version
from detloss.integrations._torchvision_heads import DEFAULTS, Head, compute, fcos, retinanet, ssd

TESTED = ("0.26", "0.27")
"""The least version, and the first that is not known."""


def swap_losses(
    model: nn.Module,
    classification: Given | None = None,
    box: Given | None = None,
    *,
    on: str | None = None,
    mining: bool = True,
    impl: str = "eager",
) -> Swap:
    """Let a RetinaNet, FCOS, SSD or SSDlite of torchvision train with other losses; all else stays.

    Matching, normalisers, FCOS's centre-ness, SSD's hard negatives and the names of the terms are the head's.
    Classes are passed as indices with background and ignored anchors, not as 0/1 matrices. Losses that take a
    quality get the IoU of each positive anchor's decoded box.

    Args:
        model: the detector, also inside DistributedDataParallel.
        classification: a name, function or Module; None leaves the head's. SSD scores by a softmax.
        box: the same for boxes.
        on: "decoded" gives the box loss boxes in pixels, "regression" the head's numbers and those it should
            have; None: decoded for losses of overlaps, else as the head does today (FCOS decodes).
        mining: for SSD, whether to keep its hard negatives, three per positive; False counts all.
        impl: how losses of this package run; "auto" compiles large ones for seconds in the first step.

    Returns:
        The Swap: `restore()`, or a context manager.

    Raises:
        ValueError: another model, one that is swapped already, a loss that does not fit its head.
        RuntimeError: a version of torchvision that was not tested.
    """
    check_version("torchvision", *TESTED)
    from torchvision.models import detection

    model = getattr(model, "module", model)
    check_free(model)
    kinds = {detection.RetinaNet: retinanet, detection.FCOS: fcos, detection.ssd.SSD: ssd}
    terms = next((kind for base, kind in kinds.items() if isinstance(model, base)), None)
    if terms is None:
        known = "torchvision's RetinaNet, FCOS, SSD or SSDlite"
        raise ValueError(f"model is {type(model).__name__}; it may be {known}")
    if on not in (None, "decoded", "regression"):
        raise ValueError(f"on is {on!r}; it may be 'decoded', 'regression' or None")
    given = {"classification": classification_loss(classification, impl), "box": box_loss(box, impl)}
    swap = Swap({term: loss.name for term, loss in given.items() if loss is not None})
    default = DEFAULTS.get(terms, {})
    losses = {
        "classification": given["classification"] or classification_loss(default.get("classification"), impl),
        "box": given["box"] or box_loss(default.get("box"), impl),
    }
    check_competes(losses["classification"], terms is ssd, type(model).__name__)
    overlaps = losses["box"] is not None and losses["box"].of_boxes
    if overlaps and on == "regression":
        raise ValueError(f"on is {on!r}, and box is {box}, a loss of overlaps: it may be 'decoded' or None")
    decoded = overlaps or on == "decoded" or (on is None and terms is fcos)
    part = model if terms is ssd else model.head
    swap.put(
        part, "compute_loss", partial(compute, terms, Head(part, decoded=decoded, mining=mining, **losses))
    )
    swap.mark(part)
    return swap
