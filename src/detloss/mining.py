"""Which locations a loss counts, where not all should: hard negatives, random negatives, OHEM.

The remedies for imbalance that focal loss replaced (1708.02002, section 5.1). Each takes the losses of a
batch, of an elementwise loss with reduction "none", and returns a weight of 0 or 1 for each location:

    loss = sigmoid_focal_loss(logits, labels)                     # (B, P, C)
    weight = hard_negative_mask(loss, positives)                  # (B, P)
    total = (loss * weight[..., None]).sum() / positives.sum().clamp(min=1)

Each image of a batch is mined on its own. A location's loss is the sum over its classes. The weight is a
constant: no gradient goes through the choice. The divisor stays the number of positives, as in every detector
here; the papers, which train on minibatches of examples, do not say more.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from detloss._core.box import box_of, widened
from detloss.boxes import iou

Kind = Literal["hard", "random", "ohem", "ohem3"]


def hard_negative_mask(
    loss: Tensor,
    positives: Tensor,
    ratio: float = 3.0,
    minimum: int = 3,
    *,
    ignored: Tensor | None = None,
) -> Tensor:
    """Hard negative mining: all positives, and for each the `ratio` negatives of highest loss (SSD's 1:3).

    An image with n positives keeps max(ratio n, minimum) negatives, or all where it has fewer. Equal losses
    are taken in the order of the locations.

    Args:
        loss: `(B, P)` or `(B, P, C)`, any floating dtype.
        positives: `(B, P)` bool.
        ratio: negatives per positive, at least 0; the product is rounded.
        minimum: least negatives of an image, so that something is learned from one without objects. Not from
            the paper: SSD's code keeps no negative there.
        ignored: `(B, P)` bool, locations that are neither; they never count.

    Returns:
        `(B, P)` float32, 1 for what counts and 0 elsewhere.

    Raises:
        ValueError: shapes or dtypes that do not fit, a ratio or minimum below 0.

    Source: Liu et al., SSD, arXiv:1512.02325, "Hard negative mining".
    """
    _check_ratio(ratio, minimum)
    each = _per_location(loss)
    positives, negatives = _split(positives, ignored, each.shape)
    return _with_negatives(positives, each, negatives, ratio, minimum)


def random_ratio_mask(
    positives: Tensor,
    ratio: float = 3.0,
    minimum: int = 3,
    *,
    ignored: Tensor | None = None,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Random sampling: all positives, and for each `ratio` negatives drawn at random.

    As `hard_negative_mask`, with chance in place of the loss. Two-stage detectors do so for a fixed number of
    examples per image (64 with a quarter positives in Fast R-CNN); here no positive is left out, and the
    number of negatives follows from theirs.

    Args:
        positives: `(B, P)` bool.
        ratio: negatives per positive, at least 0; the product is rounded.
        minimum: least negatives of an image.
        ignored: `(B, P)` bool, locations that are neither; they never count.
        generator: of the draw, on its own device; one on the CPU draws the same for every device.

    Returns:
        `(B, P)` float32, 1 for what counts and 0 elsewhere.

    Raises:
        ValueError: shapes or dtypes that do not fit, a ratio or minimum below 0.

    Source: Girshick, Fast R-CNN, arXiv:1504.08083, section 2.3.
    """
    _check_ratio(ratio, minimum)
    if not isinstance(positives, Tensor) or positives.ndim != 2:
        raise ValueError(f"positives is {_shown(positives)}; it must be a bool tensor (B, P)")
    positives, negatives = _split(positives, ignored, positives.shape)
    device = positives.device if generator is None else generator.device
    chance = torch.rand(positives.shape, generator=generator, device=device).to(positives.device)
    return _with_negatives(positives, chance, negatives, ratio, minimum)


def ohem_mask(
    loss: Tensor,
    boxes: Tensor,
    positives: Tensor | None = None,
    *,
    ignored: Tensor | None = None,
    nms: float = 0.5,
    keep: int = 128,
    ratio: float | None = None,
    minimum: int = 3,
) -> Tensor:
    """OHEM: the `keep` locations of highest loss, after non-maximum suppression with the loss as score.

    Of locations whose boxes overlap by more than `nms`, only the one of highest loss may count: their losses
    say the same. Positives and negatives are treated alike, and an easy positive is left out. With `ratio`
    (the focal loss paper's "OHEM 1:3") the survivors are divided: the hardest positives, at most
    keep / (1 + ratio) of them, and for each of those the `ratio` hardest negatives.

    The greedy suppression takes a step per survivor, for all images at once, and ends when enough have
    survived. With `ratio` that is when the last positive is decided, which may be far down the list: its
    cost then follows from the number of locations, not from `keep`. It waits for the GPU every 16
    steps.

    Args:
        loss: `(B, P)` or `(B, P, C)`, any floating dtype.
        boxes: `(B, P, 4)` xyxy, those predicted at the locations (the paper's examples are boxes, too).
        positives: `(B, P)` bool; needed with `ratio` only.
        ignored: `(B, P)` bool; they never count and suppress nothing.
        nms: IoU above which the location of lower loss is left out, in [0, 1]; 1 leaves out none.
        keep: most locations of an image, at least 1 (with `ratio`, 1 + ratio). Table 1d calls it the
            batch size, and does not say whether it is that of an image; here it is. Its best are nms .5 and
            keep 128, the defaults.
        ratio: negatives per positive; None takes the hardest of either kind.
        minimum: with `ratio`, least negatives of an image; not from the paper.

    Returns:
        `(B, P)` float32, 1 for what counts and 0 elsewhere.

    Raises:
        ValueError: shapes or dtypes that do not fit, numbers out of range, `ratio` without positives.

    Sources: Shrivastava et al., OHEM, arXiv:1604.03540; as Lin et al., arXiv:1708.02002, section 5.1 and
    Table 1d, apply it to a one-stage detector.
    """
    each = _per_location(loss)
    if not isinstance(boxes, Tensor) or boxes.shape != (*each.shape, 4):
        raise ValueError(f"boxes is {_shown(boxes)}; for this loss it must have shape {(*each.shape, 4)}")
    if not 0 <= nms <= 1:
        raise ValueError(f"nms is {nms}; it must be in [0, 1], such as 0.5")
    if keep < 1:
        raise ValueError(f"keep is {keep}; it must be at least 1, such as 128")
    none = torch.zeros_like(each, dtype=torch.bool)
    if ratio is None:  # as if all were positives
        positives, negatives = _split(none if positives is None else positives, ignored, each.shape)
        positives, negatives = positives | negatives, none
        ratio = minimum = 0
    elif positives is None:
        raise ValueError("positives is None; with ratio it must say which locations are positive")
    else:
        _check_ratio(ratio, minimum)
        if keep < 1 + ratio:
            least = math.ceil(1 + ratio)
            raise ValueError(f"keep is {keep}; with ratio {ratio:g} it must be at least {least}")
        positives, negatives = _split(positives, ignored, each.shape)
    most = int(keep / (1 + ratio))

    def enough(alive: Tensor, undecided: Tensor) -> Tensor:
        found = (alive & positives).sum(1, keepdim=True).clamp(max=most)
        complete = (found == most) | ~(positives & undecided).any(1, keepdim=True)
        return (complete & ((alive & negatives).sum(1, keepdim=True) >= _wanted(found, ratio, minimum))).all()

    alive = _survivors(each, boxes, positives | negatives, nms, enough)
    hardest = _highest(each, alive & positives, torch.full_like(each[:, :1], most))
    return _with_negatives(hardest, each, alive & negatives, ratio, minimum)


@dataclass(frozen=True)
class Mining:
    """A choice of locations, as the command line names it: `hard:3`, `random:3`, `ohem:0.5:128`, `ohem3`.

    Attributes:
        kind: `hard_negative_mask`, `random_ratio_mask`, `ohem_mask`, or that with ratio 3.
        ratio: of hard and random.
        nms: of ohem and ohem3.
        keep: of ohem and ohem3.
    """

    kind: Kind
    ratio: float = 3.0
    nms: float = 0.5
    keep: int = 128

    @classmethod
    def parse(cls, text: str) -> "Mining":
        """Read a choice from a text; numbers left out are the defaults.

        Raises:
            ValueError: any other text.
        """
        kind, *numbers = (part.strip() for part in text.split(":"))
        try:
            if kind not in get_args(Kind):
                raise ValueError(f"unknown kind {kind!r}")
            names = ("nms", "keep") if kind.startswith("ohem") else ("ratio",)
            if len(numbers) > len(names):
                raise ValueError(f"{kind} takes {' and '.join(names)}")
            given = {name: int(n) if name == "keep" else float(n) for name, n in zip(names, numbers)}
            mining = cls(kind, **given)  # type: ignore[arg-type]
            nothing = torch.zeros(1, 1)
            mining.mask(nothing, torch.zeros(1, 1, 4), nothing.bool(), nothing.bool())
        except ValueError as error:
            raise ValueError(
                f"{text!r} is not a way of mining ({error}); write hard:RATIO, random:RATIO, "
                "ohem:NMS:KEEP or ohem3:NMS:KEEP, as in hard:3 or ohem:0.5:128"
            ) from None
        return mining

    @property
    def by_boxes(self) -> bool:
        """Whether it needs the boxes."""
        return self.kind.startswith("ohem")

    def mask(
        self,
        loss: Tensor,
        boxes: Tensor | None,
        positives: Tensor,
        ignored: Tensor,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """The weight `(B, P)`, 0 or 1, of each location; arguments as those of the functions."""
        if self.kind == "random":
            return random_ratio_mask(positives, self.ratio, ignored=ignored, generator=generator)
        if self.kind == "hard":
            return hard_negative_mask(loss, positives, self.ratio, ignored=ignored)
        if boxes is None:
            raise ValueError(f"boxes is None; {self.kind} needs the predicted ones")
        ratio = 3.0 if self.kind == "ohem3" else None
        return ohem_mask(loss, boxes, positives, ignored=ignored, nms=self.nms, keep=self.keep, ratio=ratio)


FIRST = 2048
"""How many of the hardest locations the suppression begins with; four times as many if they are too few."""


def _survivors(
    each: Tensor,
    boxes: Tensor,
    counted: Tensor,
    nms: float,
    enough: Callable[[Tensor, Tensor], Tensor],
) -> Tensor:
    """`(B, P)` bool: what greedy suppression leaves of the counted locations, hardest first.

    One survivor per image in each step. It ends early where `enough(survivors, undecided)`, both `(B, P)`,
    says so.
    """
    if nms == 1:
        return counted  # rounding must not find an overlap above it
    score = each.masked_fill(~counted, -math.inf)
    order = score.argsort(dim=1, descending=True, stable=True)
    size = FIRST
    while True:
        top = order[:, :size]
        survivors = torch.zeros_like(counted)
        done = _suppress(score, boxes.detach(), counted, top, survivors, nms, enough)
        if done or size >= score.shape[1]:
            return survivors
        size *= 4


def _suppress(
    score: Tensor,
    boxes: Tensor,
    counted: Tensor,
    top: Tensor,
    survivors: Tensor,
    nms: float,
    enough: Callable[[Tensor, Tensor], Tensor],
) -> bool:
    """Mark the survivors among the locations `top` `(B, K)`, and say whether enough have survived."""
    score, undecided = score.gather(1, top), counted.gather(1, top)
    columns = [column.gather(1, top) for column in widened(boxes).unbind(-1)]
    tiny = torch.finfo(columns[0].dtype).tiny
    for step in range(top.shape[1] + 16):
        # Asked now and then only: the answer has to come from the GPU.
        if step % 16 == 0:
            if enough(survivors, counted.scatter(1, top, undecided)):
                return True
            if not undecided.any():
                break
        hardest = score.argmax(1, keepdim=True)
        found = undecided.gather(1, hardest)
        place = top.gather(1, hardest)
        survivors.scatter_(1, place, survivors.gather(1, place) | found)
        overlap = iou(box_of([x.gather(1, hardest) for x in columns]), box_of(columns), tiny)
        gone = (overlap > nms).scatter_(1, hardest, True)
        undecided &= ~gone
        score.masked_fill_(gone, -math.inf)
    return False


def _with_negatives(
    positives: Tensor, score: Tensor, negatives: Tensor, ratio: float, minimum: int
) -> Tensor:
    """`(B, P)` float32: 1 for the positives, and for as many negatives of highest score as they want."""
    wanted = _wanted(positives.sum(1, keepdim=True), ratio, minimum)
    return (positives | _highest(score, negatives, wanted)).float()


def _highest(score: Tensor, among: Tensor, count: Tensor) -> Tensor:
    """`(B, P)` bool: of those `among`, the `count` `(B, 1)` highest, of equals the first; does not wait."""
    order = score.masked_fill(~among, -math.inf).argsort(dim=1, descending=True, stable=True)
    first = torch.arange(score.shape[1], device=score.device) < count
    return torch.zeros_like(among).scatter_(1, order, first) & among


def _wanted(positives: Tensor, ratio: float, minimum: int) -> Tensor:
    """Negatives of each image `(B, 1)` for its number of positives `(B, 1)`."""
    return (ratio * positives).round().clamp(min=minimum)


def _check_ratio(ratio: float, minimum: int) -> None:
    if not 0 <= ratio < math.inf:
        raise ValueError(f"ratio is {ratio}; it must be at least 0 and finite, such as 3 for 1:3")
    if minimum < 0:
        raise ValueError(f"minimum is {minimum}; it must be at least 0")


def _per_location(loss: Tensor) -> Tensor:
    """The loss of each location `(B, P)`, without gradient, in float32 or float64."""
    if not isinstance(loss, Tensor) or loss.ndim not in (2, 3) or not loss.is_floating_point():
        raise ValueError(
            f"loss is {_shown(loss)}; it must be a floating tensor (B, P) or (B, P, C), of reduction 'none'"
        )
    wide = loss.detach() if loss.dtype == torch.float64 else loss.detach().float()
    return wide.sum(-1) if loss.ndim == 3 else wide


def _split(positives: Tensor, ignored: Tensor | None, shape: torch.Size) -> tuple[Tensor, Tensor]:
    """Positives and negatives, `(B, P)` bool; neither holds what is ignored."""
    for name, mask in (("positives", positives), ("ignored", ignored)):
        if name == "ignored" and mask is None:
            continue
        if not isinstance(mask, Tensor) or mask.dtype != torch.bool or mask.shape != shape:
            raise ValueError(f"{name} is {_shown(mask)}; it must be a bool tensor of shape {tuple(shape)}")
    if ignored is None:
        return positives, ~positives
    return positives & ~ignored, ~positives & ~ignored


def _shown(value: object) -> str:
    """A value in an error message: a tensor by its shape and dtype."""
    if isinstance(value, Tensor):
        return f"a tensor of shape {tuple(value.shape)} and {value.dtype}"
    return repr(value)
