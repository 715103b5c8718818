"""Swap the losses of the DETR family of Hugging Face transformers."""

from collections.abc import Callable
from types import FunctionType
from typing import Any

import torch
from torch import Tensor, nn

from detloss.integrations._detr import Losses, Matched, box_terms, class_term, softmax_term
from detloss.integrations._losses import Given, box_loss, check_competes, classification_loss
from detloss.integrations._swap import Swap, check_free, check_version

TESTED = ("5.0", "5.25")
"""The least version, and the first that is not known."""

TERMS = {
    "ImageLoss": ("loss_labels", "loss_ce"),
    "DeformableDetrImageLoss": ("loss_labels", "loss_ce"),
    "LwDetrImageLoss": ("loss_labels", "loss_ce"),
    "RfDetrImageLoss": ("loss_labels", "loss_ce"),
    "RTDetrLoss": ("loss_labels_vfl", "loss_vfl"),
    "DFineLoss": ("loss_labels_vfl", "loss_vfl"),
    "Deimv2Loss": ("loss_labels_mal", "loss_mal"),
}
"""The criteria that are known: the method of the class term, and the name by which it is weighed."""

SOFTMAX = ("ImageLoss",)
"""Those whose classes compete, with one more for no object."""


def swap_losses(
    model: nn.Module,
    classification: Given | None = None,
    box: Given | None = None,
    *,
    l1: Given | None = None,
    matcher: nn.Module | None = None,
    impl: str = "eager",
) -> Swap:
    """Let a detector of transformers train with other losses, in main, auxiliary and denoising outputs alike.

    DETR, Conditional and Deformable DETR, RT-DETR (1 and 2), D-FINE, DEIMv2, LW-DETR, RF-DETR. Swapped are
    the class term of all queries, the L1 and GIoU terms of matched ones. The matcher, the normaliser, the
    weights of the config, D-FINE's local terms and masks stay; so do the names of terms in `loss_dict` (a
    focal loss is "loss_vfl" in RT-DETR). Losses that take a quality get the IoU of the matched box.

    Args:
        model: `...ForObjectDetection` or `...ForSegmentation`, also inside DistributedDataParallel.
        classification: a name, function or Module; None leaves the criterion's. DETR scores by a softmax.
        box: in place of GIoU, on boxes that are parts of the image.
        l1: in place of the L1 distance: a function of two tensors `(N, 4)`, centre and size.
        matcher: called as the criterion's matcher is, in its place; None leaves it.
        impl: how losses of this package run; queries are few, and "auto" gains nothing here.

    Returns:
        The Swap: `restore()`, or a context manager.

    Raises:
        ValueError: another model, one that is swapped already, a loss that does not fit its head.
        RuntimeError: a version of transformers that was not tested.
    """
    check_version("transformers", *TESTED)
    model = getattr(model, "module", model)
    check_free(model)
    compute: Any = getattr(model, "loss_function", None)
    criterion = _criterion(compute)
    if criterion is None:
        raise ValueError(
            f"model is {type(model).__name__}, whose loss_function is {compute!r}; it may be a detector of "
            f"transformers that trains with one of {', '.join(TERMS)}"
        )
    losses = Losses(
        classification_loss(classification, impl), box_loss(box, impl), box_loss(l1, impl, argument="l1")
    )
    check_competes(losses.classification, criterion.__name__ in SOFTMAX, type(model).__name__)
    swap = Swap({**losses.names(), **({} if matcher is None else {"matcher": repr(matcher)})})
    swap.put(model, "_loss_function", _Compute(compute, losses, matcher))
    swap.mark(model)
    return swap


def _criterion(compute: Any) -> Any:
    """The class of the criterion that a loss function makes, or None if it is none of `TERMS`."""
    made = getattr(getattr(compute, "__code__", None), "co_names", ())
    known = [compute.__globals__[name] for name in made if name in TERMS and name in compute.__globals__]
    return known[0] if len(known) == 1 else None


class _Compute:
    """What `model.loss_function` becomes: the former one, making its criterion from a class of our own.

    transformers makes a criterion in every call, by a name in its module: ours stands for that name in a copy
    of the function alone. Pickled and copied without that copy.
    """

    def __init__(self, compute: Callable[..., Any], losses: Losses, matcher: nn.Module | None) -> None:
        self.given = compute, losses, matcher
        criterion = _criterion(compute)
        names = {**compute.__globals__, criterion.__name__: _with_losses(criterion, losses, matcher)}
        self._compute = FunctionType(
            compute.__code__, names, compute.__name__, compute.__defaults__, compute.__closure__
        )
        self._compute.__kwdefaults__ = compute.__kwdefaults__

    def __reduce__(self) -> tuple[type, tuple[Any, ...]]:
        return type(self), self.given

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._compute(*args, **kwargs)


def _with_losses(criterion: Any, losses: Losses, matcher: nn.Module | None) -> type[nn.Module]:
    """The criterion with our class and box terms."""
    method, term = TERMS[criterion.__name__]

    def labels(self: Any, outputs: Any, targets: Any, indices: Any, num_boxes: float, **_: Any) -> Any:
        matched, loss = _matched(self, outputs, targets, indices), losses.classification
        assert loss is not None
        if criterion.__name__ in SOFTMAX:
            return {term: softmax_term(loss, outputs["logits"], matched, self.empty_weight)}
        return {term: class_term(loss, outputs["logits"], matched, num_boxes)}

    def boxes(self: Any, outputs: Any, targets: Any, indices: Any, num_boxes: float) -> dict[str, Tensor]:
        ours = box_terms(losses, _matched(self, outputs, targets, indices), num_boxes)
        if len(ours) == 2:
            return ours
        return {**criterion.loss_boxes(self, outputs, targets, indices, num_boxes), **ours}

    def init(self: Any, *args: Any, **kwargs: Any) -> None:
        criterion.__init__(self, *args, **kwargs)
        if matcher is not None:
            self.matcher = matcher

    methods: dict[str, Any] = {"__init__": init}
    if losses.classification is not None:
        methods[method] = labels
    if losses.box is not None or losses.l1 is not None:
        methods["loss_boxes"] = boxes
    return type(criterion.__name__, (criterion,), methods)


def _matched(criterion: Any, outputs: Any, targets: Any, indices: Any) -> Matched:
    at = criterion._get_source_permutation_idx(indices)
    true = torch.cat([target["boxes"][i] for target, (_, i) in zip(targets, indices)])
    classes = torch.cat([target["class_labels"][i] for target, (_, i) in zip(targets, indices)])
    return Matched(at, classes, outputs["pred_boxes"][at], true)
