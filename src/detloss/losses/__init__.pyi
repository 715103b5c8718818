"""Signatures and docstrings of the losses, written by tools/losses_stub.py: do not edit."""

from collections.abc import Sequence

from torch import Tensor, nn

def asymmetric_loss(
    inputs: Tensor,
    targets: Tensor,
    gamma_neg: float | Tensor = 4.0,
    gamma_pos: float | Tensor = 1.0,
    clip: float | Tensor | Sequence[float] = 0.05,
    reduction: str = 'none',
    *,
    detach_weight: bool = False,
    weight: Tensor | None = None,
    ignore_index: int = -100,
    label_smoothing: float | Tensor = 0.0,
    class_dim: int = -1,
    impl: str = 'auto',
) -> Tensor:
    """Asymmetric loss, for images with many labels: negatives are focused harder, easy ones cost nothing.

    ASL = -t (1-p)^γ₊ log p - (1-t) p_m^γ₋ log(1-p_m),  p = σ(x),  p_m = max(p - m, 0).
    One sigmoid per class.

    Negatives with p ≤ m cost nothing and have no gradient. m = 0 and γ₊ = γ₋ = γ is focal loss without alpha
    on labels 0 and 1, and with γ = 0 BCE on any. The loss of a negative ends at -(1-m)^γ₋ log m, so for m > 0
    a badly wrong negative has no gradient either: it may be a missing label.

    Convention: names, order and defaults of the authors' code. The weights (1-p)^γ₊ and p_m^γ₋ carry
    gradient, as there and in timm by default; `detach_weight` makes them constants of the gradient
    (`disable_torch_grad_focal_loss` there). Soft labels mix the two terms as in the paper's first equation;
    the authors' code and timm give both terms one weight, (1-p_t)^(γ₊ t + γ₋ (1-t)). No logarithm is clamped,
    where theirs end at -log 1e-8: value and gradient are right at any logit. There is no alpha.

    Args:
        inputs: logits `(..., C)`, any floating dtype; the arithmetic is float32, float64 for float64.
        targets: soft labels in [0, 1] of the shape of `inputs`, or a mask of it, bool or uint8; or class
            indices of shape `inputs.shape[:-1]`: 0..C-1, C for background, `ignore_index` for a row that does
            not count.
        gamma_neg: γ₋ ≥ 0, a number or a 0-dim tensor.
        gamma_pos: γ₊ ≥ 0, a number or a 0-dim tensor.
        clip: the margin m, 0 ≤ m < 1, a number or a tensor that broadcasts to `inputs`; 0 switches it off.
        reduction: "none", "sum" or "mean" (over the elements that count).
        detach_weight: whether the two powers carry no gradient. The gradient is then not the derivative of
            the value.
        weight: a factor on the loss, broadcastable to `inputs`; with class indices also one per row.
        ignore_index: the class index of rows that do not count.
        label_smoothing: s in [0, 1): each label y, of a class index too, becomes y (1 - s) + s / 2.
        class_dim: the dimension of the classes, 1 for logits `(N, C, H, W)`; class indices and `quality` have
            the shape of `inputs` without it. Other arguments of one dimension are then one per class.
        impl: "auto" runs large calls in one fused pass, "eager" runs the formula under autograd, "compile"
            always fuses.

    Returns:
        For "none" the loss of each element, in the dtype of `inputs`; else a number, in float32 also for
        half-precision inputs. Under autocast always float32.

    Raises:
        ValueError: shapes or devices that differ, an index or a value out of range, labels that require
            grad.

    Source: Ridnik et al., Asymmetric Loss for Multi-Label Classification, arXiv:2009.14119.
    """

def binary_cross_entropy_with_logits(
    inputs: Tensor,
    targets: Tensor,
    reduction: str = 'none',
    *,
    alpha: float | Tensor | None | Sequence[float] = None,
    pos_weight: Tensor | None | Sequence[float] = None,
    weight: Tensor | None = None,
    ignore_index: int = -100,
    label_smoothing: float | Tensor = 0.0,
    class_dim: int = -1,
    impl: str = 'auto',
) -> Tensor:
    """Binary cross entropy on logits, the baseline: cross entropy of each class on its own.

    BCE = -(w t log p + (1-t) log(1-p)),  p = σ(x),  w = pos_weight;  with alpha: alpha_t BCE,
    alpha_t = alpha t + (1-alpha)(1-t).

    Equals `torch.nn.functional.binary_cross_entropy_with_logits` in value and gradient where that has the
    argument. The order of arguments is this package's, and the default reduction is "none".

    Args:
        inputs: logits `(..., C)`, any floating dtype; the arithmetic is float32, float64 for float64.
        targets: soft labels in [0, 1] of the shape of `inputs`, or a mask of it, bool or uint8; or class
            indices of shape `inputs.shape[:-1]`: 0..C-1, C for background, `ignore_index` for a row that does
            not count.
        reduction: "none", "sum" or "mean" (over the elements that count).
        alpha: weight of positives, and 1 - alpha of negatives: a number, or C numbers, one per class,
            in a tensor or a list; None or a number below 0 switches it off.
        pos_weight: a factor on the positive term, broadcastable to `inputs`, usually `(C,)`.
        weight: a factor on the loss, broadcastable to `inputs`; with class indices also one per row.
        ignore_index: the class index of rows that do not count.
        label_smoothing: s in [0, 1): each label y, of a class index too, becomes y (1 - s) + s / 2.
        class_dim: the dimension of the classes, 1 for logits `(N, C, H, W)`; class indices and `quality` have
            the shape of `inputs` without it. Other arguments of one dimension are then one per class.
        impl: "auto" runs large calls in one fused pass, "eager" runs the formula under autograd, "compile"
            always fuses.

    Returns:
        For "none" the loss of each element, in the dtype of `inputs`; else a number, in float32 also for
        half-precision inputs. Under autocast always float32.

    Raises:
        ValueError: shapes or devices that differ, an index or a value out of range, labels that require
            grad.
    """

def box_iou_loss(
    boxes1: Tensor,
    boxes2: Tensor,
    reduction: str = 'none',
    eps: float | Tensor | None = 1e-07,
    *,
    weight: Tensor | None = None,
    fmt: str = 'xyxy',
    impl: str = 'auto',
) -> Tensor:
    """IoU loss, 1 - IoU of paired boxes: what the boxes do not share.

    In [0, 1]. A proper box that does not touch its target has no gradient. Linear, where mmdet's `IoULoss` is
    -log IoU by default, and PaddleDetection's 1 - IoU².

    Args:
        boxes1: predicted boxes `(..., 4)`, floating or integer dtype.
        boxes2: the target boxes at the same places, same shape. Gradients reach both.
        reduction: "none", "sum" or "mean" (over the pairs; no pairs give 0 with a zero gradient).
        eps: what no denominator goes below, lengths being measured in the longer side of the enclosing
            box: it bounds the gradient of boxes that are nearly lines. The loss of small boxes does not
            depend on it (torchvision adds it, and theirs does). None is 0: value and gradient stay finite.
        weight: a factor on the loss, broadcastable to `(...)`; or of the shape of the boxes, `(..., 4)`, as
            mmdetection's heads have it: then its mean over the four.
        fmt: `xyxy`, `xywh` (corner and size) or `cxcywh` (centre and size, the "xywh" of many snippets).
        impl: "auto" runs large calls in one fused pass, "eager" runs the formula under autograd, "compile"
            always fuses.

    Returns:
        For "none" the loss of each pair, `(...)`, else a number; float64 for float64 boxes, else float32.

    Raises:
        ValueError: an unknown reduction or format, shapes or devices that differ, a number out of range.
    """

def complete_box_iou_loss(
    boxes1: Tensor,
    boxes2: Tensor,
    reduction: str = 'none',
    eps: float | Tensor | None = 1e-07,
    *,
    weight: Tensor | None = None,
    fmt: str = 'xyxy',
    impl: str = 'auto',
) -> Tensor:
    """CIoU loss, 1 - CIoU of paired boxes: also the distance of the centres and the aspect ratio count.

    CIoU = DIoU - αv,  v = 4/π² (atan w₁/h₁ - atan w₂/h₂)²,  α = v / (1 - IoU + v).

    In [0, 3). Equals `torchvision.ops.complete_box_iou_loss`. The trade-off α has no gradient (torchvision,
    ultralytics, mmdet ≥ 3). Unlike torchvision's, value and gradient stay finite for boxes without height.

    Args:
        boxes1: predicted boxes `(..., 4)`, floating or integer dtype.
        boxes2: the target boxes at the same places, same shape. Gradients reach both.
        reduction: "none", "sum" or "mean" (over the pairs; no pairs give 0 with a zero gradient).
        eps: what no denominator goes below, lengths being measured in the longer side of the enclosing
            box: it bounds the gradient of boxes that are nearly lines. The loss of small boxes does not
            depend on it (torchvision adds it, and theirs does). None is 0: value and gradient stay finite.
        weight: a factor on the loss, broadcastable to `(...)`; or of the shape of the boxes, `(..., 4)`, as
            mmdetection's heads have it: then its mean over the four.
        fmt: `xyxy`, `xywh` (corner and size) or `cxcywh` (centre and size, the "xywh" of many snippets).
        impl: "auto" runs large calls in one fused pass, "eager" runs the formula under autograd, "compile"
            always fuses.

    Returns:
        For "none" the loss of each pair, `(...)`, else a number; float64 for float64 boxes, else float32.

    Raises:
        ValueError: an unknown reduction or format, shapes or devices that differ, a number out of range.

    Source: Zheng et al., Distance-IoU Loss, arXiv:1911.08287.
    """

def distance_box_iou_loss(
    boxes1: Tensor,
    boxes2: Tensor,
    reduction: str = 'none',
    eps: float | Tensor | None = 1e-07,
    *,
    weight: Tensor | None = None,
    fmt: str = 'xyxy',
    impl: str = 'auto',
) -> Tensor:
    """DIoU loss, 1 - DIoU of paired boxes: also the distance of the centres counts.

    DIoU = IoU - ρ²/c²,  ρ the distance of the centres, c the diagonal of the enclosing box.

    In [0, 2]. Equals `torchvision.ops.distance_box_iou_loss`. Degenerate boxes: `paired_box_iou`.

    Args:
        boxes1: predicted boxes `(..., 4)`, floating or integer dtype.
        boxes2: the target boxes at the same places, same shape. Gradients reach both.
        reduction: "none", "sum" or "mean" (over the pairs; no pairs give 0 with a zero gradient).
        eps: what no denominator goes below, lengths being measured in the longer side of the enclosing
            box: it bounds the gradient of boxes that are nearly lines. The loss of small boxes does not
            depend on it (torchvision adds it, and theirs does). None is 0: value and gradient stay finite.
        weight: a factor on the loss, broadcastable to `(...)`; or of the shape of the boxes, `(..., 4)`, as
            mmdetection's heads have it: then its mean over the four.
        fmt: `xyxy`, `xywh` (corner and size) or `cxcywh` (centre and size, the "xywh" of many snippets).
        impl: "auto" runs large calls in one fused pass, "eager" runs the formula under autograd, "compile"
            always fuses.

    Returns:
        For "none" the loss of each pair, `(...)`, else a number; float64 for float64 boxes, else float32.

    Raises:
        ValueError: an unknown reduction or format, shapes or devices that differ, a number out of range.

    Source: Zheng et al., Distance-IoU Loss, arXiv:1911.08287.
    """

def distribution_focal_loss(
    inputs: Tensor,
    targets: Tensor,
    reduction: str = 'none',
    *,
    weight: Tensor | None = None,
    bins: Tensor | None = None,
    impl: str = 'auto',
) -> Tensor:
    """Distribution focal loss: cross entropy of a predicted box side to the two bins next to its distance.

    DFL = -((i+1-y) log p_i + (y-i) log p_{i+1}),  i = floor y,  p = softmax of the n+1 logits of one side.
    Each side of a box is predicted as a distribution over n+1 bins. The loss is smallest where p has those
    two shares; `distribution_integral` then gives y back.

    With `bins` w_0 < ... < w_n at other places than 0 to n, the two bins are those around y, and share it by
    where y lies between them: the fine-grained localization loss of D-FINE without its weight, an IoU.

    Convention: targets are clamped to [0, n] (to the first and the last of `bins`) in a copy, and both ends
    are exact (mmdet does not clamp; ultralytics clamps in place to n - .01). A box is four such sides, left,
    top, right, bottom, in units of the bins, usually the stride.

    Args:
        inputs: logits `(..., n+1)`, any floating dtype, at least two bins.
        targets: distances in bins, or in the units of `bins`, `(...)`.
        reduction: "none", "sum" or "mean" (over the targets).
        weight: a factor on the loss, broadcastable to `targets`.
        bins: where the bins are, n+1 rising positions; without it 0, 1, ..., n.
        impl: "auto" runs large calls in one fused pass, "eager" runs the formula under autograd, "compile"
            always fuses.

    Returns:
        The loss `(...)`, in the dtype of `inputs` for "none"; sums and means of half-precision inputs in
        float32.

    Raises:
        ValueError: shapes or devices that do not fit, fewer than two bins, targets that require grad, bins
            that do not rise.

    Source: Li et al., Generalized Focal Loss, arXiv:2006.04388, eq. 6. Other positions: Peng et al., D-FINE,
    arXiv:2410.13842.
    """

def distribution_integral(
    inputs: Tensor,
    *,
    bins: Tensor | None = None,
) -> Tensor:
    """The box side that a distribution over bins stands for: its mean, Σ_j j softmax(inputs)_j.

    Args:
        inputs: logits `(..., n+1)`, any floating dtype, at least two bins.
        bins: where the bins are, n+1 rising positions w: Σ_j w_j softmax(inputs)_j; without it 0, 1, ..., n.

    Returns:
        Distances in bins, or in the units of `bins`, `(...)`, float32 (float64 for float64 inputs) also for
        half-precision logits: bf16 would place the side only to a sixteenth of a bin.

    Raises:
        ValueError: fewer than two bins, bins that do not rise.

    Source: Li et al., Generalized Focal Loss, arXiv:2006.04388, eq. 4.
    """

def efficient_box_iou_loss(
    boxes1: Tensor,
    boxes2: Tensor,
    reduction: str = 'none',
    eps: float | Tensor | None = 1e-07,
    *,
    weight: Tensor | None = None,
    fmt: str = 'xyxy',
    impl: str = 'auto',
) -> Tensor:
    """EIoU loss, 1 - EIoU of paired boxes: centres, widths and heights count, each on its own.

    EIoU = DIoU - (w₁-w₂)²/C_w² - (h₁-h₂)²/C_h²,  C_w and C_h the sides of the enclosing box.

    Efficient IoU; mmdet's `EIoULoss` is another, Extended IoU.

    Args:
        boxes1: predicted boxes `(..., 4)`, floating or integer dtype.
        boxes2: the target boxes at the same places, same shape. Gradients reach both.
        reduction: "none", "sum" or "mean" (over the pairs; no pairs give 0 with a zero gradient).
        eps: what no denominator goes below, lengths being measured in the longer side of the enclosing
            box: it bounds the gradient of boxes that are nearly lines. The loss of small boxes does not
            depend on it (torchvision adds it, and theirs does). None is 0: value and gradient stay finite.
        weight: a factor on the loss, broadcastable to `(...)`; or of the shape of the boxes, `(..., 4)`, as
            mmdetection's heads have it: then its mean over the four.
        fmt: `xyxy`, `xywh` (corner and size) or `cxcywh` (centre and size, the "xywh" of many snippets).
        impl: "auto" runs large calls in one fused pass, "eager" runs the formula under autograd, "compile"
            always fuses.

    Returns:
        For "none" the loss of each pair, `(...)`, else a number; float64 for float64 boxes, else float32.

    Raises:
        ValueError: an unknown reduction or format, shapes or devices that differ, a number out of range.

    Source: Zhang et al., Focal and Efficient IoU Loss, arXiv:2101.08158.
    """

def gaussian_focal_loss(
    inputs: Tensor,
    targets: Tensor,
    alpha: float | Tensor = 2.0,
    gamma: float | Tensor = 4.0,
    reduction: str = 'none',
    *,
    weight: Tensor | None = None,
    ignore_index: int = -100,
    label_smoothing: float | Tensor = 0.0,
    class_dim: int = -1,
    impl: str = 'auto',
) -> Tensor:
    """Gaussian focal loss: finds the centres (or corners) of objects in a heat map.

    y = 1: GFL = -(1-p)^α log p;   else: GFL = -(1-y)^γ p^α log(1-p);   p = σ(x).

    y is 1 at the centre of an object and falls off around it as a Gaussian: a location beside the centre is a
    negative, but one that weighs little. With labels 0 and 1, and so with class indices (the row's class is
    1), it is focal loss with γ = α and without its alpha.

    Convention: only y = 1 exactly is a positive, as in CornerNet and CenterNet; so draw heat maps whose peak
    is 1 in float32, and not in half precision. mmdet's `GaussianFocalLoss` has the same names and defaults,
    but takes probabilities and adds 1e-12 within its logarithms; here the inputs are logits. CornerNet,
    CenterNet and mmdet divide the sum by the number of objects. It is not GFL, generalized focal loss.

    Args:
        inputs: logits `(..., C)`, any floating dtype; the arithmetic is float32, float64 for float64.
        targets: soft labels in [0, 1] of the shape of `inputs`, or a mask of it, bool or uint8; or class
            indices of shape `inputs.shape[:-1]`: 0..C-1, C for background, `ignore_index` for a row that does
            not count.
        alpha: α ≥ 0, the power that takes weight from easy answers: a number or a 0-dim tensor. It is not the
            alpha of focal loss.
        gamma: γ ≥ 0, the power that takes weight from negatives near a centre: a number or a 0-dim tensor.
        reduction: "none", "sum" or "mean" (over the elements that count).
        weight: a factor on the loss, broadcastable to `inputs`; with class indices also one per row.
        ignore_index: the class index of rows that do not count.
        label_smoothing: must be 0: a label below 1 is a negative here.
        class_dim: the dimension of the classes, 1 for logits `(N, C, H, W)`; class indices and `quality` have
            the shape of `inputs` without it. Other arguments of one dimension are then one per class.
        impl: "auto" runs large calls in one fused pass, "eager" runs the formula under autograd, "compile"
            always fuses.

    Returns:
        For "none" the loss of each element, in the dtype of `inputs`; else a number, in float32 also for
        half-precision inputs. Under autocast always float32.

    Raises:
        ValueError: shapes or devices that differ, an index or a value out of range, labels that require
            grad.

    Source: Law and Deng, CornerNet, arXiv:1808.01244, eq. 1; Zhou et al., Objects as Points,
    arXiv:1904.07850, eq. 1.
    """

def generalized_box_iou_loss(
    boxes1: Tensor,
    boxes2: Tensor,
    reduction: str = 'none',
    eps: float | Tensor | None = 1e-07,
    *,
    weight: Tensor | None = None,
    fmt: str = 'xyxy',
    impl: str = 'auto',
) -> Tensor:
    """GIoU loss, 1 - GIoU of paired boxes: also boxes that do not touch are drawn together.

    GIoU = IoU - (|C| - |A∪B|) / |C|,  C the enclosing box of A and B.

    In [0, 2]. Equals `torchvision.ops.generalized_box_iou_loss`. Degenerate boxes: `paired_box_iou`.

    Args:
        boxes1: predicted boxes `(..., 4)`, floating or integer dtype.
        boxes2: the target boxes at the same places, same shape. Gradients reach both.
        reduction: "none", "sum" or "mean" (over the pairs; no pairs give 0 with a zero gradient).
        eps: what no denominator goes below, lengths being measured in the longer side of the enclosing
            box: it bounds the gradient of boxes that are nearly lines. The loss of small boxes does not
            depend on it (torchvision adds it, and theirs does). None is 0: value and gradient stay finite.
        weight: a factor on the loss, broadcastable to `(...)`; or of the shape of the boxes, `(..., 4)`, as
            mmdetection's heads have it: then its mean over the four.
        fmt: `xyxy`, `xywh` (corner and size) or `cxcywh` (centre and size, the "xywh" of many snippets).
        impl: "auto" runs large calls in one fused pass, "eager" runs the formula under autograd, "compile"
            always fuses.

    Returns:
        For "none" the loss of each pair, `(...)`, else a number; float64 for float64 boxes, else float32.

    Raises:
        ValueError: an unknown reduction or format, shapes or devices that differ, a number out of range.

    Source: Rezatofighi et al., Generalized Intersection over Union, arXiv:1902.09630.
    """

def iou_aware_bce_loss(
    inputs: Tensor,
    targets: Tensor,
    alpha: float | Tensor = 0.25,
    gamma: float | Tensor = 2.0,
    reduction: str = 'none',
    *,
    quality: Tensor | None = None,
    weight: Tensor | None = None,
    ignore_index: int = -100,
    label_smoothing: float | Tensor = 0.0,
    class_dim: int = -1,
    impl: str = 'auto',
) -> Tensor:
    """IoU-aware BCE (IA-BCE): a matched box learns an IoU that its own score pulls along.

    positives: IA-BCE = -t log p - (1-t) log(1-p),  t = max(p^α u^(1-α), .01) without gradient;
    negatives: IA-BCE = -p^γ log(1-p);   p = σ(x),  u the IoU of the box. One sigmoid per class.

    The classification loss of Align-DETR, LW-DETR and RF-DETR. All positives weigh 1; negatives lose weight
    as in focal loss. The gradient of a positive is p - t, which is 0 at p = u: the score learns the IoU, more
    gently than from the label u, since t lies between the two. α = 0 takes u as the label.

    Convention: the label t is a constant for the gradient, so the gradient is not the derivative of the
    value, and where the value is smallest says nothing. The weight p^γ carries gradient. Both as in the
    authors' code, LW-DETR, RF-DETR and transformers, which divide the sum by the number of boxes. The
    logarithms are of logits: those of the authors' code and of transformers, log(1 - σ(x)), are infinite from
    x = 16.6 on in float32 and 6.2 in bfloat16. With class indices a row's class is a positive also where its
    quality is 0; in the dense form a target of 0 is a negative. The authors' smaller labels for the second
    and third match of an object are not here.

    Args:
        inputs: logits `(..., C)`, any floating dtype; the arithmetic is float32, float64 for float64.
        targets: soft labels in [0, 1] of the shape of `inputs`, or a mask of it, bool or uint8; or class
            indices of shape `inputs.shape[:-1]`: 0..C-1, C for background, `ignore_index` for a row that does
            not count.
        alpha: α in [0, 1], the share of the score in the label: a number or a 0-dim tensor. It is not the
            alpha of focal loss.
        gamma: γ ≥ 0, of the negatives: a number or a 0-dim tensor.
        reduction: "none", "sum" or "mean" (over the elements that count).
        quality: with class indices, the soft label of each row's class, of shape `inputs.shape[:-1]`, in
            [0, 1]; without it the label is 1.
        weight: a factor on the loss, broadcastable to `inputs`; with class indices also one per row.
        ignore_index: the class index of rows that do not count.
        label_smoothing: must be 0: a label is a quality here, and 0 a negative.
        class_dim: the dimension of the classes, 1 for logits `(N, C, H, W)`; class indices and `quality` have
            the shape of `inputs` without it. Other arguments of one dimension are then one per class.
        impl: "auto" runs large calls in one fused pass, "eager" runs the formula under autograd, "compile"
            always fuses.

    Returns:
        For "none" the loss of each element, in the dtype of `inputs`; else a number, in float32 also for
        half-precision inputs. Under autocast always float32.

    Raises:
        ValueError: shapes or devices that differ, an index or a value out of range, labels that require
            grad.

    Source: Cai et al., Align-DETR, arXiv:2304.07527v1, IA-BCE.
    """

def l1_box_loss(
    boxes1: Tensor,
    boxes2: Tensor,
    reduction: str = 'none',
    *,
    relative: bool = False,
    weight: Tensor | None = None,
    fmt: str = 'xyxy',
    impl: str = 'auto',
) -> Tensor:
    """L1 loss of paired boxes: the sum of the differences of their four numbers.

    L1 = Σ |aᵢ - bᵢ|,  a and b in the format `fmt`.

    One value per box, as the IoU losses have it: the sum over the four numbers, where
    `torch.nn.functional.l1_loss` has one value per number. Unlike for the IoU losses `fmt` changes the value:
    DETR and its kin take `cxcywh` divided by the size of the image, and weigh this loss 5 to GIoU's 2.

    Args:
        boxes1: predicted boxes `(..., 4)`, floating or integer dtype.
        boxes2: the target boxes at the same places, same shape. Gradients reach both.
        reduction: "none", "sum" or "mean" (over the pairs; no pairs give 0 with a zero gradient).
        relative: divide each difference by the width or the height of the target, at least 1: boxes in
            pixels then cost the same at any size. On the command line `l1` is so.
        weight: a factor on the loss, broadcastable to `(...)`; or of the shape of the boxes, `(..., 4)`, as
            mmdetection's heads have it: then its mean over the four.
        fmt: `xyxy`, `xywh` (corner and size) or `cxcywh` (centre and size, the "xywh" of many snippets).
        impl: "auto" runs large calls in one fused pass, "eager" runs the formula under autograd, "compile"
            always fuses.

    Returns:
        For "none" the loss of each pair, `(...)`, else a number; float64 for float64 boxes, else float32.

    Raises:
        ValueError: an unknown reduction or format, shapes or devices that differ, a number out of range.
    """

def matchability_aware_loss(
    inputs: Tensor,
    targets: Tensor,
    gamma: float | Tensor = 1.5,
    reduction: str = 'none',
    *,
    quality: Tensor | None = None,
    weight: Tensor | None = None,
    ignore_index: int = -100,
    label_smoothing: float | Tensor = 0.0,
    class_dim: int = -1,
    impl: str = 'auto',
) -> Tensor:
    """Matchability-aware loss (MAL): varifocal loss without its low weight on poor matches.

    positives: MAL = -q^γ log p - (1-q^γ) log(1-p);   negatives: MAL = -p^γ log(1-p);   p = σ(x).
    One sigmoid per class.

    A positive of quality q learns p = q^γ and weighs 1 whatever q is, where varifocal loss weighs it by q. A
    positive of quality 1 has plain BCE; γ = 0 is BCE on the classes, whatever their quality.

    Convention: the weight p^γ of the negatives carries no gradient, as in the authors' code (DEIM) and in
    transformers; so the gradient is not the derivative of the value, unlike in `varifocal_loss`. With class
    indices a row's class is a positive also where its quality is 0: it weighs 1 and learns p = 0 (DEIM). In
    the dense form a target of 0 is a negative. DEIM divides the sum by the number of boxes; its optional
    factor on the negatives, off by default, is not here.

    Args:
        inputs: logits `(..., C)`, any floating dtype; the arithmetic is float32, float64 for float64.
        targets: soft labels in [0, 1] of the shape of `inputs`, or a mask of it, bool or uint8; or class
            indices of shape `inputs.shape[:-1]`: 0..C-1, C for background, `ignore_index` for a row that does
            not count.
        gamma: γ ≥ 0, a number or a 0-dim tensor.
        reduction: "none", "sum" or "mean" (over the elements that count).
        quality: with class indices, the soft label of each row's class, of shape `inputs.shape[:-1]`, in
            [0, 1]; without it the label is 1.
        weight: a factor on the loss, broadcastable to `inputs`; with class indices also one per row.
        ignore_index: the class index of rows that do not count.
        label_smoothing: must be 0: a label is a quality here, and 0 a negative.
        class_dim: the dimension of the classes, 1 for logits `(N, C, H, W)`; class indices and `quality` have
            the shape of `inputs` without it. Other arguments of one dimension are then one per class.
        impl: "auto" runs large calls in one fused pass, "eager" runs the formula under autograd, "compile"
            always fuses.

    Returns:
        For "none" the loss of each element, in the dtype of `inputs`; else a number, in float32 also for
        half-precision inputs. Under autocast always float32.

    Raises:
        ValueError: shapes or devices that differ, an index or a value out of range, labels that require
            grad.

    Source: Huang et al., DEIM: DETR with Improved Matching for Fast Convergence, arXiv:2412.04234, MAL.
    """

def poly_focal_loss(
    inputs: Tensor,
    targets: Tensor,
    alpha: float | Tensor | None | Sequence[float] = 0.25,
    gamma: float | Tensor = 2.0,
    epsilon: float | Tensor | Sequence[float] = -1.0,
    reduction: str = 'none',
    *,
    weight: Tensor | None = None,
    ignore_index: int = -100,
    label_smoothing: float | Tensor = 0.0,
    class_dim: int = -1,
    impl: str = 'auto',
) -> Tensor:
    """Poly-1 focal loss: focal loss with one more number, ε, to tune the weight of nearly right answers.

    PFL = alpha_t ((1-p_t)^γ BCE(x, t) + ε (1-p_t)^(γ+1)),  p_t and alpha_t as in `sigmoid_focal_loss`.

    On labels 0 and 1, (1-p_t)^γ BCE is the sum of (1-p_t)^(γ+j) / j over j ≥ 1, of which ε changes the first
    term: it weighs 1+ε instead of 1. ε = 0 is focal loss; ε > 0 gives nearly right answers more weight, ε < 0
    less, and ε = -1 drops the term. Below -1 the minimum is no longer at p_t = 1.

    Convention: alpha weighs both terms, as in nnDetection; polyloss-pytorch and its copies leave it out of
    the second, where a negative ε then outweighs the first. The paper finds ε to depend on task and data, and
    has no default; -1 is nnDetection's, copies of the paper's listing have 1. At ε = -1 the two terms nearly
    cancel where p_t is near 1: the loss is then exact to float32's 1e-7 of the focal loss, not of itself.

    Args:
        inputs: logits `(..., C)`, any floating dtype; the arithmetic is float32, float64 for float64.
        targets: soft labels in [0, 1] of the shape of `inputs`, or a mask of it, bool or uint8; or class
            indices of shape `inputs.shape[:-1]`: 0..C-1, C for background, `ignore_index` for a row that does
            not count.
        alpha: weight of positives, and 1 - alpha of negatives: a number, or C numbers, one per class,
            in a tensor or a list; None or a number below 0 switches it off.
        gamma: γ ≥ 0, a number or a 0-dim tensor.
        epsilon: ε, usually ≥ -1: a number or a tensor that broadcasts to `inputs`, such as one per class.
        reduction: "none", "sum" or "mean" (over the elements that count).
        weight: a factor on the loss, broadcastable to `inputs`; with class indices also one per row.
        ignore_index: the class index of rows that do not count.
        label_smoothing: s in [0, 1): each label y, of a class index too, becomes y (1 - s) + s / 2.
        class_dim: the dimension of the classes, 1 for logits `(N, C, H, W)`; class indices and `quality` have
            the shape of `inputs` without it. Other arguments of one dimension are then one per class.
        impl: "auto" runs large calls in one fused pass, "eager" runs the formula under autograd, "compile"
            always fuses.

    Returns:
        For "none" the loss of each element, in the dtype of `inputs`; else a number, in float32 also for
        half-precision inputs. Under autocast always float32.

    Raises:
        ValueError: shapes or devices that differ, an index or a value out of range, labels that require
            grad.

    Source: Leng et al., PolyLoss, arXiv:2204.12511.
    """

def quality_focal_loss(
    inputs: Tensor,
    targets: Tensor,
    beta: float | Tensor = 2.0,
    reduction: str = 'none',
    *,
    alpha: float | Tensor | None | Sequence[float] = None,
    quality: Tensor | None = None,
    weight: Tensor | None = None,
    ignore_index: int = -100,
    label_smoothing: float | Tensor = 0.0,
    class_dim: int = -1,
    impl: str = 'auto',
) -> Tensor:
    """Quality focal loss: the score learns a soft label, usually the IoU of the predicted box.

    QFL = |y-p|^β BCE(x, y),  p = σ(x),  smallest at p = y;  with alpha: (alpha y + (1-alpha)(1-y)) QFL.
    One sigmoid per class.

    β = 0 is exactly BCE; on labels 0 and 1 it is focal loss with γ = β. The gradient is finite everywhere,
    and zero at p = y for β > 0 (where for β < 1 the true one is unbounded on either side).

    Convention: elementwise, as the paper; mmdet sums over the classes before it averages. The paper has no
    alpha.

    Args:
        inputs: logits `(..., C)`, any floating dtype; the arithmetic is float32, float64 for float64.
        targets: soft labels in [0, 1] of the shape of `inputs`, or a mask of it, bool or uint8; or class
            indices of shape `inputs.shape[:-1]`: 0..C-1, C for background, `ignore_index` for a row that does
            not count.
        beta: β ≥ 0, a number or a 0-dim tensor.
        reduction: "none", "sum" or "mean" (over the elements that count).
        alpha: weight by label, alpha y + (1-alpha)(1-y): a number, or C numbers, one per
            class, in a tensor or a list; None or a number below 0 switches it off.
        quality: with class indices, the soft label of each row's class, of shape `inputs.shape[:-1]`, in
            [0, 1]; without it the label is 1.
        weight: a factor on the loss, broadcastable to `inputs`; with class indices also one per row.
        ignore_index: the class index of rows that do not count.
        label_smoothing: s in [0, 1): each label y, of a class index too, becomes y (1 - s) + s / 2.
        class_dim: the dimension of the classes, 1 for logits `(N, C, H, W)`; class indices and `quality` have
            the shape of `inputs` without it. Other arguments of one dimension are then one per class.
        impl: "auto" runs large calls in one fused pass, "eager" runs the formula under autograd, "compile"
            always fuses.

    Returns:
        For "none" the loss of each element, in the dtype of `inputs`; else a number, in float32 also for
        half-precision inputs. Under autocast always float32.

    Raises:
        ValueError: shapes or devices that differ, an index or a value out of range, labels that require
            grad.

    Source: Li et al., Generalized Focal Loss, arXiv:2006.04388, eq. 5.
    """

def sample_dependent_focal_loss(
    inputs: Tensor,
    targets: Tensor,
    alpha: float | Tensor | None | Sequence[float] = 0.25,
    gamma_low: float | Tensor = 5.0,
    gamma_high: float | Tensor = 3.0,
    threshold: float | Tensor | Sequence[float] = 0.2,
    reduction: str = 'none',
    *,
    weight: Tensor | None = None,
    ignore_index: int = -100,
    label_smoothing: float | Tensor = 0.0,
    class_dim: int = -1,
    impl: str = 'auto',
) -> Tensor:
    """Focal loss for calibration: γ is larger where the answer is badly wrong (FLSD-53 by default).

    FLSD = alpha_t (1-p_t)^γ BCE(x, t),  γ = gamma_low where p_t < threshold, gamma_high elsewhere; p_t and
    alpha_t as in `sigmoid_focal_loss`, soft labels too. By default γ is 5 below p_t = .2 and 3 from there on.
    With equal gammas it is focal loss.

    γ is a constant of the gradient, and the value jumps where p_t crosses the threshold: with the defaults
    from .527 up to .824 (times alpha_t) as the answer gets better, as it does in the paper.

    Convention: the paper's p_t comes from a softmax over classes and there is no alpha; here there is one
    sigmoid per class and the alpha of `sigmoid_focal_loss`, so that the two differ in γ alone. The paper
    chose it for calibration of image classifiers, not for detection.

    Args:
        inputs: logits `(..., C)`, any floating dtype; the arithmetic is float32, float64 for float64.
        targets: soft labels in [0, 1] of the shape of `inputs`, or a mask of it, bool or uint8; or class
            indices of shape `inputs.shape[:-1]`: 0..C-1, C for background, `ignore_index` for a row that does
            not count.
        alpha: weight of positives, and 1 - alpha of negatives: a number, or C numbers, one per class,
            in a tensor or a list; None or a number below 0 switches it off.
        gamma_low: γ ≥ 0 where p_t < threshold, a number or a 0-dim tensor.
        gamma_high: γ ≥ 0 elsewhere, a number or a 0-dim tensor.
        threshold: in [0, 1], a number or a tensor that broadcasts to `inputs`.
        reduction: "none", "sum" or "mean" (over the elements that count).
        weight: a factor on the loss, broadcastable to `inputs`; with class indices also one per row.
        ignore_index: the class index of rows that do not count.
        label_smoothing: s in [0, 1): each label y, of a class index too, becomes y (1 - s) + s / 2.
        class_dim: the dimension of the classes, 1 for logits `(N, C, H, W)`; class indices and `quality` have
            the shape of `inputs` without it. Other arguments of one dimension are then one per class.
        impl: "auto" runs large calls in one fused pass, "eager" runs the formula under autograd, "compile"
            always fuses.

    Returns:
        For "none" the loss of each element, in the dtype of `inputs`; else a number, in float32 also for
        half-precision inputs. Under autocast always float32.

    Raises:
        ValueError: shapes or devices that differ, an index or a value out of range, labels that require
            grad.

    Source: Mukhoti et al., Calibrating Deep Neural Networks using Focal Loss, arXiv:2002.09437, section 4.
    """

def sigmoid_focal_loss(
    inputs: Tensor,
    targets: Tensor,
    alpha: float | Tensor | None | Sequence[float] = 0.25,
    gamma: float | Tensor = 2.0,
    reduction: str = 'none',
    *,
    pos_weight: Tensor | None | Sequence[float] = None,
    weight: Tensor | None = None,
    ignore_index: int = -100,
    label_smoothing: float | Tensor = 0.0,
    class_dim: int = -1,
    impl: str = 'auto',
) -> Tensor:
    """Focal loss: cross entropy with little weight on what is already right, for a rare foreground.

    FL = alpha_t (1-p_t)^γ BCE(x, t),  p = σ(x),  p_t = p t + (1-p)(1-t),  alpha_t = alpha t + (1-alpha)(1-t).
    One sigmoid per class.

    Equals `torchvision.ops.sigmoid_focal_loss`, arguments in the same order. γ = 0 is exactly
    (alpha-weighted) BCE. Value, gradient and second derivative are finite for every γ ≥ 0 at every logit up
    to ±1e30, saturated ones too.

    Convention: alpha weighs the positives, 1-alpha the negatives (torchvision, mmdet, fvcore). On soft
    labels this p_t (torchvision, fvcore, optax, ultralytics) has its minimum *not* at p = t: for t = .3 and
    γ = 2 it is at p = .122. Use `quality_focal_loss` where a score has to learn a soft label such as an IoU.
    No reduction divides by the number of positives: a detector does that itself.

    Args:
        inputs: logits `(..., C)`, any floating dtype; the arithmetic is float32, float64 for float64.
        targets: soft labels in [0, 1] of the shape of `inputs`, or a mask of it, bool or uint8; or class
            indices of shape `inputs.shape[:-1]`: 0..C-1, C for background, `ignore_index` for a row that does
            not count.
        alpha: weight of positives, and 1 - alpha of negatives: a number, or C numbers, one per class,
            in a tensor or a list; None or a number below 0 switches it off.
        gamma: γ ≥ 0, a number or a 0-dim tensor.
        reduction: "none", "sum" or "mean" (over the elements that count).
        pos_weight: a factor on the positive term of BCE, broadcastable to `inputs`, usually `(C,)`.
        weight: a factor on the loss, broadcastable to `inputs`; with class indices also one per row.
        ignore_index: the class index of rows that do not count.
        label_smoothing: s in [0, 1): each label y, of a class index too, becomes y (1 - s) + s / 2.
        class_dim: the dimension of the classes, 1 for logits `(N, C, H, W)`; class indices and `quality` have
            the shape of `inputs` without it. Other arguments of one dimension are then one per class.
        impl: "auto" runs large calls in one fused pass, "eager" runs the formula under autograd, "compile"
            always fuses.

    Returns:
        For "none" the loss of each element, in the dtype of `inputs`; else a number, in float32 also for
        half-precision inputs. Under autocast always float32.

    Raises:
        ValueError: shapes or devices that differ, an index or a value out of range, labels that require
            grad.

    Source: Lin et al., Focal Loss for Dense Object Detection, arXiv:1708.02002, eq. 5.
    """

def smooth_l1_box_loss(
    boxes1: Tensor,
    boxes2: Tensor,
    reduction: str = 'none',
    *,
    beta: float | Tensor = 1.0,
    relative: bool = False,
    weight: Tensor | None = None,
    fmt: str = 'xyxy',
    impl: str = 'auto',
) -> Tensor:
    """Smooth L1 loss of paired boxes: L1 loss with a gradient that fades where a box is nearly right.

    SL1 = Σ s(aᵢ - bᵢ),  s(d) = d²/2β for |d| < β, |d| - β/2 beyond;  a and b in the format `fmt`.

    One value per box, the sum over the four numbers; `fmt` changes the value, as in `l1_box_loss`.

    Args:
        boxes1: predicted boxes `(..., 4)`, floating or integer dtype.
        boxes2: the target boxes at the same places, same shape. Gradients reach both.
        reduction: "none", "sum" or "mean" (over the pairs; no pairs give 0 with a zero gradient).
        beta: β ≥ 0, in units of the boxes (with `relative` in parts of the target's size), 0 is L1 loss: a
            number or a tensor that broadcasts to `(...)`. torch's default is 1; for offsets relative to an
            anchor 1/9 is usual (Faster R-CNN, RetinaNet), and on the command line `smooth_l1` has that.
        relative: as in `l1_box_loss`.
        weight: a factor on the loss, broadcastable to `(...)`; or of the shape of the boxes, `(..., 4)`, as
            mmdetection's heads have it: then its mean over the four.
        fmt: `xyxy`, `xywh` (corner and size) or `cxcywh` (centre and size, the "xywh" of many snippets).
        impl: "auto" runs large calls in one fused pass, "eager" runs the formula under autograd, "compile"
            always fuses.

    Returns:
        For "none" the loss of each pair, `(...)`, else a number; float64 for float64 boxes, else float32.

    Raises:
        ValueError: an unknown reduction or format, shapes or devices that differ, a number out of range.

    Source: Girshick, Fast R-CNN, arXiv:1504.08083, eq. 3; β as in Detectron.
    """

def softmax_focal_loss(
    inputs: Tensor,
    targets: Tensor,
    alpha: Tensor | Sequence[float] | None = None,
    gamma: float | Tensor = 2.0,
    reduction: str = 'none',
    *,
    weight: Tensor | None = None,
    ignore_index: int = -100,
    label_smoothing: float = 0.0,
    impl: str = 'auto',
) -> Tensor:
    """Focal loss for one class out of several: `torch.nn.functional.cross_entropy` with a γ.

    Class index t:      FL = -alpha_t (1-p_t)^γ log p_t.
    Probabilities t_c:  FL = -Σ_c alpha_c t_c (1-p_c)^γ log p_c.

    Equals `cross_entropy` at γ = 0, `label_smoothing` included (it turns an index into probabilities).
    Value and gradient are finite at every logit up to ±1e30 for every γ ≥ 0.

    Convention: alpha multiplies the loss of its class, and "mean" divides by the number of targets that
    count, not by the sum of their alphas as `cross_entropy` does with `weight`. No class is treated as
    background; if one is, give it an alpha of its own (MONAI and kornia give class 0 the weight 1-alpha).

    Args:
        inputs: logits `(N, C, ...)` or `(C,)`, any floating dtype.
        targets: class indices `(N, ...)` or `()`, 0..C-1 or `ignore_index`; or probabilities, shape of
            `inputs`, or a one-hot mask of it, bool or uint8.
        alpha: the weight of each class, C numbers in a tensor or a list; or None.
        gamma: γ ≥ 0, a number or a 0-dim tensor.
        reduction: "none", "sum" or "mean" (over the targets that count).
        weight: a factor on the loss of each target, `(N, ...)` or `()`, as a map of weights is; it does not
            change what a mean divides by. The class weights of `cross_entropy` are `alpha`.
        ignore_index: the index of targets to leave out.
        label_smoothing: in [0, 1], the share of every target spread evenly over the classes.
        impl: "auto" runs large calls in one fused pass, "eager" runs the formula under autograd, "compile"
            always fuses.

    Returns:
        The loss `(N, ...)` or `()`, in the dtype of `inputs` for "none"; sums and means of half-precision
        inputs in float32.

    Raises:
        ValueError: shapes or devices that do not fit, an index or a value out of range, targets that require
            grad.

    Source: the class-index form is eq. 5 of Lin et al., arXiv:1708.02002, with p_t from a softmax.
    """

def varifocal_loss(
    inputs: Tensor,
    targets: Tensor,
    alpha: float | Tensor | None | Sequence[float] = 0.75,
    gamma: float | Tensor = 2.0,
    reduction: str = 'none',
    *,
    detach_weight: bool = False,
    quality: Tensor | None = None,
    weight: Tensor | None = None,
    ignore_index: int = -100,
    label_smoothing: float | Tensor = 0.0,
    class_dim: int = -1,
    impl: str = 'auto',
) -> Tensor:
    """Varifocal loss: the score learns an IoU; good boxes weigh most, easy negatives hardly anything.

    y > 0: VFL = -y (y log p + (1-y) log(1-p));   y = 0: VFL = -alpha p^γ log(1-p);   p = σ(x).

    Convention: alpha scales the *negatives* (it is not the alpha of focal loss). The weight p^γ carries
    gradient, as in mmdet, PaddleDetection and ultralytics; with `detach_weight` it is a constant of the
    gradient, as in RT-DETR, D-FINE and DEIM. With class indices a
    row's class is a positive also where its quality is 0, and then weighs nothing (PP-YOLOE, YOLOv6,
    ultralytics); in the dense form, as in mmdet, a target of 0 is a negative. Others divide the sum by Σ y.

    Args:
        inputs: logits `(..., C)`, any floating dtype; the arithmetic is float32, float64 for float64.
        targets: soft labels in [0, 1] of the shape of `inputs`, or a mask of it, bool or uint8; or class
            indices of shape `inputs.shape[:-1]`: 0..C-1, C for background, `ignore_index` for a row that does
            not count.
        alpha: a factor on the negatives, ≥ 0: a number, or C numbers, one per class, in a tensor or a list;
            None or a number below 0 switches it off (1).
        gamma: γ ≥ 0, a number or a 0-dim tensor.
        reduction: "none", "sum" or "mean" (over the elements that count).
        detach_weight: whether p^γ carries no gradient. The gradient is then not the derivative of the value.
        quality: with class indices, the soft label of each row's class, of shape `inputs.shape[:-1]`, in
            [0, 1]; without it the label is 1.
        weight: a factor on the loss, broadcastable to `inputs`; with class indices also one per row.
        ignore_index: the class index of rows that do not count.
        label_smoothing: must be 0: a label is a quality here, and 0 a negative.
        class_dim: the dimension of the classes, 1 for logits `(N, C, H, W)`; class indices and `quality` have
            the shape of `inputs` without it. Other arguments of one dimension are then one per class.
        impl: "auto" runs large calls in one fused pass, "eager" runs the formula under autograd, "compile"
            always fuses.

    Returns:
        For "none" the loss of each element, in the dtype of `inputs`; else a number, in float32 also for
        half-precision inputs. Under autocast always float32.

    Raises:
        ValueError: shapes or devices that differ, an index or a value out of range, labels that require
            grad.

    Source: Zhang et al., VarifocalNet, arXiv:2008.13367, eq. 2.
    """

class AsymmetricLoss(nn.Module):
    """Module of `asymmetric_loss`, with its arguments; the default reduction is "mean"."""

    def __init__(
        self,
        gamma_neg: float | Tensor = 4.0,
        gamma_pos: float | Tensor = 1.0,
        clip: float | Tensor | Sequence[float] = 0.05,
        reduction: str = 'mean',
        *,
        detach_weight: bool = False,
        ignore_index: int = -100,
        label_smoothing: float | Tensor = 0.0,
        class_dim: int = -1,
        impl: str = 'auto',
    ) -> None: ...
    def __call__(
        self,
        inputs: Tensor,
        targets: Tensor,
        *,
        weight: Tensor | None = None,
    ) -> Tensor: ...
    def forward(
        self,
        inputs: Tensor,
        targets: Tensor,
        *,
        weight: Tensor | None = None,
    ) -> Tensor:
        """The loss of logits `(..., C)` for targets of their shape or class indices."""

class BCEWithLogitsLoss(nn.Module):
    """Module of `binary_cross_entropy_with_logits`, with its arguments; the default reduction is "mean"."""

    def __init__(
        self,
        weight: Tensor | None = None,
        *,
        reduction: str = 'mean',
        pos_weight: Tensor | Sequence[float] | None = None,
        alpha: float | Tensor | Sequence[float] | None = None,
        ignore_index: int = -100,
        label_smoothing: float | Tensor = 0.0,
        class_dim: int = -1,
        impl: str = 'auto',
    ) -> None: ...
    def __call__(
        self,
        inputs: Tensor,
        targets: Tensor,
        *,
        weight: Tensor | None = None,
    ) -> Tensor: ...
    def forward(
        self,
        inputs: Tensor,
        targets: Tensor,
        *,
        weight: Tensor | None = None,
    ) -> Tensor:
        """The loss of logits `(..., C)` for targets of their shape or class indices."""

class BoxIoULoss(nn.Module):
    """Module of `box_iou_loss`, with its arguments; the default reduction is "mean"."""

    def __init__(
        self,
        reduction: str = 'mean',
        eps: float | Tensor | None = 1e-07,
        *,
        fmt: str = 'xyxy',
        impl: str = 'auto',
    ) -> None: ...
    def __call__(
        self,
        boxes1: Tensor,
        boxes2: Tensor,
        *,
        weight: Tensor | None = None,
    ) -> Tensor: ...
    def forward(
        self,
        boxes1: Tensor,
        boxes2: Tensor,
        *,
        weight: Tensor | None = None,
    ) -> Tensor:
        """The loss of predicted boxes `(..., 4)` against the target boxes at the same places."""

class CompleteBoxIoULoss(nn.Module):
    """Module of `complete_box_iou_loss`, with its arguments; the default reduction is "mean"."""

    def __init__(
        self,
        reduction: str = 'mean',
        eps: float | Tensor | None = 1e-07,
        *,
        fmt: str = 'xyxy',
        impl: str = 'auto',
    ) -> None: ...
    def __call__(
        self,
        boxes1: Tensor,
        boxes2: Tensor,
        *,
        weight: Tensor | None = None,
    ) -> Tensor: ...
    def forward(
        self,
        boxes1: Tensor,
        boxes2: Tensor,
        *,
        weight: Tensor | None = None,
    ) -> Tensor:
        """The loss of predicted boxes `(..., 4)` against the target boxes at the same places."""

class DistanceBoxIoULoss(nn.Module):
    """Module of `distance_box_iou_loss`, with its arguments; the default reduction is "mean"."""

    def __init__(
        self,
        reduction: str = 'mean',
        eps: float | Tensor | None = 1e-07,
        *,
        fmt: str = 'xyxy',
        impl: str = 'auto',
    ) -> None: ...
    def __call__(
        self,
        boxes1: Tensor,
        boxes2: Tensor,
        *,
        weight: Tensor | None = None,
    ) -> Tensor: ...
    def forward(
        self,
        boxes1: Tensor,
        boxes2: Tensor,
        *,
        weight: Tensor | None = None,
    ) -> Tensor:
        """The loss of predicted boxes `(..., 4)` against the target boxes at the same places."""

class DistributionFocalLoss(nn.Module):
    """Module of `distribution_focal_loss`, with its arguments; the default reduction is "mean"."""

    def __init__(
        self,
        reduction: str = 'mean',
        *,
        bins: Tensor | None = None,
        impl: str = 'auto',
    ) -> None: ...
    def __call__(
        self,
        inputs: Tensor,
        targets: Tensor,
        *,
        weight: Tensor | None = None,
    ) -> Tensor: ...
    def forward(
        self,
        inputs: Tensor,
        targets: Tensor,
        *,
        weight: Tensor | None = None,
    ) -> Tensor:
        """The loss of logits `(..., n+1)` for distances `(...)` in bins."""

class EfficientBoxIoULoss(nn.Module):
    """Module of `efficient_box_iou_loss`, with its arguments; the default reduction is "mean"."""

    def __init__(
        self,
        reduction: str = 'mean',
        eps: float | Tensor | None = 1e-07,
        *,
        fmt: str = 'xyxy',
        impl: str = 'auto',
    ) -> None: ...
    def __call__(
        self,
        boxes1: Tensor,
        boxes2: Tensor,
        *,
        weight: Tensor | None = None,
    ) -> Tensor: ...
    def forward(
        self,
        boxes1: Tensor,
        boxes2: Tensor,
        *,
        weight: Tensor | None = None,
    ) -> Tensor:
        """The loss of predicted boxes `(..., 4)` against the target boxes at the same places."""

class GaussianFocalLoss(nn.Module):
    """Module of `gaussian_focal_loss`, with its arguments; the default reduction is "mean"."""

    def __init__(
        self,
        alpha: float | Tensor = 2.0,
        gamma: float | Tensor = 4.0,
        reduction: str = 'mean',
        *,
        ignore_index: int = -100,
        label_smoothing: float | Tensor = 0.0,
        class_dim: int = -1,
        impl: str = 'auto',
    ) -> None: ...
    def __call__(
        self,
        inputs: Tensor,
        targets: Tensor,
        *,
        weight: Tensor | None = None,
    ) -> Tensor: ...
    def forward(
        self,
        inputs: Tensor,
        targets: Tensor,
        *,
        weight: Tensor | None = None,
    ) -> Tensor:
        """The loss of logits `(..., C)` for targets of their shape or class indices."""

class GeneralizedBoxIoULoss(nn.Module):
    """Module of `generalized_box_iou_loss`, with its arguments; the default reduction is "mean"."""

    def __init__(
        self,
        reduction: str = 'mean',
        eps: float | Tensor | None = 1e-07,
        *,
        fmt: str = 'xyxy',
        impl: str = 'auto',
    ) -> None: ...
    def __call__(
        self,
        boxes1: Tensor,
        boxes2: Tensor,
        *,
        weight: Tensor | None = None,
    ) -> Tensor: ...
    def forward(
        self,
        boxes1: Tensor,
        boxes2: Tensor,
        *,
        weight: Tensor | None = None,
    ) -> Tensor:
        """The loss of predicted boxes `(..., 4)` against the target boxes at the same places."""

class IoUAwareBCELoss(nn.Module):
    """Module of `iou_aware_bce_loss`, with its arguments; the default reduction is "mean"."""

    def __init__(
        self,
        alpha: float | Tensor = 0.25,
        gamma: float | Tensor = 2.0,
        reduction: str = 'mean',
        *,
        ignore_index: int = -100,
        label_smoothing: float | Tensor = 0.0,
        class_dim: int = -1,
        impl: str = 'auto',
    ) -> None: ...
    def __call__(
        self,
        inputs: Tensor,
        targets: Tensor,
        *,
        quality: Tensor | None = None,
        weight: Tensor | None = None,
    ) -> Tensor: ...
    def forward(
        self,
        inputs: Tensor,
        targets: Tensor,
        *,
        quality: Tensor | None = None,
        weight: Tensor | None = None,
    ) -> Tensor:
        """The loss of logits `(..., C)` for soft labels, or for class indices with their quality."""

class L1BoxLoss(nn.Module):
    """Module of `l1_box_loss`, with its arguments; the default reduction is "mean"."""

    def __init__(
        self,
        reduction: str = 'mean',
        *,
        relative: bool = False,
        fmt: str = 'xyxy',
        impl: str = 'auto',
    ) -> None: ...
    def __call__(
        self,
        boxes1: Tensor,
        boxes2: Tensor,
        *,
        weight: Tensor | None = None,
    ) -> Tensor: ...
    def forward(
        self,
        boxes1: Tensor,
        boxes2: Tensor,
        *,
        weight: Tensor | None = None,
    ) -> Tensor:
        """The loss of predicted boxes `(..., 4)` against the target boxes at the same places."""

class MatchabilityAwareLoss(nn.Module):
    """Module of `matchability_aware_loss`, with its arguments; the default reduction is "mean"."""

    def __init__(
        self,
        gamma: float | Tensor = 1.5,
        reduction: str = 'mean',
        *,
        ignore_index: int = -100,
        label_smoothing: float | Tensor = 0.0,
        class_dim: int = -1,
        impl: str = 'auto',
    ) -> None: ...
    def __call__(
        self,
        inputs: Tensor,
        targets: Tensor,
        *,
        quality: Tensor | None = None,
        weight: Tensor | None = None,
    ) -> Tensor: ...
    def forward(
        self,
        inputs: Tensor,
        targets: Tensor,
        *,
        quality: Tensor | None = None,
        weight: Tensor | None = None,
    ) -> Tensor:
        """The loss of logits `(..., C)` for soft labels, or for class indices with their quality."""

class PolyFocalLoss(nn.Module):
    """Module of `poly_focal_loss`, with its arguments; the default reduction is "mean"."""

    def __init__(
        self,
        alpha: float | Tensor | None | Sequence[float] = 0.25,
        gamma: float | Tensor = 2.0,
        epsilon: float | Tensor | Sequence[float] = -1.0,
        reduction: str = 'mean',
        *,
        ignore_index: int = -100,
        label_smoothing: float | Tensor = 0.0,
        class_dim: int = -1,
        impl: str = 'auto',
    ) -> None: ...
    def __call__(
        self,
        inputs: Tensor,
        targets: Tensor,
        *,
        weight: Tensor | None = None,
    ) -> Tensor: ...
    def forward(
        self,
        inputs: Tensor,
        targets: Tensor,
        *,
        weight: Tensor | None = None,
    ) -> Tensor:
        """The loss of logits `(..., C)` for targets of their shape or class indices."""

class QualityFocalLoss(nn.Module):
    """Module of `quality_focal_loss`, with its arguments; the default reduction is "mean"."""

    def __init__(
        self,
        beta: float | Tensor = 2.0,
        reduction: str = 'mean',
        *,
        alpha: float | Tensor | None | Sequence[float] = None,
        ignore_index: int = -100,
        label_smoothing: float | Tensor = 0.0,
        class_dim: int = -1,
        impl: str = 'auto',
    ) -> None: ...
    def __call__(
        self,
        inputs: Tensor,
        targets: Tensor,
        *,
        quality: Tensor | None = None,
        weight: Tensor | None = None,
    ) -> Tensor: ...
    def forward(
        self,
        inputs: Tensor,
        targets: Tensor,
        *,
        quality: Tensor | None = None,
        weight: Tensor | None = None,
    ) -> Tensor:
        """The loss of logits `(..., C)` for soft labels, or for class indices with their quality."""

class SampleDependentFocalLoss(nn.Module):
    """Module of `sample_dependent_focal_loss`, with its arguments; the default reduction is "mean"."""

    def __init__(
        self,
        alpha: float | Tensor | None | Sequence[float] = 0.25,
        gamma_low: float | Tensor = 5.0,
        gamma_high: float | Tensor = 3.0,
        threshold: float | Tensor | Sequence[float] = 0.2,
        reduction: str = 'mean',
        *,
        ignore_index: int = -100,
        label_smoothing: float | Tensor = 0.0,
        class_dim: int = -1,
        impl: str = 'auto',
    ) -> None: ...
    def __call__(
        self,
        inputs: Tensor,
        targets: Tensor,
        *,
        weight: Tensor | None = None,
    ) -> Tensor: ...
    def forward(
        self,
        inputs: Tensor,
        targets: Tensor,
        *,
        weight: Tensor | None = None,
    ) -> Tensor:
        """The loss of logits `(..., C)` for targets of their shape or class indices."""

class SigmoidFocalLoss(nn.Module):
    """Module of `sigmoid_focal_loss`, with its arguments; the default reduction is "mean"."""

    def __init__(
        self,
        alpha: float | Tensor | None | Sequence[float] = 0.25,
        gamma: float | Tensor = 2.0,
        reduction: str = 'mean',
        *,
        pos_weight: Tensor | None | Sequence[float] = None,
        weight: Tensor | None = None,
        ignore_index: int = -100,
        label_smoothing: float | Tensor = 0.0,
        class_dim: int = -1,
        impl: str = 'auto',
    ) -> None: ...
    def __call__(
        self,
        inputs: Tensor,
        targets: Tensor,
        *,
        weight: Tensor | None = None,
    ) -> Tensor: ...
    def forward(
        self,
        inputs: Tensor,
        targets: Tensor,
        *,
        weight: Tensor | None = None,
    ) -> Tensor:
        """The loss of logits `(..., C)` for targets of their shape or class indices."""
    @classmethod
    def from_bce(
        cls,
        bce: nn.BCEWithLogitsLoss | BCEWithLogitsLoss,
        alpha: float | Tensor | Sequence[float] | None = 0.25,
        gamma: float | Tensor = 2.0,
    ) -> SigmoidFocalLoss:
        """Make a focal loss of a `BCEWithLogitsLoss`, torch's or this package's.

        Args:
            bce: the Module whose arguments are taken, all but alpha and impl; it is not changed.
            alpha: as in `sigmoid_focal_loss`.
            gamma: as in `sigmoid_focal_loss`.

        Raises:
            ValueError: `bce` has an alpha too.
        """

class SmoothL1BoxLoss(nn.Module):
    """Module of `smooth_l1_box_loss`, with its arguments; the default reduction is "mean"."""

    def __init__(
        self,
        reduction: str = 'mean',
        *,
        beta: float | Tensor = 1.0,
        relative: bool = False,
        fmt: str = 'xyxy',
        impl: str = 'auto',
    ) -> None: ...
    def __call__(
        self,
        boxes1: Tensor,
        boxes2: Tensor,
        *,
        weight: Tensor | None = None,
    ) -> Tensor: ...
    def forward(
        self,
        boxes1: Tensor,
        boxes2: Tensor,
        *,
        weight: Tensor | None = None,
    ) -> Tensor:
        """The loss of predicted boxes `(..., 4)` against the target boxes at the same places."""

class SoftmaxFocalLoss(nn.Module):
    """Module of `softmax_focal_loss`, with its arguments; the default reduction is "mean"."""

    def __init__(
        self,
        alpha: Tensor | Sequence[float] | None = None,
        gamma: float | Tensor = 2.0,
        reduction: str = 'mean',
        *,
        ignore_index: int = -100,
        label_smoothing: float = 0.0,
        impl: str = 'auto',
    ) -> None: ...
    def __call__(
        self,
        inputs: Tensor,
        targets: Tensor,
        *,
        weight: Tensor | None = None,
    ) -> Tensor: ...
    def forward(
        self,
        inputs: Tensor,
        targets: Tensor,
        *,
        weight: Tensor | None = None,
    ) -> Tensor:
        """The loss of logits `(N, C, ...)` or `(C,)` for class indices or probabilities."""

class VarifocalLoss(nn.Module):
    """Module of `varifocal_loss`, with its arguments; the default reduction is "mean"."""

    def __init__(
        self,
        alpha: float | Tensor | None | Sequence[float] = 0.75,
        gamma: float | Tensor = 2.0,
        reduction: str = 'mean',
        *,
        detach_weight: bool = False,
        ignore_index: int = -100,
        label_smoothing: float | Tensor = 0.0,
        class_dim: int = -1,
        impl: str = 'auto',
    ) -> None: ...
    def __call__(
        self,
        inputs: Tensor,
        targets: Tensor,
        *,
        quality: Tensor | None = None,
        weight: Tensor | None = None,
    ) -> Tensor: ...
    def forward(
        self,
        inputs: Tensor,
        targets: Tensor,
        *,
        quality: Tensor | None = None,
        weight: Tensor | None = None,
    ) -> Tensor:
        """The loss of logits `(..., C)` for soft labels, or for class indices with their quality."""

__all__ = ["AsymmetricLoss", "BCEWithLogitsLoss", "BoxIoULoss", "CompleteBoxIoULoss", "DistanceBoxIoULoss", "DistributionFocalLoss", "EfficientBoxIoULoss", "GaussianFocalLoss", "GeneralizedBoxIoULoss", "IoUAwareBCELoss", "L1BoxLoss", "MatchabilityAwareLoss", "PolyFocalLoss", "QualityFocalLoss", "SampleDependentFocalLoss", "SigmoidFocalLoss", "SmoothL1BoxLoss", "SoftmaxFocalLoss", "VarifocalLoss", "asymmetric_loss", "binary_cross_entropy_with_logits", "box_iou_loss", "complete_box_iou_loss", "distance_box_iou_loss", "distribution_focal_loss", "distribution_integral", "efficient_box_iou_loss", "gaussian_focal_loss", "generalized_box_iou_loss", "iou_aware_bce_loss", "l1_box_loss", "matchability_aware_loss", "poly_focal_loss", "quality_focal_loss", "sample_dependent_focal_loss", "sigmoid_focal_loss", "smooth_l1_box_loss", "softmax_focal_loss", "varifocal_loss"]
