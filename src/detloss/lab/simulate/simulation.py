"""Boxes of many places, sizes and shapes follow a loss's gradient to their targets: the DIoU paper's test.

Protocol (arXiv:1911.08287, section 3.1, and the authors' `test_1715k.m`): seven targets of area 1 at
(10, 10), width to height 1:4 to 4:1; 5000 anchor centres uniform in the disc of radius 3 round them; at each
centre anchors of seven areas and those seven shapes. Each of the 1,715,000 pairs takes 200 steps down the
gradient in (cx, cy, w, h), times 2 - IoU, at rate 0.1, from step 161 on 0.01, from 181 on 0.001. The error of
a pair is |Δcx| + |Δcy| + |Δw| + |Δh|.
"""

import inspect
import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache, partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from detloss._core.box import box_of
from detloss._core.fused import check_impl
from detloss._core.passes import OPTIONS
from detloss._core.private import compile_graph
from detloss.boxes import SIMILARITIES, box_convert, iou
from detloss.calling import Loss
from detloss.lab.engines import JobFailed
from detloss.lab.records import first_line, require, require_distinct, require_least
from detloss.lab.simulate.published import PUBLISHED, Published
from detloss.names import BOX_LOSSES, find_loss

TARGET = (10.0, 10.0)
RADIUS = 3.0
RATIOS = (1 / 4, 1 / 3, 1 / 2, 1.0, 2.0, 3.0, 4.0)
"""Width to height, of targets and anchors."""
AREAS = (0.5, 0.67, 0.75, 1.0, 1.33, 1.5, 2.0)
"""Of anchors; a target has 1."""
PER_CENTRE = len(RATIOS) * len(AREAS) * len(RATIOS)
CENTRES = 5000
CASES = CENTRES * PER_CENTRE
STEPS = 200
STUCK = 0.1
"""A case whose final error is above this has not arrived."""
BLOCK = 20
"""Centres that take their 200 steps together: their boxes stay in a core's own cache meanwhile."""
COMPILE_FROM = 400
"""Centres from which on compiling takes less time than it saves."""

Gradient = Callable[[Sequence[Tensor], Sequence[Tensor]], Sequence[Tensor]]
"""Columns cx, cy, w, h of predicted and of true boxes → the loss's gradient by the predicted ones."""


@dataclass(frozen=True)
class SimulationConfig:
    """Which losses are simulated, and on how many cases."""

    losses: tuple[str, ...] = ("iou", "giou", "diou", "ciou", "eiou")
    """iou giou diou ciou eiou l1 smooth_l1, a sum such as giou+0.4*l1, or your own as module:function or
    file.py:function. Or what the paper's script
    computes: diou_published; diou_published-sign-sides with two of its slips repaired."""
    cases: int = CASES
    """How many cases, rounded to whole anchor centres of 343; errors are scaled to all 1715000."""
    seed: int = 0
    """Seed of the anchor centres."""
    published: bool = False
    """Also simulate what the paper's script computes for each of iou, giou, diou and ciou that is named."""
    repaired: bool = False
    """Also simulate that with one slip repaired at a time; includes --published."""

    def __post_init__(self) -> None:
        require_distinct(self, "losses")
        require_least(self, seed=0)
        words = f"it may be from {PER_CENTRE}, one anchor centre, to {CASES}, the paper's"
        require(self, "cases", PER_CENTRE <= self.cases <= CASES, words)

    def quick(self) -> "SimulationConfig":
        """The same on 100 anchor centres."""
        return replace(self, cases=100 * PER_CENTRE)

    @property
    def names(self) -> list[str]:
        """All that is simulated: the losses, then their published gradients, then the repaired ones."""
        kinds = [kind for kind in PUBLISHED if kind in self.losses]
        published = [f"{kind}_published" for kind in kinds if self.published or self.repaired]
        repaired = [f"{kind}_published-{slip}" for kind in kinds for slip in PUBLISHED[kind] if self.repaired]
        return list(dict.fromkeys([*self.losses, *published, *repaired]))


@dataclass(frozen=True)
class Regression:
    """How the boxes came nearer to their targets under one loss.

    Attributes:
        loss: its name.
        centres: `(n, 2)` anchor centres, x and y.
        errors: `(201, n)`, after each number of updates: the error of a centre, summed over its 343 cases.
        stuck: cases whose final error is above 0.1 or not finite.
        not_finite: cases whose final error is NaN or infinite.
    """

    loss: str
    centres: np.ndarray
    errors: np.ndarray
    stuck: int
    not_finite: int

    @property
    def cases(self) -> int:
        """How many were simulated."""
        return PER_CENTRE * len(self.centres)

    @property
    def error(self) -> np.ndarray:
        """`(201,)`: error after k updates (0 is the start), summed over cases, scaled to all 1,715,000."""
        return CENTRES * self.errors.mean(axis=1)

    @property
    def spread(self) -> np.ndarray:
        """`(201,)`: standard error of `error`, anchor centres being drawn at random; NaN of a single one."""
        n = self.errors.shape[1]
        if n == 1:
            return np.full(len(self.errors), math.nan)
        return CENTRES * self.errors.std(axis=1, ddof=1) / math.sqrt(n)

    @property
    def first_not_finite(self) -> int | None:
        """The step after which an error is first NaN or infinite."""
        steps = np.flatnonzero(~np.isfinite(self.errors).all(axis=1))
        return int(steps[0]) if len(steps) else None


def anchor_centres(count: int, seed: int = 0) -> np.ndarray:
    """`(count, 2)` float64: uniform in the disc of radius 3 round (10, 10)."""
    radius, turn = np.random.default_rng(seed).random((2, count))
    radius, angle = RADIUS * np.sqrt(radius), 2 * np.pi * turn
    return np.stack((TARGET[0] + radius * np.cos(angle), TARGET[1] + radius * np.sin(angle)), axis=1)


def sizes() -> tuple[np.ndarray, np.ndarray]:
    """Width and height, `(343, 2)` float64 each, of anchors and of targets in the cases of a centre."""
    ratios = np.array(RATIOS)
    shapes = np.stack((np.sqrt(ratios), 1 / np.sqrt(ratios)), axis=1)
    anchors = np.sqrt(np.array(AREAS))[:, None, None] * shapes
    each = (len(RATIOS), len(AREAS), len(RATIOS), 2)
    targets = np.broadcast_to(shapes[:, None, None], each)
    return np.broadcast_to(anchors, each).reshape(-1, 2), targets.reshape(-1, 2)


def overlap_share(centres: np.ndarray) -> np.ndarray:
    """`(n,)`: part of the 343 cases of each of `(n, 2)` anchor centres whose boxes overlap at the start."""
    anchors, targets = sizes()
    apart = np.abs(centres - np.array(TARGET))[:, None]
    return (apart < (anchors + targets) / 2).all(axis=2).mean(axis=1)


def rate(step: int) -> float:
    """The learning rate of update `step`, counted from 1."""
    return 0.1 if step <= 160 else 0.01 if step <= 180 else 0.001


def find_gradient(loss: str | Callable[..., Tensor]) -> Gradient:
    """The gradient that a name of `SimulationConfig.losses` or a box loss stands for.

    Raises:
        ValueError: no such loss; as `find_loss`.
    """
    if not isinstance(loss, str):
        return Own(Loss(_name(loss), loss, frozenset(inspect.signature(loss).parameters), own=True))
    published, *repaired = loss.split("-")
    kind = published.removesuffix("_published")
    if kind in PUBLISHED and kind != published:
        if wrong := [slip for slip in repaired if slip not in PUBLISHED[kind]]:
            has = ", ".join(PUBLISHED[kind])
            raise ValueError(f"loss {loss!r}: {published} has no slip {wrong[0]!r} to repair; it has {has}")
        return Published(kind, frozenset(PUBLISHED[kind]) - set(repaired))
    found = find_loss(loss, BOX_LOSSES)
    kind = loss.split(",")[0]
    if kind not in SIMILARITIES:
        return Own(found)
    return Exact(kind, getattr(found.function, "keywords", {}).get("eps", 1e-7))


@dataclass(frozen=True)
class Exact:
    """The gradient of 1 - similarity, as in the library's box losses, by columns: they make one fast loop."""

    kind: str
    eps: float

    def __call__(self, predicted: Sequence[Tensor], targets: Sequence[Tensor]) -> Sequence[Tensor]:
        """As `Gradient`."""

        def loss(*columns: Tensor) -> Tensor:
            first, second = box_of(columns, "cxcywh"), box_of(targets, "cxcywh")
            return 1 - SIMILARITIES[self.kind](first, second, self.eps)

        value, pull = torch.func.vjp(loss, *predicted)[:2]
        return pull(torch.ones_like(value))


@dataclass(frozen=True)
class Own:
    """The gradient of any other box loss, such as a user's: of float32 `(N, 4)` corners, one value each."""

    loss: Loss

    def __call__(self, predicted: Sequence[Tensor], targets: Sequence[Tensor]) -> Sequence[Tensor]:
        """As `Gradient`."""
        shape = predicted[0].shape
        boxes = torch.stack(tuple(predicted), -1).view(-1, 4).float().requires_grad_()
        true = torch.stack([column.expand(shape) for column in targets], -1).view(-1, 4).float()
        try:
            with torch.enable_grad():
                corners = box_convert(boxes, "cxcywh", "xyxy")
                value = self.loss(corners, box_convert(true, "cxcywh", "xyxy"))
                if value.shape != (len(boxes),):
                    raise ValueError(
                        f"it returned shape {tuple(value.shape)}; it must return one value a box, "
                        f"({len(boxes)},)"
                    )
                (gradient,) = torch.autograd.grad(value.sum(), boxes)
        except Exception as error:
            raise JobFailed(f"loss {self.loss.name!r}: {type(error).__name__}: {error}") from error
        return gradient.to(predicted[0].dtype).view(*shape, 4).unbind(-1)


def simulate(
    losses: Sequence[str | Callable[..., Tensor]],
    cases: int = CASES,
    seed: int = 0,
    *,
    impl: str = "auto",
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> dict[str, Regression]:
    """The DIoU paper's simulation, in float64.

    Args:
        losses: names, as in `SimulationConfig.losses`, or functions of `(N, 4)` predicted and true corner
            boxes that return `(N,)`; functions are given float32 boxes, some thousand at a time.
        cases: rounded to whole anchor centres, 343 cases each.
        seed: of the anchor centres; the same ones for every loss.
        impl: "compile" makes one loop of a step's value, gradient and update; "eager" does not; "auto" does
            from 400 anchor centres on. A user's function always runs eagerly.
        progress: called with (done, all), a count of blocks of cases.

    Returns:
        {name: Regression} in the order of `losses`.

    Raises:
        ValueError: unknown loss, cases or seed out of range, unknown impl.
        JobFailed: a user's loss raised or returned something else.
        RuntimeError: impl is "compile" and there is no way to compile.
    """
    check_impl(impl)
    SimulationConfig(cases=cases, seed=seed)  # checks both
    gradients = {loss if isinstance(loss, str) else _name(loss): find_gradient(loss) for loss in losses}
    centres = anchor_centres(round(cases / PER_CENTRE), seed)
    total, done = len(gradients) * math.ceil(len(centres) / BLOCK), 0
    progress(done, total)
    found = {}
    with _one_thread():
        for name, gradient in gradients.items():
            step, least = _stepper(gradient, len(centres), impl)
            errors = np.empty((STEPS + 1, len(centres)))
            final = np.empty((len(centres), PER_CENTRE))
            for first in range(0, len(centres), BLOCK):
                block = centres[first : first + BLOCK]
                count = len(block)
                way, last = _descend(step, np.resize(block, (max(count, least), 2)))
                errors[:, first : first + count], final[first : first + count] = way[:, :count], last[:count]
                done += 1
                progress(done, total)
            not_finite = ~np.isfinite(final)
            stuck = not_finite | (final > STUCK)
            found[name] = Regression(name, centres, errors, int(stuck.sum()), int(not_finite.sum()))
    return found


@contextmanager
def _one_thread() -> Iterator[None]:
    """A step takes less time than threads need to find each other, and they would wait for it spinning."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _name(function: Callable[..., Tensor]) -> str:
    return getattr(function, "__name__", type(function).__name__)


def _stepper(gradient: Gradient, centres: int, impl: str) -> tuple[Callable[..., Any], int]:
    """A step and the fewest centres that it takes: a compiled one takes whole blocks only."""
    eager = partial(_step, gradient), 1
    if isinstance(gradient, Own) or impl == "eager" or (impl == "auto" and centres < COMPILE_FROM):
        return eager
    try:
        return _compiled(gradient), BLOCK
    except Exception as error:
        reason = f"the simulation's step could not be compiled ({type(error).__name__}: {first_line(error)})"
        if impl == "compile":
            raise RuntimeError(f'{reason}; pass impl="eager"') from error
        warnings.warn(f"{reason}; it runs eagerly, many times slower", stacklevel=3)
        return eager


def _descend(step: Callable[..., Any], centres: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Errors `(201, n)` of n centres after each number of updates, and final ones `(n, 343)` of the cases."""
    anchors, true = (torch.from_numpy(np.ascontiguousarray(size.T)) for size in sizes())
    places = torch.from_numpy(centres)
    columns = [*(places[:, i : i + 1] for i in range(2)), *anchors]
    boxes = [column.expand(len(centres), PER_CENTRE).contiguous() for column in columns]
    targets = [*(torch.full((PER_CENTRE,), at, dtype=torch.float64) for at in TARGET), *true]
    errors = [_errors(boxes, targets).sum(-1)]
    for k in range(1, STEPS + 1):
        *boxes, error = step(*boxes, *targets, torch.tensor(rate(k), dtype=torch.float64))
        errors.append(error)
    return torch.stack(errors).numpy(), _errors(boxes, targets).numpy()


def _errors(boxes: Sequence[Tensor], targets: Sequence[Tensor]) -> Tensor:
    x, y, w, h = ((box - target).abs() for box, target in zip(boxes, targets))
    return x + y + w + h


def _step(gradient: Gradient, *tensors: Tensor) -> tuple[Tensor, ...]:
    """Columns of boxes and of targets and the rate → the moved boxes and the error of each centre."""
    boxes, targets, rate = tensors[:4], tensors[4:8], tensors[8]
    stride = rate * (2 - iou(box_of(boxes, "cxcywh"), box_of(targets, "cxcywh"), 0.0))
    moved = [column - stride * along for column, along in zip(boxes, gradient(boxes, targets))]
    return *moved, _errors(moved, targets).sum(-1)


@cache
def _compiled(gradient: Gradient) -> Callable[..., Any]:
    """`_step` as one loop over a full block; seconds of work, and so are the imports."""
    from torch.fx.experimental.proxy_tensor import make_fx

    shapes = [(BLOCK, PER_CENTRE)] * 4 + [(PER_CENTRE,)] * 4 + [()]
    examples: list[Any] = [torch.ones(shape, dtype=torch.float64) for shape in shapes]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's own, about its own code
        graph = make_fx(partial(_step, gradient), tracing_mode="fake")(*examples)
        return compile_graph(graph, examples, "from_example_inputs", **OPTIONS)
