"""The L1 loss of boxes, which the IoU family is compared with."""

from torch import Tensor, cat


def l1(predicted: Tensor, true: Tensor) -> Tensor:
    """Mean over the four sides of |predicted - true| ÷ the true box's width or height, `(N, 4)` to `(N,)`.

    Sides that are all off by a tenth of the box's size cost 0.1, whatever that size: without the division
    large boxes would make the loss. The detectors here predict boxes, not offsets, so that the same loss
    serves them all. A width or height below one pixel counts as one.
    """
    size = (true[:, 2:] - true[:, :2]).clamp(min=1)
    return ((predicted - true).abs() / cat([size, size], dim=1)).mean(dim=1)
