"""Every loss over shapes, reductions, upstream gradients and weights: eager, compiled and "auto" agree.

`python tests/losses/test_every_shape.py` prints how many cases were tried and how many are wrong, by family.
A pass is compiled per form of the arguments, never per size, so that the shapes of a form cost little.
"""

import itertools
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.testing import assert_close

import detloss
from detloss import elementwise_loss, linear_loss
from detloss._core import fused
from detloss._core.private import CAN_FUSE

pytestmark = pytest.mark.skipif(not CAN_FUSE, reason="this torch has no fused pass")
LEADING = [
    (),
    (1,),
    (6,),
    (1, 1),
    (5, 1),
    (1, 4),
    (2, 3),
    (1, 1, 1),
    (4, 1, 1),
    (1, 4, 1),
    (2, 1, 3),
    (2, 2, 3),
]
REDUCTIONS = ["none", "sum", "mean"]
UPSTREAM = ["one", "uneven", "expanded", "strided"]
GRADIENTS = torch.Generator().manual_seed(1)


@dataclass(frozen=True)
class Call:
    """A call of a loss: its tensors that get a gradient, all else, and the impls that can give it."""

    loss: Callable[..., Tensor]
    leaves: dict[str, Tensor]
    more: dict[str, Any] = field(default_factory=dict)
    impls: tuple[str, ...] = ("compile", "auto")

    def __call__(self, leaves: dict[str, Tensor], **options: Any) -> Tensor:
        return self.loss(**leaves, **self.more, **options)


@elementwise_loss
def tempered_bce(logits: Tensor, targets: Tensor, tau: float = 1.0) -> Tensor:
    """A user's own."""
    return F.softplus(logits / tau) - targets * logits / tau


ELEMENTWISE = {
    "bce": detloss.binary_cross_entropy_with_logits,
    "focal": detloss.sigmoid_focal_loss,
    "quality_focal": detloss.quality_focal_loss,
    "varifocal": detloss.varifocal_loss,
    "poly_focal": detloss.poly_focal_loss,
    "asymmetric": detloss.asymmetric_loss,
    "mal": detloss.matchability_aware_loss,
    "flsd": detloss.sample_dependent_focal_loss,
    "ia_bce": detloss.iou_aware_bce_loss,
    "gaussian_focal": detloss.gaussian_focal_loss,
    "own": tempered_bce,
}
BOXES = {
    "iou": detloss.box_iou_loss,
    "giou": detloss.generalized_box_iou_loss,
    "diou": detloss.distance_box_iou_loss,
    "ciou": detloss.complete_box_iou_loss,
    "eiou": detloss.efficient_box_iou_loss,
    "l1": detloss.l1_box_loss,
    "smooth_l1": detloss.smooth_l1_box_loss,
}


def of_module(module: type[nn.Module]) -> Callable[..., Tensor]:
    """The function that a Module is the face of."""
    return lambda *args, reduction, impl, **more: module(reduction=reduction, impl=impl)(*args, **more)


def random(seed: int) -> Callable[..., Tensor]:
    return partial(torch.rand, generator=torch.Generator().manual_seed(seed))


def elementwise_calls(loss: Callable[..., Tensor], targets: str, weight: str, classes: int) -> Iterator[Call]:
    for seed, rows in enumerate(LEADING):
        rand = random(seed)
        inputs = 6 * rand(*rows, classes) - 3
        if targets == "dense":
            labels = rand(*rows, classes).round(decimals=2)
        else:
            labels = (rand(rows) * (classes + 1)).long()
            labels.flatten()[-1] = -100 if labels.numel() > 1 else 0
        shapes = {"row": rows, "class": (classes,), "element": (*rows, classes), "number": ()}
        if targets == "dense" and weight == "row":
            shapes["row"] = (*rows, 1)
        more = {} if weight == "none" else {"weight": 0.5 + rand(shapes[weight])}
        yield Call(loss, {"inputs": inputs}, {"targets": labels, **more})


def softmax_calls(loss: Callable[..., Tensor], targets: str, alpha: bool) -> Iterator[Call]:
    shapes = [
        (3,),
        (1,),
        (6, 3),
        (1, 3),
        (6, 1),
        (1, 1),
        (2, 3, 4),
        (2, 3, 1),
        (1, 3, 4),
        (2, 1, 4),
        (2, 3, 1, 5),
    ]
    for seed, shape in enumerate([*shapes, (2, 3, 4, 1), (1, 3, 1, 1), (2, 3, 4, 5)]):
        rand, dim = random(seed), min(1, len(shape) - 1)
        inputs = 6 * rand(shape) - 3
        if targets == "dense":
            labels = rand(shape).softmax(dim)
        else:
            labels = (rand(shape[:dim] + shape[dim + 1 :]) * shape[dim]).long()
            labels.flatten()[-1] = -100 if labels.numel() > 1 else 0
        more = {"alpha": rand(shape[dim])} if alpha else {}
        yield Call(loss, {"inputs": inputs}, {"targets": labels, **more})


def distribution_calls(loss: Callable[..., Tensor], weight: str) -> Iterator[Call]:
    for seed, rows in enumerate(LEADING):
        rand = random(seed)
        more = {} if weight == "none" else {"weight": rand(rows if weight == "row" else ())}
        yield Call(loss, {"inputs": rand(*rows, 5)}, {"targets": rand(rows) * 6 - 1, **more})


def box_calls(loss: Callable[..., Tensor], weight: str, fixed: str) -> Iterator[Call]:
    for seed, rows in enumerate(LEADING):
        rand = random(seed)
        pair = {}
        for name in ("boxes1", "boxes2"):
            corner, size = 4 * rand(*rows, 2), 1 + 4 * rand(*rows, 2)
            pair[name] = torch.cat((corner, corner + size), -1)
        shapes = {"row": rows, "number": (), "last": rows[-1:]}
        more = {} if weight == "none" else {"weight": rand(shapes[weight])}
        if fixed:
            more[fixed] = pair.pop(fixed)
        if not fixed or fixed == "boxes2":
            yield Call(loss, pair, more)
        else:
            yield Call(lambda boxes2, boxes1, **other: loss(boxes1, boxes2, **other), pair, more)


def learnt_weight(calls: Iterator[Call]) -> Iterator[Call]:
    """The same calls, with a weight that gets a gradient, which no fused pass gives."""
    for call in calls:
        more = dict(call.more)
        yield Call(call.loss, call.leaves | {"weight": more.pop("weight")}, more, ("auto",))


def linear_calls(loss: Callable[..., Tensor], targets: str) -> Iterator[Call]:
    def head(
        input: Tensor, linear_weight: Tensor, linear_bias: Tensor, targets: Tensor, **other: Any
    ) -> Tensor:
        return linear_loss(loss, input, linear_weight, targets, linear_bias=linear_bias, **other)

    for call, rows in zip(elementwise_calls(loss, targets, "none", 3), LEADING):
        rand = random(1)
        leaves = {"input": rand(*rows, 4), "linear_weight": rand(3, 4), "linear_bias": rand(3)}
        yield Call(head, leaves, call.more)


FAMILIES: dict[str, tuple[str, Callable[..., Iterator[Call]], tuple[Any, ...]]] = {}
# Weights, targets and which box gets a gradient are one code for all losses: every way of them with one loss,
# two with the others.
for name, loss in ELEMENTWISE.items():
    for targets, weight in itertools.product(
        ("dense", "index"), ("none", "row", "class", "element", "number")
    ):
        for classes in (3, 1):
            if name == "focal" or (
                classes == 3 and (targets, weight) in (("dense", "none"), ("index", "row"))
            ):
                key = f"{name} {targets} weight={weight} classes={classes}"
                FAMILIES[key] = (name, elementwise_calls, (loss, targets, weight, classes))
for targets in ("dense", "index"):
    for alpha in (False, True):
        key = f"softmax_focal {targets} alpha={alpha}"
        FAMILIES[key] = ("softmax_focal", softmax_calls, (detloss.softmax_focal_loss, targets, alpha))
    FAMILIES[f"linear_loss {targets}"] = ("linear_loss", linear_calls, (detloss.sigmoid_focal_loss, targets))
FAMILIES["linear_loss own"] = ("linear_loss", linear_calls, (tempered_bce, "index"))
for weight in ("none", "row", "number"):
    FAMILIES[f"dfl weight={weight}"] = ("dfl", distribution_calls, (detloss.distribution_focal_loss, weight))
UNEVEN = partial(detloss.distribution_focal_loss, bins=torch.tensor([-1.0, 0, 0.5, 2, 5]))
FAMILIES["dfl bins"] = ("dfl", distribution_calls, (UNEVEN, "row"))
for name, loss in BOXES.items():
    for weight in ("none", "row", "number", "last"):
        for fixed in ("", "boxes1", "boxes2") if weight == "none" else ("boxes2",):
            if name == "ciou" or (weight, fixed) in (("none", ""), ("row", "boxes2")):
                key = f"{name} weight={weight}" + (f" {fixed} fixed" if fixed else "")
                FAMILIES[key] = (name, box_calls, (loss, weight, fixed))
for name, module, make, more in (
    ("focal", detloss.SigmoidFocalLoss, elementwise_calls, ("index", "none", 3)),
    ("softmax_focal", detloss.SoftmaxFocalLoss, softmax_calls, ("index", False)),
    ("dfl", detloss.DistributionFocalLoss, distribution_calls, ("none",)),
    ("ciou", detloss.CompleteBoxIoULoss, box_calls, ("row", "boxes2")),
):
    FAMILIES[f"{name} Module"] = (name, make, (of_module(module), *more))
for name in ("focal index weight=row classes=3", "dfl weight=row", "ciou weight=row boxes2 fixed"):
    loss, make, arguments = FAMILIES[name]
    FAMILIES[f"{name}, which gets a gradient"] = (
        loss,
        lambda make, *arguments: learnt_weight(make(*arguments)),
        (make, *arguments),
    )


def upstream(kind: str, shape: torch.Size) -> Tensor:
    """A gradient as it comes from above: that of a sum, uneven, the same for all rows, strided."""
    if kind == "one":
        return torch.ones(()).expand(shape)
    if kind == "expanded":
        return (0.5 + torch.rand([1, *shape[1:]] if shape else [], generator=GRADIENTS)).expand(shape)
    if kind == "strided":
        values = 0.5 + torch.rand([*reversed(shape), 2], generator=GRADIENTS)
        return values[..., 0].permute(tuple(reversed(range(len(shape)))))
    return 0.5 + torch.rand(shape, generator=GRADIENTS)


def run(call: Call, impl: str, reduction: str, gradients: list[Tensor], in_place: bool) -> list[Tensor]:
    """The value and all gradients, a graph that is kept for all but the last upstream gradient."""
    leaves = {name: values.clone().requires_grad_() for name, values in call.leaves.items()}
    value = call(leaves, reduction=reduction, impl=impl)
    if in_place:
        value *= 2
    found = [value.detach().clone()]
    for left, gradient in zip(reversed(range(len(gradients))), gradients):
        for leaf in leaves.values():
            leaf.grad = None
        value.backward(gradient, retain_graph=left > 0)
        found += [leaf.grad.clone() for leaf in leaves.values()]
    return found


def wrong(family: str) -> tuple[int, list[str]]:
    """How many cases of a family were tried, and those whose value or gradient is not the eager one."""
    _, calls, arguments = FAMILIES[family]
    tried, failed = 0, []
    for call in calls(*arguments):
        for reduction in REDUCTIONS:
            shape = call(call.leaves, reduction=reduction, impl="eager").shape
            ways = [[upstream(kind, shape)] for kind in UPSTREAM]
            ways.append([upstream(kind, shape) for kind in ("uneven", "one", "strided", "one")])
            for impl in call.impls:
                for number, gradients in enumerate([*ways, ways[1]]):
                    in_place = number == len(ways)
                    tried += 1
                    case = (
                        f"{ {n: tuple(v.shape) for n, v in call.leaves.items()} } {reduction} {impl} "
                        f"{[*UPSTREAM, 'kept', 'in place'][number]}"
                    )
                    try:
                        expected = run(call, "eager", reduction, gradients, in_place)
                        found = run(call, impl, reduction, gradients, in_place)
                        for ours, plain in zip(found, expected, strict=True):
                            assert_close(ours, plain, rtol=1e-4, atol=1e-6)
                    except (RuntimeError, AssertionError, ValueError) as error:
                        failed.append(f"{case}: {str(error).splitlines()[0]}")
    return tried, failed


QUICK = [
    "focal index weight=row classes=3",
    "giou weight=none",
    "linear_loss index",
]


@pytest.mark.parametrize(
    "family",
    [pytest.param(family, marks=() if family in QUICK else pytest.mark.slow) for family in FAMILIES],
)
def test_eager_and_compiled_agree(family, monkeypatch):
    monkeypatch.setattr(fused, "AUTO_ELEMENTS", {"cpu": 0})
    tried, failed = wrong(family)
    assert tried > 200
    assert not failed, f"{len(failed)} of {tried} cases are wrong, such as {failed[0]}"


@pytest.mark.parametrize("shape", [(20_000, 1, 4), (8, 5000, 4)])
def test_boxes_of_more_dimensions_through_auto_at_its_own_threshold(shape):
    pairs = torch.rand(2, *shape, generator=torch.Generator().manual_seed(3))
    pairs = torch.cat((pairs[..., :2], pairs[..., :2] + pairs[..., 2:] + 0.1), -1)
    upstream_gradient = torch.rand(shape[:-1], generator=GRADIENTS)
    found = {}
    for impl in ("eager", "auto"):
        boxes = pairs[0].clone().requires_grad_()
        value = detloss.generalized_box_iou_loss(boxes, pairs[1], impl=impl)
        for retain in (True, False):
            boxes.grad = None
            value.backward(upstream_gradient, retain_graph=retain)
            found.setdefault(retain, []).append(boxes.grad)
    assert "Fused" in str(value.grad_fn.next_functions or value.grad_fn) + str(value.grad_fn)
    for eager, auto in found.values():
        assert_close(auto, eager)


if __name__ == "__main__":
    fused.AUTO_ELEMENTS["cpu"] = 0
    torch.set_num_threads(1)
    counts: dict[str, list[int]] = {}
    for family in FAMILIES:
        if len(sys.argv) > 1 and sys.argv[1] not in family:
            continue
        tried, failed = wrong(family)
        total = counts.setdefault(FAMILIES[family][0], [0, 0])
        total[0] += tried
        total[1] += len(failed)
        print(f"{family}: {tried} cases, {len(failed)} wrong", *failed[:1], flush=True)
    print("\n| loss | cases | wrong |\n|---|---|---|")
    for name, (tried, failed_count) in counts.items():
        print(f"| {name} | {tried} | {failed_count} |")
    print(f"| all | {sum(t for t, _ in counts.values())} | {sum(f for _, f in counts.values())} |")
