"""Where the loss comes from: quadrants and Figure 4 against sums by hand and torch's functions."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from detloss.lab.data import SceneConfig, scenes
from detloss.lab.data.batches import Letterboxed
from detloss.lab.detector import Detector, DetectorConfig
from detloss.lab.inspect import Labelled, LossBins, QuadrantSums, count_locations, elementwise_losses
from detloss.lab.inspect.examples import example
from detloss.lab.inspect.inspection import InspectConfig, measure_model
from detloss.lab.inspect.logits import labelled_logits, softmax_margins
from detloss.lab.inspect.quadrants import QUADRANTS, Quadrant, check_claims
from detloss.losses import softmax_focal_loss, varifocal_loss

CPU = torch.device("cpu")


def labelled(logits: list[list[float]], labels: list[int], quality: list[float] | None = None) -> Labelled:
    given = torch.ones(len(labels)) if quality is None else torch.tensor(quality)
    return Labelled(torch.tensor(logits), torch.tensor(labels), given, torch.arange(len(labels)))


def random_piece(seed: int, rows: int = 400, classes: int = 3, scale: float = 4.0) -> Labelled:
    rng = torch.Generator().manual_seed(seed)
    logits = scale * torch.randn(rows, classes, generator=rng) - 2
    labels = torch.randint(0, 4 * classes, (rows,), generator=rng).clamp(max=classes)
    return Labelled(logits, labels, torch.ones(rows), torch.arange(rows))


def shares_of(losses: tuple[str, ...], *pieces: Labelled, easy: float = 0.5) -> list[Quadrant]:
    sums = QuadrantSums(elementwise_losses(losses), easy)
    for piece in pieces:
        sums.add(piece)
    return sums.table()


# Quadrants

HAND = labelled([[2.0, -1.0], [0.5, -3.0], [-1.0, -4.0]], [0, 2, 0])
"""x = 2 and -1 are positives, the second a hard one; of the negatives -1, .5, -3, -4 only .5 is hard."""


def test_quadrants_by_hand():
    sigma = {x: 1 / (1 + math.exp(-x)) for x in (2.0, -1.0, 0.5, -3.0, -4.0)}
    negatives, hard_negative = (-1.0, -3.0, -4.0), 0.5
    bce = {
        ("negative", "easy"): sum(-math.log(1 - sigma[x]) for x in negatives),
        ("negative", "hard"): -math.log(1 - sigma[hard_negative]),
        ("positive", "hard"): -math.log(sigma[-1.0]),
        ("positive", "easy"): -math.log(sigma[2.0]),
    }
    slope = {
        ("negative", "easy"): sum(sigma[x] for x in negatives),
        ("negative", "hard"): sigma[hard_negative],
        ("positive", "hard"): 1 - sigma[-1.0],
        ("positive", "easy"): 1 - sigma[2.0],
    }
    counts = dict(zip(QUADRANTS, (3, 1, 1, 1)))
    rows = shares_of(("bce", "balanced_bce"), HAND)
    assert [(row.loss, row.label, row.hardness) for row in rows] == [
        (loss, *quadrant) for loss in ("bce", "balanced_bce") for quadrant in QUADRANTS
    ]
    for row in rows:
        key = (row.label, row.hardness)
        alpha = 1.0 if row.loss == "bce" else 0.75 if row.label == "positive" else 0.25
        assert row.count == counts[key]
        assert row.count_share == pytest.approx(counts[key] / 6)
        assert row.loss_sum == pytest.approx(alpha * bce[key], rel=1e-5)
        assert row.gradient_sum == pytest.approx(alpha * slope[key], rel=1e-5)
    assert rows[0].loss_share == pytest.approx(bce["negative", "easy"] / sum(bce.values()), rel=1e-5)
    assert rows[3].gradient_share == pytest.approx(slope["positive", "easy"] / sum(slope.values()), rel=1e-5)


def test_focal_gradient_by_the_papers_closed_form():
    gamma, alpha = 2.0, 0.25
    rows = shares_of((f"focal,gamma={gamma},alpha={alpha}",), labelled([[1.5]], [0]))
    p = 1 / (1 + math.exp(-1.5))
    slope = (1 - p) ** gamma * (gamma * p * math.log(p) + p - 1)
    assert rows[3].gradient_sum == pytest.approx(alpha * abs(slope), rel=1e-5)
    assert rows[3].gradient_share == 1.0


def test_the_threshold_of_easy():
    # p_t is .881 at a margin of 2, .731 at 1, .953 at 3, .982 at 4.
    count = {(row.label, row.hardness): row.count for row in shares_of(("bce",), HAND, easy=0.9)}
    assert count == {
        ("negative", "easy"): 2,
        ("negative", "hard"): 2,
        ("positive", "hard"): 2,
        ("positive", "easy"): 0,
    }
    undecided = shares_of(("bce",), labelled([[0.0]], [0]))
    assert undecided[3].count == 1  # p_t = .5 is easy, as in the paper


@settings(max_examples=20)
@given(
    st.integers(0, 10**6), st.floats(0.05, 0.95), st.sampled_from(["focal", "asymmetric", "varifocal", "mal"])
)
def test_shares_sum_to_one_and_counts_to_all(seed, easy, name):
    piece = random_piece(seed, rows=50)
    rows = shares_of(("bce", name), piece, easy=easy)
    for four in (rows[:4], rows[4:]):
        assert sum(row.count for row in four) == piece.logits.numel()
        for share in ("count_share", "loss_share", "gradient_share"):
            assert sum(getattr(row, share) for row in four) == pytest.approx(1)


def test_pieces_add_up_to_the_whole():
    whole = random_piece(0)
    pieces = [Labelled(*parts) for parts in zip(*(tensor.split(37) for tensor in whole))]
    one, many = shares_of(("bce", "focal"), whole), shares_of(("bce", "focal"), *pieces)
    for a, b in zip(one, many):
        assert (a.count, a.count_share) == (b.count, b.count_share)
        assert a.loss_sum == pytest.approx(b.loss_sum)
        assert a.gradient_sum == pytest.approx(b.gradient_sum)


def test_a_quality_is_the_label_of_a_positive():
    piece = labelled([[0.3, -1.0], [-2.0, -2.0]], [0, 2], quality=[0.6, 1.0])
    rows = {(row.label, row.hardness): row for row in shares_of(("varifocal",), piece)}
    direct = varifocal_loss(piece.logits, piece.labels, quality=piece.quality)
    assert rows["positive", "easy"].loss_sum == pytest.approx(float(direct[0, 0]))
    assert rows["negative", "easy"].loss_sum == pytest.approx(float(direct.sum() - direct[0, 0]))


def test_no_logits_have_no_shares():
    empty = labelled([], [])._replace(logits=torch.zeros(0, 2), labels=torch.zeros(0, dtype=torch.int64))
    for rows in (shares_of(("bce",)), shares_of(("bce",), empty)):
        assert [(row.count, row.count_share, row.loss_share, row.gradient_share) for row in rows] == [
            (0, 0, 0, 0)
        ] * 4
    assert not any(claim.holds for claim in check_claims(rows))


def row_of(counts: tuple[int, int, int, int], shares: tuple[float, ...]) -> list[Quadrant]:
    return [
        Quadrant("bce", *quadrant, count, 0.0, 0.0, share, 0.0, share)
        for quadrant, count, share in zip(QUADRANTS, counts, shares)
    ]


def test_claims():
    as_said = check_claims(row_of((10_000, 100, 90, 10), (0.6, 0.2, 0.15, 0.05)))
    assert [claim.holds for claim in as_said] == [True, True, True, False, True, True]
    assert as_said[0].evidence == "10000 and 100"
    otherwise = check_claims(row_of((900, 100, 30, 60), (0.4, 0.3, 0.2, 0.1)))
    assert [claim.holds for claim in otherwise] == [False, False, False, True, False, False]


# Figure 4


def sorted_shares(losses: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Part and cumulated share of the loss, the hardest first: the paper's way, every logit in memory."""
    falling = losses.double().flatten().sort(descending=True).values.numpy()
    n = len(falling)
    return np.arange(n + 1) / n, np.concatenate([[0], falling.cumsum() / falling.sum()])


def curves_of(*pieces: Labelled, gammas: tuple[float, ...] = (0.0, 0.5, 1.0, 2.0)) -> list:
    bins = LossBins(gammas)
    for piece in pieces:
        bins.add(piece)
    return bins.curves()


def test_four_logits_by_hand():
    # CE of p_t = 1/2, 3/4, 7/8, 15/16: 1, .415, .193, .0931 bits, all far more than a bin apart.
    p = torch.tensor([[1 / 2], [3 / 4], [7 / 8], [15 / 16]], dtype=torch.float64)
    piece = labelled([[0.0]] * 4, [0] * 4)._replace(logits=p.logit().float())
    (positive, negative) = curves_of(piece, gammas=(0.0,))
    bits = -np.log2([1 / 2, 3 / 4, 7 / 8, 15 / 16])
    np.testing.assert_allclose(positive.part, [0, 0.25, 0.5, 0.75, 1])
    np.testing.assert_allclose(positive.share, np.concatenate([[0], bits.cumsum() / bits.sum()]), rtol=1e-6)
    assert positive.hardest(0.25) == pytest.approx(bits[0] / bits.sum())
    assert (positive.logits, negative.logits) == (4, 0)
    assert math.isnan(negative.hardest(0.2))
    (focal, _) = curves_of(piece, gammas=(2.0,))
    weighted = bits * np.array([1 / 2, 1 / 4, 1 / 8, 1 / 16]) ** 2
    assert focal.hardest(0.25) == pytest.approx(weighted[0] / weighted.sum())
    assert focal.total == pytest.approx(weighted.sum() * math.log(2))


@settings(max_examples=20)
@given(st.integers(0, 10**6), st.floats(0.1, 30.0), st.sampled_from([0.0, 0.5, 1.0, 2.0, 5.0]))
def test_bins_against_sorted_losses(seed, scale, gamma):
    piece = random_piece(seed, scale=scale)
    p_t = piece.margin.double().sigmoid()
    losses = -((1 - p_t) ** gamma) * F.logsigmoid(piece.margin.double())
    for curve, mask in zip(curves_of(piece, gammas=(gamma,)), (piece.positive, ~piece.positive)):
        part, share = sorted_shares(losses[mask])
        # Exact at the edges of bins,
        at_edges = np.interp(curve.part, part, share)
        np.testing.assert_allclose(curve.share, at_edges, atol=1e-9)
        # monotone and concave, as every such curve is,
        slopes = np.diff(curve.share) / np.diff(curve.part)
        assert (np.diff(curve.part) > 0).all()
        assert (slopes >= 0).all()
        assert (np.diff(slopes) <= 1e-9 * slopes[0]).all()
        # and in between never above the sorted one, nor further below than a bin is wide.
        gap = share - np.interp(part, curve.part, curve.share)
        assert gap.min() > -1e-9
        assert gap.max() < math.exp((1 + gamma) / 32) - 1 + 1e-9


def test_gamma_0_is_cross_entropy():
    piece = random_piece(1)
    target = piece.positive.float()
    bce = F.binary_cross_entropy_with_logits(piece.logits, target, reduction="none")
    for curve, mask in zip(curves_of(piece, gammas=(0.0,)), (piece.positive, ~piece.positive)):
        assert curve.total == pytest.approx(float(bce[mask].double().sum()), rel=1e-6)
        _, share = sorted_shares(bce[mask])
        tenth = round(0.1 * (len(share) - 1)) / (len(share) - 1)
        exact = np.interp(tenth, np.linspace(0, 1, len(share)), share)
        assert curve.hardest(tenth) == pytest.approx(exact, abs=1e-3)


def test_more_gamma_gives_the_hardest_more():
    shares = {(curve.label, curve.gamma): curve.hardest(0.1) for curve in curves_of(random_piece(2))}
    for label in ("positive", "negative"):
        falling = [shares[label, gamma] for gamma in (2.0, 1.0, 0.5, 0.0)]
        assert falling == sorted(falling, reverse=True)


def test_bins_add_up_over_pieces_and_hold_extremes():
    whole = random_piece(3)
    far = labelled([[1e4, -1e30], [-1e4, 1e4]], [0, 0])  # beyond the outermost bins, and beyond any integer
    pieces = [Labelled(*parts) for parts in zip(*(tensor.split(11) for tensor in whole))]
    for one, many in zip(curves_of(whole, far), curves_of(*pieces, far)):
        np.testing.assert_allclose(one.share, many.share, atol=1e-12)
        assert one.part.tolist() == many.part.tolist()
        assert np.isfinite(one.share).all()
    assert curves_of(far)[0].total == 1e4
    assert [curve.hardest(0.5) for curve in curves_of(far, gammas=(0.0,))] == [1, 1]


def test_a_model_that_is_not_trained_is_told():
    def doubt(*pieces: Labelled) -> str:
        bins = LossBins()
        for piece in pieces:
            bins.add(piece)
        return bins.doubt()

    assert doubt(HAND) == ""  # a positive and three negatives out of four are easy
    assert "0 of 2 positives reach p = .5" in doubt(labelled([[-1.0, -9.0], [-9.0, -0.1]], [0, 1]))
    assert "3 of 4 negatives lie above p = .5" in doubt(
        labelled([[9.0, 1.0], [1.0, 1.0], [-1.0, 2.0]], [0, 2, 1])
    )
    assert "1 of 101 positives" in doubt(labelled([[1.0]] + 100 * [[-1.0]], 101 * [0]))
    assert doubt(labelled([[1.0]] + 99 * [[-1.0]], 100 * [0])) == ""
    assert doubt(labelled([[-1.0]], [1])) == ""  # without positives there is nothing to say of them


# From a detector to its logits


def test_a_softmax_is_a_sigmoid_of_its_margin():
    rng = torch.Generator().manual_seed(0)
    logits = 5 * torch.randn(200, 4, generator=rng)
    labels = torch.randint(0, 4, (200,), generator=rng)
    margins, binary = softmax_margins(logits, labels)
    piece = Labelled(margins, binary, torch.ones(200), torch.arange(200))
    assert (piece.positive[:, 0] == (labels < 3)).all()
    for name, reference in (
        ("bce", lambda x: F.cross_entropy(x, labels, reduction="none")),
        ("focal,gamma=2,alpha=none", lambda x: softmax_focal_loss(x, labels, gamma=2.0)),
    ):
        x = logits.clone().requires_grad_()
        direct = reference(x)
        (gradient,) = torch.autograd.grad(direct.sum(), x)
        rows = {(row.label, row.hardness): row for row in shares_of((name,), piece)}
        hard, foreground = piece.margin[:, 0] < 0, labels < 3
        for (label, hardness), row in rows.items():
            here = (foreground == (label == "positive")) & (hard == (hardness == "hard"))
            assert row.loss_sum == pytest.approx(float(direct.detach()[here].sum()), rel=1e-4)
            assert 2 * row.gradient_sum == pytest.approx(float(gradient[here].abs().sum()), rel=1e-4)


@pytest.fixture(scope="module")
def data() -> Letterboxed:
    return Letterboxed(scenes(SceneConfig(train=6), "train"), 96)


def detector_for(data: Letterboxed, softmax: bool = False, **config) -> Detector:
    torch.manual_seed(0)
    config = DetectorConfig(width=4, channels=8, **config)
    return Detector(config, len(data.dataset.names), softmax=softmax).eval()


@pytest.mark.parametrize("kind", ["anchor_free", "retinanet"])
def test_every_location_that_counts_gives_its_logits(data, kind):
    detector = detector_for(data, kind=kind)
    counts = count_locations(detector.config, data)
    pieces = list(labelled_logits(detector, data, range(len(data)), 4, CPU))
    assert sum(piece.logits.numel() for piece in pieces) == counts.logits
    assert sum(int(piece.positive.sum()) for piece in pieces) == counts.positives
    quality = torch.cat([piece.quality[piece.labels < 4] for piece in pieces])
    assert ((quality >= 0) & (quality <= 1)).all()
    assert (quality < 1).any()
    one = list(labelled_logits(detector, data, range(len(data)), 1, CPU))
    torch.testing.assert_close(torch.cat([p.logits for p in one]), torch.cat([p.logits for p in pieces]))


def test_pieces_are_small_and_lose_nothing(data, monkeypatch):
    detector = detector_for(data)
    whole = torch.cat([p.logits for p in labelled_logits(detector, data, [0], 1, CPU)])
    monkeypatch.setattr("detloss.lab.inspect.logits._AT_ONCE", 400)
    pieces = list(labelled_logits(detector, data, [0], 1, CPU))
    assert {len(piece.logits) for piece in pieces[:-1]} == {100}
    assert torch.equal(torch.cat([piece.logits for piece in pieces]), whole)


def test_one_logit_a_location_of_a_softmax_and_of_yolov2(data):
    soft = detector_for(data, softmax=True)
    yolo = detector_for(data, kind="yolov2", strides=(8,), anchors=((16.0, 16.0), (24.0, 24.0)))
    for detector in (soft, yolo):
        counts = count_locations(detector.config, data)
        pieces = list(labelled_logits(detector, data, range(len(data)), 4, CPU))
        assert {piece.logits.shape[1] for piece in pieces} == {1}
        assert sum(len(piece.logits) for piece in pieces) == counts.positives + counts.negatives
        assert sum(int(piece.positive.sum()) for piece in pieces) == counts.positives


def test_logits_that_are_not_finite_are_an_error(data):
    detector = detector_for(data)
    with torch.no_grad():
        detector.class_head.bias[1] = torch.nan
    with pytest.raises(ValueError, match=r"logits are not finite on images .*diverged"):
        list(labelled_logits(detector, data, [0, 1], 2, CPU))


def test_a_loss_that_is_not_finite_is_an_error(tmp_path):
    (tmp_path / "naive_loss.py").write_text(
        "def naive(x, t):\n    return -(t * x.sigmoid().log() + (1 - t) * (1 - x.sigmoid()).log())\n"
    )
    name = f"{tmp_path / 'naive_loss.py'}:naive"
    assert shares_of((name,), labelled([[1.0]], [0]))[3].loss_share == 1
    with pytest.raises(ValueError, match=r"naive' or its gradient is not finite .* 200 to 200"):
        shares_of((name,), labelled([[200.0]], [1]))


def test_shares_on_one_image(data):
    detector = detector_for(data)
    index = next(i for i in range(len(data)) if len(data.dataset.annotation(i).boxes))
    losses = elementwise_losses(("bce", "focal"))
    one = example(detector, data, index, losses, CPU, hardest=5)
    assert one.image.shape == (96, 96, 3)
    assert len(one.negatives) == len(one.scores) == len(one.classes) == 5
    assert (np.diff(one.scores) <= 0).all()
    for loss in ("bce", "focal"):
        parts = (one.positive_shares[loss].sum(), one.negative_shares[loss].sum(), one.rest[loss])
        assert sum(parts) == pytest.approx(1)
        assert len(one.positive_shares[loss]) == len(one.positives)
    pieces = list(labelled_logits(detector, data, [index], 1, CPU))
    negatives = torch.cat([piece.logits[~piece.positive] for piece in pieces])
    assert one.others == len(negatives) - 5
    np.testing.assert_allclose(one.scores, negatives.sigmoid().sort(descending=True).values[:5], rtol=1e-6)
    rows = shares_of(("bce",), *pieces)
    assert one.positive_shares["bce"].sum() == pytest.approx(rows[2].loss_share + rows[3].loss_share)


def test_all_tables_of_a_model(data):
    config = InspectConfig(images=4, examples=2, losses=("bce", "focal"), gammas=(0.0, 2.0))
    calls: list[tuple[int, int]] = []
    config = replace(config, batch=3)
    detector, losses = detector_for(data), elementwise_losses(config.losses)
    tables = measure_model(config, losses, detector, data, CPU, lambda *done: calls.append(done))
    assert calls == [(3, 4), (4, 4)]
    assert tables.images == 4
    assert tables.logits == 4 * 756 * 4
    assert len(tables.quadrants) == 8
    assert [(c.label, c.gamma) for c in tables.curves] == [
        (label, gamma) for label in ("positive", "negative") for gamma in (0.0, 2.0)
    ]
    assert sum(curve.logits for curve in tables.curves if curve.gamma == 0) == tables.logits
    assert len(tables.examples) == 2


def test_a_softmax_loss_has_no_logit_of_its_own():
    with pytest.raises(ValueError, match=r"softmax_focal.*name bce or focal,alpha=none"):
        elementwise_losses(("bce", "softmax_focal"))
