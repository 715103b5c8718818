"""Rows of docs/coming_from.md, the inputs they are tried on, and how far a peer's result is from ours."""

import re
from pathlib import Path
from typing import NamedTuple

import torch

import detloss

PAGE = Path(__file__).parents[2] / "docs/coming_from.md"
ROW = re.compile(r"^\| `([^`]+)` \| `([^`]+)` \| ([^|]*) \|$")
IMPORT = re.compile(r"`(from \w\S* import [^`]+)`")
CLASSES, BINS = 5, 17
INPUTS = ("x", "x3", "x4", "a", "ac", "d")
LOGITS = ("random", "background", "empty", "±100", "±1e4", "float16", "bfloat16")
BOXES = (
    *("random", "identical", "zero sides", "same point", "inverted", "tiny", "huge"),
    *("empty", "float16", "bfloat16"),
)
SIDES = ("random", "ends", "empty", "±100", "±1e4", "float16", "bfloat16")
HALF = {"float16": torch.float16, "bfloat16": torch.bfloat16}


class Row(NamedTuple):
    peer: str
    imports: tuple[str, ...]
    theirs: str
    here: str
    differs: dict[str, str]  # by case: what theirs gives there

    def uses(self, *names: str) -> bool:
        return bool(set(names) & set(re.findall(r"[a-z]\w*", self.theirs + " " + self.here)))

    @property
    def cases(self) -> tuple[str, ...]:
        left_out = set() if self.uses("t", "t3", "t4", "y", "kb", "indices") else {"background"}
        if self.uses("indices"):  # a criterion of DETR's kin needs an image; no object is its empty case
            left_out.add("empty")
        if self.peer == "mmdetection":  # how a formula rounds in half precision says nothing about mmdet
            left_out |= set(HALF)
        every = BOXES if self.uses("a", "ac") else SIDES if self.uses("d") else LOGITS
        return tuple(case for case in every if case not in left_out)


def rows() -> list[Row]:
    found = []
    for section in re.split(r"^## ", PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]:
        peer, _, text = section.partition("\n")
        imports = tuple(IMPORT.findall(text))
        for line in text.splitlines():
            if row := ROW.match(line):
                stated = row[3].strip()
                parts = [] if stated == "—" else [part.split(": ") for part in stated.split("; ")]
                differs = {case: what for cases, what in parts for case in cases.split(", ")}
                found.append(Row(peer, imports, row[1], row[2], differs))
    return found


def inputs(case: str, dtype: torch.dtype | None = None) -> dict:
    """All that a row may name, made anew from one seed; `dtype` is another one for the same numbers."""
    generator = torch.Generator().manual_seed(0)
    count = 0 if case == "empty" else 12
    given = HALF.get(case, torch.float32)
    dtype = dtype or given

    def logits(*shape):
        spread = {"±100": 100.0, "±1e4": 1e4}.get(case)
        drawn = torch.randn(*shape, generator=generator) * 3
        if case in HALF and drawn.numel():  # a few saturated ones among them
            drawn.view(-1)[::7] *= 8
        drawn = drawn if spread is None else spread * drawn.sign()
        return drawn.to(given).to(dtype).requires_grad_()

    def labels(*shape):
        drawn = (torch.rand(*shape, generator=generator) < 0.3).float()
        return (drawn * (case != "background")).to(dtype)

    def classes(*shape, background=0):
        drawn = torch.randint(CLASSES + background, shape, generator=generator)
        return torch.full_like(drawn, CLASSES) if background and case == "background" else drawn

    def shares(*shape):
        drawn = torch.rand(*shape, generator=generator)
        drawn[::4] = 0
        return drawn.to(given).to(dtype)

    images = 0 if case == "empty" else 2
    made = {
        "x": logits(count, CLASSES),
        "x3": logits(images, 6, CLASSES),
        "x4": logits(images, CLASSES, 4, 3),
        "t": labels(count, CLASSES),
        "t3": labels(images, 6, CLASSES),
        "t4": labels(images, CLASSES, 4, 3),
        "k": classes(count),
        "k4": classes(images, 4, 3),
        "kb": classes(count, background=2).clamp(max=CLASSES),
        "i4": classes(images, 4, 3),
        "q": shares(count),
        "d": logits(count, 4, BINS),
        "n": 7,
        "w": dfine_bins(),
        "torch": torch,
        "detloss": detloss,
    }
    made["y"] = made["t"] * shares(count, CLASSES)
    made["i4"][:, ::2, 1] = -100
    made["s"] = torch.rand(count, 4, generator=generator).to(torch.float64) * (BINS - 1.02)
    if case == "ends":
        made["s"][0], made["s"][1], made["s"][2] = 0, BINS - 1, BINS + 2
    made["s"] = made["s"].to(torch.promote_types(dtype, torch.float32))
    made |= matched(made["x3"], generator, objects=0 if case == "background" else 3)
    boxes = pairs(case, count, generator)
    centred = (detloss.box_convert(box, "xyxy", "cxcywh") for box in boxes)
    for name, box in zip(("a", "b", "ac", "bc"), (*boxes, *centred)):
        made[name] = box.to(given).to(dtype).requires_grad_(name in INPUTS)
    return made


def dfine_bins() -> torch.Tensor:
    """D-FINE's positions of 17 bins, for up = .5 and reg_scale = 4."""
    right = 3 ** (torch.arange(1, BINS // 2) / (BINS // 2 - 1)) - 1
    ends = torch.tensor([4.0])
    return torch.cat((-ends, -right.flip(0), torch.zeros(1), right, ends))


def matched(logits: torch.Tensor, generator: torch.Generator, objects: int) -> dict:
    """What a criterion of the DETR family takes, and the class and the IoU of each query."""
    made = {"outputs": {"logits": logits}, "targets": [], "indices": []}
    images, queries = logits.shape[:2]
    centre, size = torch.rand(2, images, queries, 2, generator=generator) / 4 + 0.25
    predicted = torch.cat((centre, size), -1)
    made["outputs"]["pred_boxes"] = predicted
    made["k3"], made["q3"] = torch.full((images, queries), CLASSES), torch.zeros(images, queries)
    for image in range(images):
        found, object_of = torch.arange(1, queries, 2)[:objects], torch.arange(objects).flip(0)
        boxes = predicted[image, found] * (1 + torch.rand(len(found), 4, generator=generator) / 4)
        classes = torch.randint(CLASSES, (len(found),), generator=generator)
        made["targets"].append({"class_labels": classes[object_of], "boxes": boxes[object_of]})
        made["indices"].append((found, object_of))
        made["k3"][image, found] = classes
        made["q3"][image, found] = detloss.paired_box_iou(predicted[image, found], boxes, fmt="cxcywh")
    return made


def pairs(case: str, count: int, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """Predicted and target boxes: some meet, some do not."""
    corner = torch.rand(count, 2, generator=generator) * 60 + 10
    size = torch.rand(count, 2, generator=generator) * 40 + 15
    target = torch.cat((corner, corner + size), 1)
    predicted = target + torch.rand(count, 4, generator=generator) * 12 - 6
    predicted[::3] += 100  # disjoint
    if case == "identical":
        predicted = target.clone()
    elif case == "zero sides":
        predicted[::4, 2] = predicted[::4, 0]  # a line, a line, a point, a target that is a point
        predicted[1::4, 3] = predicted[1::4, 1]
        predicted[2::4, 2:] = predicted[2::4, :2]
        target[3::4, 2:] = target[3::4, :2]
    elif case == "same point":
        target[:, 2:] = target[:, :2]
        predicted = target.clone()
    elif case == "inverted":
        predicted = predicted[:, [2, 3, 0, 1]]
    elif case == "tiny":
        predicted, target = predicted * 2**-15, target * 2**-15
    elif case == "huge":
        predicted, target = predicted * 2.0**65, target * 2.0**65
    return predicted, target


def results(code: str, names: dict) -> tuple[torch.Tensor, dict]:
    """The value of a call, and the gradient of each input that has one."""
    value = eval(code, names)
    weights = torch.linspace(0.5, 1.5, value.numel(), dtype=value.dtype).reshape(value.shape)
    if value.requires_grad:
        (value * weights).sum().backward()
    return value.detach(), {name: names[name].grad for name in INPUTS if names[name].grad is not None}


def difference(found, expected, case: str, least: float = 0.0) -> str:
    """ "" where equal to rounding, else in what way not; differences up to `least` do not count."""
    if found.isnan().any():
        return "" if expected.isnan().any() else "NaN"
    if found.isinf().any():
        return "infinite"
    found, expected = found.double(), expected.double()
    largest = expected.abs().max().item() if expected.numel() else 0
    rtol = {"float16": 3e-3, "bfloat16": 2e-2, "±1e4": 1e-3}.get(case, 1e-4)
    off = (found - expected).abs()
    if (off <= rtol * expected.abs() + max(rtol / 10 * largest, least)).all():
        return ""
    return "coarser" if case in HALF and off.max() < 0.1 * largest else "other"


def compared(result, expected, case: str) -> str:
    """What is different in value or gradient: "" if nothing is."""
    (value, gradients), (right, slopes) = result, expected
    if value.shape != right.shape:
        return "other shape"
    if what := difference(value, right, case, least=1e-5 if case in BOXES else 0):
        return what if what in ("NaN", "infinite") else f"{what} value"
    for name, slope in slopes.items():
        if name not in gradients:
            if slope.any():
                return "no gradient"
        elif what := difference(gradients[name], slope, case, least=1e-6 if case in BOXES else 0):
            return f"{what} gradient"
    return ""
