"""The L1 loss of boxes, which the IoU family is compared with."""

from torch import Tensor

from detloss import l1_box_loss


def l1(predicted: Tensor, true: Tensor) -> Tensor:
    """Mean over the four sides of |predicted - true| ÷ the true box's width or height, `(N, 4)` to `(N,)`.

    A quarter of `l1` on the command line, which is the sum. Sides that are all off by a tenth of the box's
    size cost 0.1, whatever that size: without the division large boxes would make the loss. The detectors
    here predict boxes, not offsets, so that the same loss serves them all.
    """
    return l1_box_loss(predicted, true, relative=True) / 4
