"""Any classification loss with any box loss: terms by hand, gradients, and losses found by name."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from detloss.boxes import paired_box_iou
from detloss.calling import classify
from detloss.lab.detector import Detector, DetectorConfig, Output, encode_distances
from detloss.lab.detector.assign import IGNORED, Assignment
from detloss.lab.detector.criterion import Criterion, Terms
from detloss.losses import distribution_focal_loss, quality_focal_loss, sigmoid_focal_loss
from detloss.mining import Mining
from detloss.names import BOX_LOSSES, CLASSIFICATION_LOSSES, find_loss

CLASSES = 3


def make_detector(kind: str = "anchor_free", bins: int = 0, softmax: bool = False) -> Detector:
    torch.manual_seed(0)
    config = DetectorConfig(kind=kind, width=4, channels=8, head_depth=1, strides=(4, 8), bins=bins)
    return Detector(config, CLASSES, softmax=softmax)


def run(
    classification: str = "focal",
    box: str = "giou",
    kind: str = "anchor_free",
    bins: int = 0,
    objects: bool = True,
    box_weight: float = 2.0,
    distribution_weight: float = 0.5,
    moment: tuple[int, ...] = (),
) -> tuple[Terms, Output, Assignment, Detector]:
    """Two images of 32 pixels with random outputs; one object each, an ignored region in the second."""
    loss = find_loss(classification, CLASSIFICATION_LOSSES, training=True)
    detector = make_detector(kind, bins, loss.softmax)
    grid = detector.grid(32, 32)
    generator = torch.Generator().manual_seed(1)
    outputs = CLASSES + 1 if loss.softmax else CLASSES
    shape = (2, len(grid.anchors), 4, bins + 1) if bins else (2, len(grid.anchors), 4)
    logits = torch.randn(2, len(grid.anchors), outputs, generator=generator).requires_grad_()
    regression = (torch.randn(shape, generator=generator) * 0.2).requires_grad_()
    boxes = torch.tensor([[[4.0, 4, 22, 20], [0.0, 0, 0, 0]], [[8.0, 10, 30, 30], [0.0, 0, 12, 9]]])
    labels = torch.tensor([[1, -1], [2, IGNORED]]) if objects else torch.full((2, 2), -1)
    assignment = detector.assign(grid, boxes, labels)
    output = Output(logits, regression)
    step, steps, seed = (*moment, *(0, 1, 0)[len(moment) :])
    box_loss, weights = find_loss(box, BOX_LOSSES, training=True), (box_weight, distribution_weight)
    criterion = Criterion(detector, grid, loss, box_loss, *weights, steps=steps, seed=seed)
    terms = criterion(output, assignment, step)
    return terms, output, assignment, detector


def decoded(output: Output, assignment: Assignment, detector: Detector) -> tuple[Tensor, Tensor, Tensor]:
    """(predicted boxes, true boxes, strides) of the positives, one by one."""
    grid = detector.grid(32, 32)
    rows = assignment.positives.nonzero().tolist()
    predicted = [
        detector.decode(output.regression[b, p], grid.anchors[p], grid.strides[p]).detach() for b, p in rows
    ]
    true = [assignment.boxes[b, p] for b, p in rows]
    return torch.stack(predicted), torch.stack(true), torch.stack([grid.strides[p] for _, p in rows])


@pytest.mark.parametrize("box", BOX_LOSSES)
@pytest.mark.parametrize("classification", CLASSIFICATION_LOSSES)
def test_every_pair_has_finite_terms_and_gradients(classification: str, box: str):
    for kind, bins in (("anchor_free", 0), ("anchor_free", 8), ("retinanet", 0)):
        terms, output, assignment, _ = run(classification, box, kind, bins)
        terms.total.backward()
        assert all(term.shape == () and term.isfinite() for term in terms)
        assert terms.positives > 3
        positives = assignment.positives
        for tensor in (output.logits, output.regression):
            assert tensor.grad.isfinite().all()
            assert tensor.grad[positives].abs().sum() > 0
        assert output.logits.grad[~positives].abs().sum() > 0
        assert not output.regression.grad[~positives].any()
        assert 0 < terms.positive_share < 1


@pytest.mark.parametrize("classification", CLASSIFICATION_LOSSES)
def test_ignored_locations_get_no_gradient(classification: str):
    terms, output, assignment, _ = run(classification, kind="retinanet")
    terms.total.backward()
    ignored = assignment.labels == IGNORED
    assert ignored.any()
    assert not output.logits.grad[ignored].any()
    assert output.logits.grad[~ignored].any(-1).all()


@pytest.mark.parametrize("bins", [0, 8])
@pytest.mark.parametrize("classification", CLASSIFICATION_LOSSES)
def test_without_positives(classification: str, bins: int):
    terms, output, _, _ = run(classification, bins=bins, objects=False)
    terms.total.backward()
    assert (terms.positives, terms.normalizer) == (0, 1)
    assert (terms.box, terms.distribution, terms.positive_share) == (0, 0, 0)
    assert terms.total == terms.classification > 0
    assert output.logits.grad.abs().sum() > 0
    assert not output.regression.grad.any()


def test_terms_are_sums_over_positives_by_their_number():
    terms, output, assignment, detector = run("focal", "ciou", bins=8)
    count = int(assignment.positives.sum())
    assert (terms.positives, terms.normalizer) == (count, count)
    focal = sigmoid_focal_loss(output.logits, assignment.labels, ignore_index=IGNORED)
    torch.testing.assert_close(terms.classification, focal.sum() / count)
    predicted, true, strides = decoded(output, assignment, detector)
    torch.testing.assert_close(terms.box, (1 - paired_box_iou(predicted, true, "ciou")).sum() / count)
    anchors = detector.grid(32, 32).anchors[assignment.positives.nonzero()[:, 1]]
    sides = encode_distances(true, anchors) / strides[:, None]
    distribution = distribution_focal_loss(output.regression[assignment.positives], sides)
    torch.testing.assert_close(terms.distribution, distribution.sum() / (4 * count))


def test_weights_of_the_terms():
    terms, *_ = run(bins=8, box_weight=3.0, distribution_weight=0.25)
    torch.testing.assert_close(terms.total, terms.classification + 3 * terms.box + 0.25 * terms.distribution)
    plain, *_ = run()
    assert plain.distribution == 0


def test_half_precision_outputs_are_summed_in_float32():
    _, output, assignment, detector = run()
    grid, losses = (
        detector.grid(32, 32),
        (find_loss("focal", CLASSIFICATION_LOSSES), find_loss("giou", BOX_LOSSES)),
    )
    half = Output(output.logits.detach().bfloat16(), output.regression.detach().bfloat16())
    criterion = Criterion(detector, grid, *losses)
    terms = criterion(half, assignment)
    full = criterion(Output(half.logits.float(), half.regression.float()), assignment)
    for a, b in zip(terms, full):
        assert torch.equal(a, b)
        assert a.dtype in (torch.float32, torch.int64)


class TestQuality:
    @pytest.mark.parametrize(("kind", "bins"), [("anchor_free", 0), ("anchor_free", 8), ("retinanet", 0)])
    def test_the_label_is_the_iou_of_the_predicted_box(self, kind: str, bins: int):
        terms, output, assignment, detector = run("quality_focal", kind=kind, bins=bins)
        predicted, true, _ = decoded(output, assignment, detector)
        soft = torch.zeros_like(output.logits)
        for (b, p), iou in zip(assignment.positives.nonzero().tolist(), paired_box_iou(predicted, true)):
            soft[b, p, assignment.labels[b, p]] = iou
        assert 0.1 < soft[assignment.positives].max() < 0.99
        loss = quality_focal_loss(output.logits, soft)[assignment.labels != IGNORED]
        torch.testing.assert_close(terms.classification, loss.sum() / terms.positives)

    @pytest.mark.parametrize("classification", ["quality_focal", "varifocal", "mal", "ia_bce"])
    def test_it_is_a_constant(self, classification: str):
        _, output, _, _ = run(classification)
        terms, output, _, _ = run(classification)
        terms.classification.backward()
        assert output.regression.grad is None or not output.regression.grad.any()

    def test_who_takes_it(self):
        takers = [n for n in CLASSIFICATION_LOSSES if find_loss(n, CLASSIFICATION_LOSSES).takes_quality]
        assert takers == ["quality_focal", "varifocal", "mal", "ia_bce"]
        assert find_loss("quality_focal,beta=1", CLASSIFICATION_LOSSES).takes_quality


class TestPositiveShare:
    def terms(self, classification: str, logits: Tensor, labels: Tensor) -> Terms:
        detector = make_detector(softmax=classification == "softmax_focal")
        grid = detector.grid(4, 4)  # two locations
        positives = (labels >= 0) & (labels < CLASSES)
        boxes = torch.tensor([0.0, 0, 4, 4]).expand(1, 2, 4) * positives[..., None]
        losses = find_loss(classification, CLASSIFICATION_LOSSES), find_loss("iou", BOX_LOSSES)
        output = Output(logits, torch.zeros(1, 2, 4))
        return Criterion(detector, grid, *losses)(output, Assignment(labels, boxes, positives))

    def test_by_hand(self):
        # BCE at p = 1/2 is log 2 for each of six logits, one of them a positive's own class.
        terms = self.terms("bce", torch.zeros(1, 2, 3), torch.tensor([[1, CLASSES]]))
        assert terms.positive_share.item() == pytest.approx(1 / 6)
        # p = 3/4 at the positive: -log .75 against five times log 2.
        logits = torch.zeros(1, 2, 3)
        logits[0, 0, 1] = torch.tensor(3.0).log()
        terms = self.terms("bce", logits, torch.tensor([[1, CLASSES]]))
        assert terms.positive_share.item() == pytest.approx(0.28768 / (0.28768 + 5 * 0.69315), rel=1e-4)

    def test_ignored_locations_are_not_in_it(self):
        terms = self.terms("bce", torch.zeros(1, 2, 3), torch.tensor([[1, IGNORED]]))
        assert terms.positive_share.item() == pytest.approx(1 / 3)

    def test_softmax(self):
        terms = self.terms("softmax_focal,gamma=0", torch.zeros(1, 2, 4), torch.tensor([[1, CLASSES]]))
        assert terms.positive_share.item() == pytest.approx(1 / 2)


OWN = """
import torch
from detloss.losses import quality_focal_loss, sigmoid_focal_loss

def mine(logits, targets, gamma=2.0):
    return sigmoid_focal_loss(logits, targets, gamma=gamma)

def with_quality(logits, targets, quality):
    return quality_focal_loss(logits, targets, quality=quality)

def with_reduction(logits, targets, reduction="mean"):
    return sigmoid_focal_loss(logits, targets, reduction=reduction)

def distance(boxes1, boxes2):
    return (boxes1 - boxes2).abs().mean(-1)

def per_side(boxes1, boxes2):
    return (boxes1 - boxes2).abs()

def total(logits, targets):
    return sigmoid_focal_loss(logits, targets).sum()

def detached(logits, targets):
    return sigmoid_focal_loss(logits, targets).detach()

def number(logits, targets):
    return 1.0

def broken(logits, targets):
    raise RuntimeError("no such thing")

def per_row(logits, targets):
    return sigmoid_focal_loss(logits, targets).sum(-1)

constant = 3
"""


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user's file in the current folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))  # so that what is imported from here is forgotten
    path = tmp_path / "own_losses_of_a_user.py"
    path.write_text(OWN)
    return path


def same(a: Terms, b: Terms) -> None:
    for name in Terms._fields:
        torch.testing.assert_close(getattr(a, name), getattr(b, name), msg=name)


class TestOwnLosses:
    def test_equal_to_the_built_in_ones(self, own: Path):
        for name, built_in in (
            ("mine", "focal"),
            ("mine,gamma=1.5", "focal,gamma=1.5"),
            ("with_reduction", "focal"),
            ("with_quality", "quality_focal"),
        ):
            for kind in ("anchor_free", "retinanet"):  # the latter has ignored locations
                mine, output, assignment, _ = run(f"{own}:{name}", kind=kind)
                theirs, wanted, _, _ = run(built_in, kind=kind)
                same(mine, theirs)
                mine.total.backward()
                theirs.total.backward()
                torch.testing.assert_close(output.logits.grad, wanted.logits.grad)
                assert not output.logits.grad[assignment.labels == IGNORED].any()

    def test_by_module(self, own: Path):
        loss = find_loss(f"{own.stem}:mine,gamma=0.5", CLASSIFICATION_LOSSES)
        assert loss.own
        assert not loss.softmax
        assert not loss.takes_quality
        assert loss.function.keywords == {"gamma": 0.5}

    def test_relative_file(self, own: Path):
        assert find_loss(f"{own.name}:mine", CLASSIFICATION_LOSSES).own

    def test_of_boxes(self, own: Path):
        terms, output, assignment, detector = run("focal", f"{own}:distance")
        predicted, true, _ = decoded(output, assignment, detector)
        torch.testing.assert_close(terms.box, (predicted - true).abs().mean(-1).sum() / terms.positives)

    def test_ours_by_module(self):
        same(run("detloss.losses:sigmoid_focal_loss")[0], run("focal")[0])
        same(run("detloss.losses:varifocal_loss,alpha=0.5")[0], run("varifocal,alpha=0.5")[0])
        same(run("detloss.losses:softmax_focal_loss")[0], run("softmax_focal")[0])

    @pytest.mark.parametrize(
        ("name", "message"),
        [
            ("total", "it returned shape (); it must return one value per element, (1, 4, 3)"),
            ("per_row", "it returned shape (1, 4); it must return one value per element, (1, 4, 3)"),
            ("number", "it returned float; it must return one value per element, (1, 4, 3)"),
            ("detached", "its value has no gradient"),
            ("broken", "RuntimeError: no such thing"),
            ("constant", "is int, not a function"),
            ("missing", "cannot be imported: AttributeError"),
            ("mine,tau=1", "has no setting 'tau'; it has gamma"),
        ],
    )
    def test_errors(self, own: Path, name: str, message: str):
        with pytest.raises(ValueError, match=re.escape(message)) as caught:
            find_loss(f"{own}:{name}", CLASSIFICATION_LOSSES)
        assert str(caught.value).startswith(f"loss '{own}:{name.split(',')[0]}")
        assert "\n" not in str(caught.value)

    def test_a_box_loss_of_the_wrong_shape(self, own: Path):
        with pytest.raises(ValueError, match=r"it returned shape \(2, 4\); .* per element, \(2,\)"):
            find_loss(f"{own}:per_side", BOX_LOSSES)

    @pytest.mark.parametrize("name", ["no_such_module:f", "no_such_file.py:f"])
    def test_nothing_to_import(self, own: Path, name: str):
        with pytest.raises(ValueError, match=f"loss '{name}' cannot be imported: .*NotFoundError"):
            find_loss(name, CLASSIFICATION_LOSSES)


class TestSchedules:
    @pytest.mark.parametrize(
        "name",
        [
            "focal,gamma={}",
            "bce,alpha={}",
            "balanced_bce,alpha={}",
            "softmax_focal,gamma={}",
            "quality_focal,beta={},alpha=0.3",
            "varifocal,gamma={},alpha=0.5",
            "poly_focal,epsilon={}",
            "asymmetric,gamma_neg={},clip=0.1",
            "mal,gamma={}",
            "flsd,threshold={},gamma_low=4",
            "ia_bce,alpha={},gamma=1",
            "gaussian_focal,alpha={},gamma=1",
            "detloss.losses:sigmoid_focal_loss,gamma={}",
            "detloss.losses:varifocal_loss,alpha={}",
        ],
    )
    def test_a_step_has_the_loss_of_its_number(self, name: str):
        for step, number in ((0, 0.25), (2, 0.5), (4, 0.75)):
            same(run(name.format("linear:0.25:0.75"), moment=(step, 5))[0], run(name.format(number))[0])

    def test_several_at_once_and_beside_a_number(self):
        name = "focal,gamma=linear:0:2, alpha=stages:0.5:0.25"
        same(run(name, moment=(0, 3))[0], run("focal,gamma=0,alpha=0.5")[0])
        same(run(name, moment=(2, 3))[0], run("focal,gamma=2,alpha=0.25")[0])

    def test_of_a_box_loss_of_ones_own(self, own: Path):
        own.write_text(OWN + "def scaled(a, b, by=1.0):\n    return by * (a - b).abs().mean(-1)\n")
        box = f"{own}:scaled,by=cosine:1:3"
        terms = [run("focal", box, moment=(step, 3))[0].box for step in (0, 1, 2)]
        torch.testing.assert_close(torch.stack(terms), terms[0] * torch.tensor([1.0, 2, 3]))

    def test_the_loss_itself_stays_as_it_is(self):
        loss = find_loss("focal,gamma=linear:0:2", CLASSIFICATION_LOSSES, training=True)
        assert loss.at(1, 3).function.keywords == {"gamma": torch.tensor(1.0)}
        assert loss.function is sigmoid_focal_loss
        plain = find_loss("focal", CLASSIFICATION_LOSSES)
        assert plain.at(1, 3) is plain


MINED = [
    "focal,mining=hard:3",
    "softmax_focal,mining=hard:2",
    "varifocal,mining=random:3",
    "bce,mining=ohem:0.5:12",
    "detloss.losses:sigmoid_focal_loss,mining=ohem3:0.5:16",
]


class TestMining:
    @pytest.mark.parametrize("kind", ["anchor_free", "retinanet"])
    @pytest.mark.parametrize("name", MINED)
    def test_only_what_it_keeps_has_a_gradient(self, name: str, kind: str):
        terms, output, assignment, detector = run(name, kind=kind, moment=(7, 10, 1))
        plain = name.split(",")[0]
        whole = run(plain, kind=kind)[0]
        torch.testing.assert_close(terms.box, whole.box)
        assert terms.normalizer == whole.normalizer == assignment.positives.sum()
        assert 0 < terms.classification < whole.classification

        loss = find_loss(plain, CLASSIFICATION_LOSSES)
        grid = detector.grid(32, 32)
        rows = [(b, p) for b in range(2) for p in range(len(grid.anchors))]
        regression = output.regression.detach()
        boxes = torch.stack(
            [detector.decode(regression[b, p], grid.anchors[p], grid.strides[p]) for b, p in rows]
        ).view(2, -1, 4)
        quality = None
        if loss.takes_quality:
            quality = paired_box_iou(boxes, assignment.boxes).where(assignment.positives, 1.0)
        each = classify(loss, output.logits, assignment.labels, quality)
        weight = Mining.parse(name.split("mining=")[1]).mask(
            each,
            boxes,
            assignment.positives,
            assignment.labels == IGNORED,
            torch.Generator().manual_seed(int(np.random.default_rng((1, 7, 2)).integers(2**63))),
        )
        each = each if each.ndim == 2 else each.sum(-1)
        torch.testing.assert_close(terms.classification, (each * weight).sum() / terms.positives)
        terms.classification.backward()
        assert output.logits.grad.abs().sum(-1).bool().equal(weight.bool())

    def test_random_negatives_follow_from_seed_and_step(self):
        terms = [
            run("bce,mining=random:3", moment=moment)[0].classification.item()
            for moment in ((4, 10, 0), (4, 10, 0), (5, 10, 0), (4, 10, 1))
        ]
        assert terms[0] == terms[1]
        assert len(set(terms)) == 3

    @pytest.mark.parametrize("name", MINED)
    def test_without_positives(self, name: str):
        terms, output, _, _ = run(name, objects=False)
        terms.total.backward()
        assert (terms.positives, terms.normalizer, terms.positive_share) == (0, 1, 0)
        assert output.logits.grad.abs().sum() > 0

    def test_the_share_of_the_positives_is_that_of_what_is_kept(self):
        plain, mined = run("bce")[0], run("bce,mining=hard:1")[0]
        ratio = plain.classification / mined.classification
        torch.testing.assert_close(mined.positive_share, plain.positive_share * ratio)

    def test_of_half_precision_outputs(self):
        _, output, assignment, detector = run()
        half = Output(output.logits.detach().bfloat16(), output.regression.detach().bfloat16())
        loss = find_loss("focal,mining=ohem:0.5:8", CLASSIFICATION_LOSSES, training=True)
        box = find_loss("giou", BOX_LOSSES)
        terms = Criterion(detector, detector.grid(32, 32), loss, box)(half, assignment)
        assert terms.classification.isfinite()
        assert terms.classification.dtype == torch.float32


class TestClassWeights:
    WEIGHTS = torch.tensor([0.2, 0.5, 2.3])

    def terms(self, name: str, weights: Tensor | None) -> tuple[Terms, Output, Assignment]:
        _, output, assignment, detector = run(name)
        loss = find_loss(
            name if weights is None else f"{name},class_weight=inverse", CLASSIFICATION_LOSSES, training=True
        )
        leaves = Output(output.logits.detach().requires_grad_(), output.regression.detach())
        criterion = Criterion(
            detector, detector.grid(32, 32), loss, find_loss("giou", BOX_LOSSES), class_weights=weights
        )
        return criterion(leaves, assignment), leaves, assignment

    @pytest.mark.parametrize(
        "name", ["bce", "focal", "softmax_focal", "quality_focal", "focal,mining=hard:3"]
    )
    def test_positives_weigh_by_their_class_and_all_else_alike(self, name: str):
        plain, of_plain, assignment = self.terms(name, None)
        weighed, of_weighed, _ = self.terms(name, self.WEIGHTS)
        plain.classification.backward()
        weighed.classification.backward()
        factor = torch.ones_like(of_plain.logits[..., :1])
        factor[assignment.positives] = self.WEIGHTS[assignment.labels[assignment.positives]][:, None]
        torch.testing.assert_close(of_weighed.logits.grad, of_plain.logits.grad * factor)
        assert set(factor.unique().tolist()) == {1.0, *self.WEIGHTS[1:].tolist()}
        assert (weighed.box, weighed.normalizer) == (plain.box, plain.normalizer)

    def test_weights_of_one_change_nothing(self):
        same(self.terms("focal", torch.ones(CLASSES))[0], self.terms("focal", None)[0])

    def test_they_belong_to_a_loss_that_asks_for_them(self):
        detector, box = make_detector(), find_loss("giou", BOX_LOSSES)
        for name, weights, message in (
            (
                "focal,class_weight=inverse",
                None,
                "class_weights is None .*; it must be what its class_weight",
            ),
            ("focal", self.WEIGHTS, "class_weights is tensor.*; it must be None"),
        ):
            loss = find_loss(name, CLASSIFICATION_LOSSES, training=True)
            with pytest.raises(ValueError, match=message):
                Criterion(detector, detector.grid(32, 32), loss, box, class_weights=weights)


def test_balanced_bce_is_bce_with_alpha():
    same(run("balanced_bce")[0], run("bce,alpha=0.75")[0])
    same(run("balanced_bce,alpha=0.5")[0], run("bce,alpha=0.5")[0])


def test_gamma_zero_is_bce():
    same(run("focal,gamma=0,alpha=none")[0], run("bce")[0])


class TestGuided:
    @staticmethod
    def terms(**how) -> tuple[Terms, Output]:
        _, output, assignment, detector = run(**how)
        losses = find_loss("bce", CLASSIFICATION_LOSSES), find_loss("giou", BOX_LOSSES)
        criterion = Criterion(detector, detector.grid(32, 32), *losses, 1.0, 0.25, "guided")
        return criterion(output, assignment), output

    def test_the_box_term_is_as_large_as_the_class_term(self):
        terms, output = self.terms()
        torch.testing.assert_close(terms.total, 2 * terms.classification)
        terms.total.backward()
        guided = output.logits.grad.clone(), output.regression.grad.clone()
        # The factor is a constant: gradients are those of that weight.
        _, output, assignment, detector = run("bce")
        losses = find_loss("bce", CLASSIFICATION_LOSSES), find_loss("giou", BOX_LOSSES)
        weight = (terms.classification / terms.box).item()
        Criterion(detector, detector.grid(32, 32), *losses, weight)(output, assignment).total.backward()
        torch.testing.assert_close(guided, (output.logits.grad, output.regression.grad))

    def test_the_distribution_term_keeps_its_place_beside_the_box_term(self):
        terms, _ = self.terms(bins=8)
        scale = terms.classification / terms.box
        total = terms.classification + scale * (terms.box + 0.25 * terms.distribution)
        torch.testing.assert_close(terms.total, total)

    def test_without_positives(self):
        terms, output = self.terms(objects=False)
        terms.total.backward()
        assert terms.total == terms.classification > 0
        assert not output.regression.grad.any()


def weighed(by: str, objects: bool = True, **how) -> tuple[Terms, Output, Assignment, Detector]:
    """The terms of `run` with its outputs, its positives weighed."""
    _, output, assignment, detector = run(objects=objects, **how)
    losses = find_loss("focal", CLASSIFICATION_LOSSES), find_loss("giou", BOX_LOSSES)
    terms = Criterion(detector, detector.grid(32, 32), *losses, weigh_boxes=by)(output, assignment)
    return terms, output, assignment, detector


class TestWeighBoxes:
    @pytest.mark.parametrize("by", ["score", "iou"])
    def test_weighted_sums_by_the_sum_of_the_weights(self, by: str):
        terms, output, assignment, detector = weighed(by, bins=8)
        predicted, true, strides = decoded(output, assignment, detector)
        positives = assignment.positives
        score = output.logits.detach().sigmoid().amax(-1)[positives]
        weight = {"score": score, "iou": paired_box_iou(predicted, true)}[by]
        assert weight.min() < weight.max()
        assert weight.sum() > 1
        each = 1 - paired_box_iou(predicted, true, "giou")
        torch.testing.assert_close(terms.box, (weight * each).sum() / weight.sum())
        anchors = detector.grid(32, 32).anchors[positives.nonzero()[:, 1]]
        sides = encode_distances(true, anchors) / strides[:, None]
        each = distribution_focal_loss(output.regression[positives], sides).mean(-1)
        torch.testing.assert_close(terms.distribution, (weight * each).sum() / weight.sum())
        alike = run(bins=8)[0]
        assert terms.classification == alike.classification
        assert terms.box != alike.box

    def test_the_weight_is_a_constant(self):
        terms, output, assignment, _ = weighed("score")
        terms.box.backward()
        assert output.logits.grad is None
        terms, output, assignment, detector = weighed("iou")
        terms.box.backward()
        fixed = output.regression.grad.clone()
        positives = assignment.positives
        output.regression.grad = None
        where = positives.nonzero()[:, 1]
        grid = detector.grid(32, 32)
        boxes = detector.decode(output.regression[positives], grid.anchors[where], grid.strides[where])
        weight = paired_box_iou(boxes.detach(), assignment.boxes[positives])
        each = 1 - paired_box_iou(boxes, assignment.boxes[positives], "giou")
        ((weight * each).sum() / weight.sum()).backward()
        torch.testing.assert_close(output.regression.grad, fixed)

    @pytest.mark.parametrize("by", ["score", "iou"])
    @pytest.mark.parametrize("bins", [0, 8])
    def test_without_positives(self, by: str, bins: int):
        terms, output, _, _ = weighed(by, objects=False, bins=bins)
        assert (terms.box, terms.distribution) == (0, 0)
        terms.total.backward()
        assert not output.regression.grad.any()

    def test_weights_of_less_than_one_in_all_are_not_scaled_up(self):
        _, output, assignment, detector = run()
        with torch.no_grad():
            output.logits.fill_(-20.0)
        losses = find_loss("focal", CLASSIFICATION_LOSSES), find_loss("giou", BOX_LOSSES)
        criterion = Criterion(detector, detector.grid(32, 32), *losses, weigh_boxes="score")
        terms = criterion(output, assignment)
        assert 0 < terms.box < 1e-6
