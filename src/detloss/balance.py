"""How the terms of a detector's loss and its classes are weighed, and what sums of losses are divided by."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor, distributed


def global_normalizer(value: float | Tensor, least: float = 1.0) -> Tensor:
    """The mean of a number over the processes of a training: what each of them divides its sum of losses by.

    The sum of a loss is divided by the number of positives, or by the sum of their qualities. With several
    processes each has another number, or none at all, and DistributedDataParallel takes the mean of
    their gradients. Only if all divide by one number, the mean of theirs, is that mean the gradient of all
    images together, divided by all their positives::

        loss = sigmoid_focal_loss(logits, labels, reduction="sum") / global_normalizer(positives.sum())

    Every process calls it equally often, also one without positives. Without `torch.distributed`, or with one
    process, it is the number itself, and nothing is sent or waited for.

    Args:
        value: the number of this process: a tensor of one element, on the device that the process group
            sends from (a GPU for NCCL); or a Python number, which is put there.
        least: what the result does not go below, so that images without positives divide by no 0.

    Returns:
        0-dim, without gradient, float32 (float64 for float64), on the device of `value`.

    Raises:
        ValueError: a tensor of several elements.
    """
    several = distributed.is_available() and distributed.is_initialized() and distributed.get_world_size() > 1
    if not isinstance(value, Tensor):
        on_gpu = several and distributed.get_backend() == "nccl"
        value = torch.full((), float(value), device="cuda" if on_gpu else "cpu")
    if value.numel() != 1:
        raise ValueError(f"value has shape {tuple(value.shape)}; it must be one number, such as mask.sum()")
    dtype = torch.float64 if value.dtype == torch.float64 else torch.float32
    total = value.detach().reshape(()).to(dtype, copy=True)
    if several:
        distributed.all_reduce(total)
        total /= distributed.get_world_size()
    return total.clamp(min=least)


Method = Literal["effective", "inverse"]


def guided_scale(class_term: Tensor, box_term: Tensor) -> Tensor:
    """The factor that makes the box term as large as the class term, so that no weight has to be tuned.

        class_term / box_term, without gradient

    Losses of classes differ a hundredfold in scale, losses of boxes hardly do: a weight that suits focal loss
    starves the boxes under cross entropy. Multiply the box term by this at each step::

        total = class_term + guided_scale(class_term, box_term) * box_term

    Source: Chen et al., 1909.04868, "guided loss". They scale the class term to the box term instead, which
    is the same up to a factor of the whole (and Adam does not see that factor).

    Args:
        class_term: 0-dim, as it is summed up, not negative.
        box_term: 0-dim, not negative. Where it is 0, as in a batch without objects, the factor is finite.

    Returns:
        0-dim, in their dtype.
    """
    return class_term.detach() / box_term.detach().clamp(min=torch.finfo(box_term.dtype).eps)


def class_weights(
    counts: Tensor | Sequence[float],
    method: Method = "effective",
    beta: float = 0.999,
    power: float = 1.0,
    cap: float | None = None,
) -> Tensor:
    """The weight of each class by how many objects it has: rare classes weigh more.

        effective: (1 - β) / (1 - β^n),  the inverse of the effective number of n objects
        inverse:   1 / n^power

    The more objects a class has, the less a further one adds: (1 - β^n) / (1 - β) is n while n is far below
    1/(1-β), here 1000, and levels out there, so that classes of many thousands weigh alike. β = 0 weighs all
    alike, β near 1 by 1/n. A power of 1/2 is the square root that is usual for long tails.

    The weights are scaled to a mean of 1 over the classes that have objects (the paper scales their sum to
    the number of classes, the same). So an average class keeps its loss, whatever the method and the number
    of classes, and a cap is a multiple of that. The mean over all *objects* is then below 1: the loss of
    positives shrinks against that of the background. A class without objects has nothing to weigh: it gets
    1, and does not count in the mean.

    Give each location that has to find an object the weight of its class, and the background 1::

        weights = class_weights(counts)
        each = torch.cat((weights, torch.ones(1)))[labels]  # label C is the background
        sigmoid_focal_loss(logits, labels, reduction="sum", weight=each)

    Args:
        counts: objects of each class in the training data, `(C,)`, at least 0.
        method: as above.
        beta: β of "effective", at least 0 and below 1.
        power: of "inverse", at least 0.
        cap: the largest weight, at least 1, or None. What it takes from the rarest goes to the others, so
            that the mean stays 1.

    Returns:
        `(C,)` float32, on the device of `counts`.

    Raises:
        ValueError: counts that are negative or not finite, an unknown method, a number out of range.

    Source: Cui et al., Class-Balanced Loss Based on Effective Number of Samples, arXiv:1901.05555, eq. 11.
    """
    if method not in get_args(Method):
        raise ValueError(f"method is {method!r}; it may be one of {', '.join(map(repr, get_args(Method)))}")
    if not 0 <= beta < 1:
        raise ValueError(f"beta is {beta}; it must be at least 0 and below 1, such as 0.999")
    if not 0 <= power < math.inf:
        raise ValueError(f"power is {power}; it must be at least 0 and finite, such as 0.5")
    if cap is not None and not cap >= 1:
        raise ValueError(f"cap is {cap}; it must be at least 1, the mean of the weights, or None")
    n = torch.as_tensor(counts).double()
    if n.ndim != 1:
        raise ValueError(f"counts has shape {tuple(n.shape)}; it must be (C,), a count per class")
    if not ((n >= 0) & n.isfinite()).all():
        raise ValueError(f"counts are {n.tolist()}; each must be at least 0 and finite")
    there = n > 0
    kept = n[there]
    if method == "effective":
        log_beta = math.log(beta) if beta else -math.inf
        kept = (1 - beta) / -torch.expm1(kept * log_beta)
    else:
        kept = (kept / kept.max() if len(kept) else kept) ** -power
    weights = torch.ones_like(n)
    weights[there] = _to_mean_one(kept, math.inf if cap is None else cap)
    return weights.float()


def _to_mean_one(weights: Tensor, cap: float) -> Tensor:
    """The weights scaled so that their mean is 1, and none is above the cap."""
    scaled, held = weights, torch.zeros_like(weights, dtype=torch.bool)
    for _ in range(len(weights)):  # each time the classes at the cap are held, until none is above it
        rest = (len(weights) - cap * held.sum()) if held.any() else len(weights)
        scaled = torch.where(held, cap, weights * rest / weights[~held].sum())
        if not (above := (scaled > cap) & ~held).any() or (above | held).all():
            break
        held |= above
    return scaled.clamp(max=cap)


@dataclass(frozen=True)
class ClassWeight:
    """A choice of `class_weights`, as the command line names it: `effective:0.999`, `inverse:0.5`, with a cap
    `inverse:0.5:10`.

    Attributes:
        method: as there.
        number: beta of effective, power of inverse.
        cap: as there.
    """

    method: Method
    number: float
    cap: float | None = None

    @classmethod
    def parse(cls, text: str) -> "ClassWeight":
        """Read a choice from a text; numbers left out are the defaults.

        Raises:
            ValueError: any other text.
        """
        method, *numbers = (part.strip() for part in text.split(":"))
        try:
            if method not in get_args(Method):
                raise ValueError(f"unknown method {method!r}")
            if len(numbers) > 2:
                raise ValueError(f"{method} takes a number and a cap")
            number, cap = [*map(float, numbers), *(None, None)][:2]
            number = number if number is not None else 0.999 if method == "effective" else 1.0
            chosen = cls(method, number, cap)  # type: ignore[arg-type]
            chosen.of([1])
        except ValueError as error:
            raise ValueError(
                f"{text!r} is not a choice of class weights ({error}); write effective:BETA or "
                "inverse:POWER, or with a cap inverse:POWER:CAP, as in effective:0.999 or inverse:0.5:10"
            ) from None
        return chosen

    def of(self, counts: Tensor | Sequence[float]) -> Tensor:
        """The weights `(C,)` of classes with so many objects."""
        number = {"beta" if self.method == "effective" else "power": self.number}
        return class_weights(counts, self.method, cap=self.cap, **number)
