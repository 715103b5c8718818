"""Compiling a loss before its first call: while a container is built, or before a training's first step."""

import inspect
import itertools
import time
from collections.abc import Callable

import torch
from torch import Tensor

from detloss._core.checks import check_reduction
from detloss.names import BOX_LOSSES, CLASSIFICATION_LOSSES, find_loss

FORMS = ("index", "quality", "dense")


def precompile(
    loss: str | Callable[..., Tensor],
    *,
    dtype: torch.dtype = torch.float32,
    device: str | torch.device = "cpu",
    targets: str | None = None,
    reduction: str | None = None,
) -> float:
    """Compile the fused pass of a loss ahead, so that no call of a training waits for it.

    Passes of this process are ready afterwards; those of later processes load from Inductor's cache on disk
    (`TORCHINDUCTOR_CACHE_DIR`), in a part of the time. A pass serves any number of rows, two classes or more,
    and any hyperparameter; what has a pass of its own (weights, alpha per class) is compiled by a call with
    it and `impl="compile"`.

    Args:
        loss: its name on the command line (`focal`, `ciou`), or a function of this package or your own made
            by `elementwise_loss` or `box_loss`.
        dtype: of the logits, or of both boxes.
        device: where they are.
        targets: of a classification loss: "index" (class indices), "quality" (the same with `quality`) or
            "dense" (soft labels); None for all that it takes.
        reduction: "none", "sum" or "mean" (the last two share a pass); None for all.

    Returns:
        Seconds that it took.

    Raises:
        ValueError: an unknown name, form or reduction.
        RuntimeError: no loss, or not this one, can be compiled here; the message says why.
    """
    if targets not in (*FORMS, None):
        raise ValueError(f"targets is {targets!r}; it may be {', '.join(FORMS)} or None")
    if reduction is not None:
        check_reduction(reduction)
    began = time.perf_counter()
    function, of_boxes = _found(loss)
    takes = inspect.signature(function).parameters
    cases: list[tuple[Tensor, Tensor, dict[str, Tensor]]]
    if of_boxes:
        cases = [(_boxes(dtype, device), _boxes(dtype, device).detach(), {})]
    elif "bins" in takes:  # distances are the only targets of a distribution
        logits = torch.zeros(4, 3, dtype=dtype, device=device, requires_grad=True)
        cases = [(logits, torch.ones(4, device=device), {})]
    else:
        logits = torch.zeros(4, 3, dtype=dtype, device=device, requires_grad=True)
        index = torch.tensor([0, 1, 2, 3 if "quality" in takes or "class_dim" in takes else 0], device=device)
        forms = {
            "index": (index, {}),
            "quality": (index, {"quality": torch.full((4,), 0.5, device=device)}),
            "dense": (torch.full((4, 3), 1 / 3, device=device), {}),
        }
        wanted = [form for form in FORMS if targets in (form, None) and (form != "quality" or form in takes)]
        if not wanted:
            raise ValueError(f"targets is {targets!r}, but the loss has no argument quality")
        cases = [(logits, *forms[form]) for form in wanted]
    reductions = ("none", "sum") if reduction is None else (reduction,)
    for (first, second, more), how in itertools.product(cases, reductions):
        function(first, second, reduction=how, impl="compile", **more).sum().backward()
    return time.perf_counter() - began


def _found(loss: str | Callable[..., Tensor]) -> tuple[Callable[..., Tensor], bool]:
    """The function, and whether it is of boxes."""
    if not isinstance(loss, str):
        return loss, "fmt" in inspect.signature(loss).parameters
    of_boxes = loss.split(",")[0] in BOX_LOSSES
    return find_loss(loss, BOX_LOSSES if of_boxes else CLASSIFICATION_LOSSES).function, of_boxes


def _boxes(dtype: torch.dtype, device: str | torch.device) -> Tensor:
    box = torch.tensor([[0.0, 0, 2, 2]], dtype=dtype, device=device)
    return box.repeat(4, 1).requires_grad_()
