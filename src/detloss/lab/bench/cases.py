"""What is measured: for each loss its arguments at a size, its variants, and the bytes that must move."""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from detloss import losses
from detloss.lab.bench import peers
from detloss.lab.bench.measure import Work
from detloss.lab.bench.peers import ALPHA, GAMMA, VARIFOCAL_ALPHA, Missing
from detloss.linear import linear_loss

OURS = ("auto", "compile", "eager")
VARIANTS = {
    "auto": 'detloss, impl="auto"',
    "compile": 'detloss, impl="compile"',
    "eager": 'detloss, impl="eager"',
    "unfused": "detloss, the last layer and then the loss",
    "torchvision": "torchvision",
    "torchvision_compiled": "torch.compile of torchvision",
    "torch": "torch's nearest function, which may do less: BCE, cross entropy",
    "snippet": "as blogs and YOLO code bases write it",
    "mmcv": "CUDA operation of mmcv",
    "apex": "CUDA operation of apex",
    "gemm": "the matrix products of the last layer and its gradients alone",
    "clone": "a copy of the inputs and of targets of their shape, which measures the bandwidth",
}
DTYPES = {name: getattr(torch, name) for name in ("float32", "bfloat16", "float16", "float64")}
TARGETS = ("dense", "index")
POSITIVES = 0.01  # part of the rows that hold an object
CLASSES, SOFTMAX_CLASSES, BINS = 80, 81, 17
FEATURES, LAST_CLASSES = 256, 1203


@dataclass(frozen=True)
class Arguments:
    """One loss's arguments. The gradient is asked for the inputs, and for the weight of a last layer."""

    inputs: Tensor
    targets: Tensor
    quality: Tensor | None = None
    weight: Tensor | None = None

    @property
    def leaves(self) -> list[Tensor]:
        """Tensors that get a gradient."""
        return [self.inputs] if self.weight is None else [self.inputs, self.weight]

    @property
    def tensors(self) -> list[Tensor]:
        """All of them."""
        return [t for t in (self.inputs, self.targets, self.quality, self.weight) if t is not None]

    @property
    def copied(self) -> list[Tensor]:
        """The inputs and whatever has their shape: what the variant "clone" copies."""
        return [t for t in self.tensors if t.shape == self.inputs.shape]

    @property
    def rows(self) -> int:
        """Locations, distributions or pairs of boxes."""
        return len(self.inputs)

    @property
    def unit_bytes(self) -> int:
        """Bytes of what memory is counted in: the inputs of the loss, N×C (for a last layer its output)."""
        if self.weight is not None:
            return self.rows * len(self.weight) * self.inputs.element_size()
        return self.inputs.nbytes

    @property
    def must_move(self) -> int:
        """Bytes that any implementation moves: each argument read once, each gradient written once."""
        return sum(t.nbytes for t in self.tensors) + sum(t.nbytes for t in self.leaves)


Forward = Callable[[], Any]


@dataclass(frozen=True)
class Loss:
    """A loss, how its arguments are made, and what it is measured beside."""

    arguments: Callable[[int, str, torch.dtype, torch.device], Arguments]
    """From a number of elements, the form of the targets, dtype, device."""
    ours: Callable[[Arguments, str], Tensor]
    """Its sum, from arguments and `impl`."""
    peers: Mapping[str, Callable[[Arguments], Forward]]
    """By variant: what computes the same for these arguments; may raise `Missing`."""
    targets: tuple[str, ...] = TARGETS
    limit: str = ""
    """The variant whose time is the limit, where that is not the copying of the bytes that must move."""


# Arguments


def _generator(seed: int, device: torch.device) -> dict[str, Any]:
    """Where random numbers are drawn, and from which seed."""
    return {"generator": torch.Generator(device).manual_seed(seed), "device": device}


def _normal(rows: int, columns: int, scale: float, shift: float, dtype: Any, device: Any) -> Tensor:
    """Leaves; made in place, so that making the arguments takes no more memory than they do."""
    values = torch.randn(rows, columns, dtype=dtype, **_generator(0, device))
    return values.mul_(scale).add_(shift).requires_grad_()


def _labels(rows: int, classes: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Class indices, most of them background (C), and which rows hold an object."""
    draw = _generator(1, device)
    labels = torch.full((rows,), classes, device=device)
    positive = torch.rand(rows, **draw) < POSITIVES
    found = torch.randint(classes, (rows,), **draw)
    return torch.where(positive, found, labels), positive


def _sigmoid_arguments(
    elements: int, form: str, dtype: torch.dtype, device: torch.device, with_quality: bool = False
) -> Arguments:
    rows = max(1, round(elements / CLASSES))
    inputs = _normal(rows, CLASSES, 3, -3, dtype, device)
    labels, positive = _labels(rows, CLASSES, device)
    quality = torch.rand(rows, dtype=torch.float32, **_generator(2, device)).to(dtype)
    if form == "index":
        return Arguments(inputs, labels, quality if with_quality else None)
    targets = torch.zeros(rows, CLASSES, dtype=dtype, device=device)
    value = quality[positive] if with_quality else torch.ones((), dtype=dtype, device=device)
    targets[positive, labels[positive]] = value
    return Arguments(inputs, targets)


def _softmax_arguments(elements: int, form: str, dtype: torch.dtype, device: torch.device) -> Arguments:
    rows = max(1, round(elements / SOFTMAX_CLASSES))
    inputs = _normal(rows, SOFTMAX_CLASSES, 3, 0, dtype, device)
    labels, _ = _labels(rows, SOFTMAX_CLASSES - 1, device)  # the last class is the background
    if form == "index":
        return Arguments(inputs, labels)
    shares = torch.zeros(rows, SOFTMAX_CLASSES, dtype=dtype, device=device)
    return Arguments(inputs, shares.scatter_(1, labels.unsqueeze(1), 1))


def _distribution_arguments(elements: int, form: str, dtype: torch.dtype, device: torch.device) -> Arguments:
    rows = max(1, round(elements / BINS))
    distances = torch.rand(rows, dtype=torch.float32, **_generator(1, device)).mul_(BINS - 1)
    return Arguments(_normal(rows, BINS, 2, 0, dtype, device), distances.to(dtype))


def _boxes(elements: int, form: str, dtype: torch.dtype, device: torch.device) -> Arguments:
    """Pairs of which most overlap; the gradient is asked for the predicted ones."""
    draw = _generator(0, device)
    true = torch.rand(elements, 4, **draw)
    true[:, :2].mul_(100)
    true[:, 2:].mul_(40).add_(true[:, :2]).add_(10)  # no shift below turns a box inside out
    predicted = torch.rand(elements, 4, **draw)
    predicted[:, :2].mul_(8).add_(true[:, :2])
    predicted[:, 2:].mul_(8).add_(true[:, 2:])
    return Arguments(predicted.to(dtype).requires_grad_(), true.to(dtype))


def _linear_arguments(elements: int, form: str, dtype: torch.dtype, device: torch.device) -> Arguments:
    rows = max(1, round(elements / LAST_CLASSES))
    features = _normal(rows, FEATURES, 1, 0, dtype, device)
    weight = _normal(LAST_CLASSES, FEATURES, 0.02, 0, dtype, device)
    return Arguments(features, _labels(rows, LAST_CLASSES, device)[0], weight=weight)


# Losses


def _peer(find: Callable[[], peers.Peer], takes: str = "any") -> Callable[[Arguments], Forward]:
    """A peer, found only when it is asked for, and which targets it takes: "any", "dense" or "index"."""

    def forward_for(a: Arguments) -> Forward:
        if takes == "index" and a.targets.is_floating_point():
            raise Missing("takes class indices only")
        function = find()
        if takes == "dense":
            return lambda: function(a.inputs, peers.one_hot(a.inputs, a.targets, a.quality))
        return lambda: function(a.inputs, a.targets)

    return forward_for


def _torchvision(name: str) -> dict[str, Callable[[], peers.Peer]]:
    return {
        "torchvision": partial(peers.torchvision_loss, name),
        "torchvision_compiled": partial(peers.compiled, peers.torchvision_loss, name),
    }


def _sigmoid(
    function: Any,
    on_dense: Mapping[str, Callable[[], peers.Peer]],
    on_indices: Mapping[str, Callable[[], peers.Peer]] | None = None,
    **hyper: Any,
) -> Loss:
    """An elementwise loss over 80 classes; those that take the quality of a row get it."""
    with_quality = "quality" in inspect.signature(function).parameters
    found = {name: _peer(find, "dense") for name, find in on_dense.items()}
    found |= {name: _peer(find, "index") for name, find in (on_indices or {}).items()}
    return Loss(partial(_sigmoid_arguments, with_quality=with_quality), _sum(function, **hyper), found)


def _sum(function: Any, **hyper: Any) -> Callable[[Arguments, str], Tensor]:
    """The sum of a loss of inputs, targets and, where there is one, the quality of each row."""

    def ours(a: Arguments, impl: str) -> Tensor:
        quality = {"quality": a.quality} if a.quality is not None else {}
        return function(a.inputs, a.targets, reduction="sum", impl=impl, **quality, **hyper)

    return ours


def _box(function: Any, torchvision: str = "") -> Loss:
    beside = _torchvision(torchvision) if torchvision else {}
    return Loss(_boxes, _sum(function), {name: _peer(find) for name, find in beside.items()}, ("box",))


def _linear() -> Loss:
    focal = losses.sigmoid_focal_loss

    def ours(a: Arguments, impl: str) -> Tensor:
        features, weight = a.leaves
        return linear_loss(focal, features, weight, a.targets, reduction="sum", impl=impl)

    def unfused(a: Arguments) -> Forward:
        return lambda: focal(F.linear(*a.leaves), a.targets, ALPHA, GAMMA, reduction="sum")

    def torchvision(a: Arguments) -> Forward:
        function = peers.torchvision_loss("sigmoid_focal_loss")

        def forward() -> Tensor:
            logits = F.linear(*a.leaves)
            return function(logits, peers.one_hot(logits, a.targets))

        return forward

    def gemm(a: Arguments) -> Forward:
        inputs, weight = (leaf.detach() for leaf in a.leaves)
        # The logits stand for their gradient: values do not matter to a product. Their memory is reused.
        logits = F.linear(inputs, weight)
        return lambda: (torch.mm(inputs, weight.T, out=logits) @ weight, logits.T @ inputs)

    beside = {"unfused": unfused, "torchvision": torchvision, "gemm": gemm}
    return Loss(_linear_arguments, ours, beside, ("index",), limit="gemm")


LOSSES: dict[str, Loss] = {
    "focal": _sigmoid(
        losses.sigmoid_focal_loss,
        _torchvision("sigmoid_focal_loss") | {"snippet": lambda: peers.focal_snippet},
        {
            "mmcv": partial(peers.mmcv_loss, "sigmoid_focal_loss"),
            "apex": peers.apex_focal_loss,
        },
        alpha=ALPHA,
        gamma=GAMMA,
    ),
    "quality_focal": _sigmoid(
        losses.quality_focal_loss, {"snippet": lambda: peers.quality_focal_snippet}, beta=GAMMA
    ),
    "varifocal": _sigmoid(
        losses.varifocal_loss,
        {"snippet": lambda: peers.varifocal_snippet},
        alpha=VARIFOCAL_ALPHA,
        gamma=GAMMA,
    ),
    "poly_focal": _sigmoid(losses.poly_focal_loss, {}),
    "asymmetric": _sigmoid(losses.asymmetric_loss, {}),
    "mal": _sigmoid(losses.matchability_aware_loss, {}),
    "flsd": _sigmoid(losses.sample_dependent_focal_loss, {}),
    "ia_bce": _sigmoid(losses.iou_aware_bce_loss, {}),
    "gaussian_focal": _sigmoid(losses.gaussian_focal_loss, {}),
    "bce": _sigmoid(losses.binary_cross_entropy_with_logits, {"torch": lambda: peers.bce}),
    "softmax_focal": Loss(
        _softmax_arguments,
        _sum(losses.softmax_focal_loss, gamma=GAMMA),
        {
            "torch": _peer(lambda: peers.cross_entropy),
            "snippet": _peer(lambda: peers.softmax_focal_snippet, "index"),
            "mmcv": _peer(partial(peers.mmcv_loss, "softmax_focal_loss"), "index"),
        },
    ),
    "dfl": Loss(
        _distribution_arguments,
        _sum(losses.distribution_focal_loss),
        {"snippet": _peer(lambda: peers.distribution_focal_snippet)},
        ("distance",),
    ),
    "iou": _box(losses.box_iou_loss),
    "giou": _box(losses.generalized_box_iou_loss, "generalized_box_iou_loss"),
    "diou": _box(losses.distance_box_iou_loss, "distance_box_iou_loss"),
    "ciou": _box(losses.complete_box_iou_loss, "complete_box_iou_loss"),
    "eiou": _box(losses.efficient_box_iou_loss),
    "l1": _box(losses.l1_box_loss),
    "smooth_l1": _box(losses.smooth_l1_box_loss),
    "linear": _linear(),
}


def variants(loss: str, device: torch.device) -> list[str]:
    """What a loss is measured as on a device, in the order of `VARIANTS`."""
    there = {*OURS, "clone", *LOSSES[loss].peers}
    if device.type != "cuda":
        there -= {"mmcv", "apex"}
    return [name for name in VARIANTS if name in there]


def work(loss: str, variant: str, arguments: Arguments) -> Work:
    """One variant of a loss on these arguments.

    Raises:
        Missing: it cannot be had here, or not for this form of targets.
    """
    if variant == "clone":
        return Work(lambda: [tensor.detach().clone() for tensor in arguments.copied])
    if variant in OURS:
        return Work(partial(LOSSES[loss].ours, arguments, variant), arguments.leaves)
    return Work(LOSSES[loss].peers[variant](arguments), arguments.leaves)
