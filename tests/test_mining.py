"""Mining against plain loops over locations, by hand, and by properties."""

import math
import re

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.testing import assert_close

from detloss import mining
from detloss.losses import sigmoid_focal_loss
from detloss.mining import Mining, hard_negative_mask, ohem_mask, random_ratio_mask


def batch(seed: int, images: int = 3, locations: int = 40, classes: int = 2, spread: float = 40.0):
    """Losses without ties, boxes that overlap a good deal, some positives, some ignored."""
    generator = torch.Generator().manual_seed(seed)
    whole = torch.randperm(images * locations, generator=generator).view(images, locations, 1) + 1.0
    loss = whole * torch.rand(images, locations, classes, generator=generator).softmax(-1)
    positives = torch.rand(images, locations, generator=generator) < 0.1
    ignored = torch.rand(images, locations, generator=generator) < 0.1
    corner, size = torch.rand(2, images, locations, 2, generator=generator) * spread
    return loss, torch.cat([corner, corner + size / 2 + 4], -1), positives & ~ignored, ignored


def overlap(a: list[float], b: list[float]) -> float:
    width = max(0.0, min(a[2], b[2]) - max(a[0], b[0]))
    height = max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
    areas = [(x[2] - x[0]) * (x[3] - x[1]) for x in (a, b)]
    return width * height / (sum(areas) - width * height)


def plain_ohem(
    loss: Tensor,
    boxes: Tensor,
    positives: Tensor,
    ignored: Tensor,
    nms: float,
    keep: int,
    ratio: float | None,
) -> Tensor:
    """The method as the papers tell it, one image and one location at a time."""
    weight = torch.zeros(loss.shape[:2])
    for b in range(len(loss)):
        scores = loss[b].sum(-1).tolist()
        corners = boxes[b].tolist()
        order = [p for p in sorted(range(len(scores)), key=lambda p: -scores[p]) if not ignored[b, p]]
        survivors: list[int] = []
        for p in order:
            if all(overlap(corners[p], corners[q]) <= nms for q in survivors):
                survivors.append(p)
        if ratio is None:
            chosen = survivors[:keep]
        else:
            hardest = [p for p in survivors if positives[b, p]][: int(keep / (1 + ratio))]
            number = max(3, round(ratio * len(hardest)))
            chosen = hardest + [p for p in survivors if not positives[b, p]][:number]
        weight[b, chosen] = 1
    return weight


class TestHard:
    def test_by_hand(self):
        loss = torch.tensor([[5.0, 1, 9, 2, 8, 3], [4.0, 3, 2, 1, 6, 5]])
        positives = torch.tensor([[True] + [False] * 5, [False] * 6])
        ignored = torch.tensor([[False, False, True, False, False, False], [False] * 6])
        weight = hard_negative_mask(loss, positives, ratio=2, minimum=1, ignored=ignored)
        assert weight.tolist() == [[1, 0, 0, 0, 1, 1], [0, 0, 0, 0, 1, 0]]
        assert weight.dtype == torch.float32

    @given(st.integers(0, 10**6), st.sampled_from([0.0, 0.5, 1.0, 3.0, 1000.0]), st.integers(0, 5))
    @settings(max_examples=40)
    def test_properties(self, seed: int, ratio: float, minimum: int):
        loss, _, positives, ignored = batch(seed)
        weight = hard_negative_mask(loss, positives, ratio, minimum, ignored=ignored).bool()
        each, negatives = loss.sum(-1), ~positives & ~ignored
        assert not (weight & ignored).any()
        assert (weight & positives).equal(positives)
        for b in range(len(loss)):
            kept, left = weight[b] & negatives[b], ~weight[b] & negatives[b]
            wanted = max(round(ratio * int(positives[b].sum())), minimum)
            assert kept.sum() == min(wanted, int(negatives[b].sum()))
            if kept.any() and left.any():
                assert each[b][kept].min() > each[b][left].max()

    def test_ties_are_taken_in_order(self):
        # As at the first step, where every negative has the loss of the prior.
        weight = hard_negative_mask(torch.ones(1, 2000), torch.zeros(1, 2000, dtype=torch.bool), minimum=5)
        assert weight[0].nonzero()[:, 0].tolist() == [0, 1, 2, 3, 4]

    def test_enough_negatives_is_the_plain_loss(self):
        loss, _, positives, ignored = batch(0)
        weight = hard_negative_mask(loss, positives, 1e6, 10**6, ignored=ignored)
        assert weight.equal((~ignored).float())


class TestRandom:
    @given(st.integers(0, 10**6), st.sampled_from([0.0, 1.0, 3.0]))
    @settings(max_examples=20)
    def test_ratio_and_positives(self, seed: int, ratio: float):
        _, _, positives, ignored = batch(seed)
        generator = torch.Generator().manual_seed(seed)
        weight = random_ratio_mask(positives, ratio, 2, ignored=ignored, generator=generator).bool()
        assert (weight & positives).equal(positives)
        assert not (weight & ignored).any()
        for chosen, found, left_out in zip(weight, positives, ignored):
            wanted = max(2, round(ratio * int(found.sum())))
            there = int((~found & ~left_out).sum())  # an image may have fewer negatives than that
            assert (chosen & ~found).sum() == min(wanted, there)

    def test_every_negative_is_drawn_as_often(self):
        positives = torch.zeros(4000, 10, dtype=torch.bool)
        positives[:, 0] = True
        weight = random_ratio_mask(positives, 3, generator=torch.Generator().manual_seed(0))
        often = weight[:, 1:].mean(0)
        assert_close(often, torch.full((9,), 1 / 3), atol=0.03, rtol=0)  # four standard deviations

    def test_the_generator_decides(self):
        _, _, positives, _ = batch(1)
        draws = [random_ratio_mask(positives, generator=torch.Generator().manual_seed(i)) for i in (0, 0, 1)]
        assert draws[0].equal(draws[1])
        assert not draws[0].equal(draws[2])
        torch.manual_seed(3)
        first = random_ratio_mask(positives)
        torch.manual_seed(3)
        assert first.equal(random_ratio_mask(positives))


class TestOhem:
    def test_by_hand(self):
        # Two boxes on each other, two apart: the easier of the pair goes, though it is third by loss.
        boxes = torch.tensor([[[0.0, 0, 10, 10], [1, 0, 11, 10], [30, 30, 40, 40], [60, 60, 70, 70]]])
        loss = torch.tensor([[9.0, 7, 8, 1]])
        assert ohem_mask(loss, boxes, keep=3).tolist() == [[1, 0, 1, 1]]
        assert ohem_mask(loss, boxes, keep=2).tolist() == [[1, 0, 1, 0]]
        assert ohem_mask(loss, boxes, keep=3, nms=1).tolist() == [[1, 1, 1, 0]]
        # 1:1 with the pair's harder one the only positive, then with the easier one, which is suppressed
        first, second = torch.eye(4, dtype=torch.bool)[:2, None]
        assert ohem_mask(loss, boxes, first, ratio=1, minimum=0).tolist() == [[1, 0, 1, 0]]
        assert ohem_mask(loss, boxes, second, ratio=1, minimum=0).tolist() == [[0, 0, 0, 0]]

    def test_what_a_suppressed_box_would_suppress_stays(self):
        # A chain, each overlapping the next by 2/3: greedy keeps every second.
        left = torch.arange(0.0, 12)[None, :, None] * 2
        boxes = torch.cat([left, torch.zeros_like(left), left + 10, torch.full_like(left, 10)], -1)
        loss = torch.arange(12.0, 0, -1)[None]
        assert ohem_mask(loss, boxes).tolist() == [[1, 0] * 6]

    @pytest.mark.parametrize("first", [5, 2048])
    @pytest.mark.parametrize("ratio", [None, 3.0, 1.0])
    @pytest.mark.parametrize(("nms", "keep"), [(0.5, 128), (0.3, 8), (0.0, 4), (0.7, 16)])
    def test_equals_a_plain_loop(self, monkeypatch, ratio: float | None, nms: float, keep: int, first: int):
        monkeypatch.setattr(mining, "FIRST", first)
        for seed in range(4):
            loss, boxes, positives, ignored = batch(seed, locations=60, spread=60.0)
            positives[0] = False
            if seed % 2:
                loss = loss.round()  # many are equal
            weight = ohem_mask(
                loss, boxes, positives, ignored=ignored, nms=nms, keep=keep, ratio=ratio, minimum=3
            )
            assert weight.equal(plain_ohem(loss, boxes, positives, ignored, nms, keep, ratio))

    def test_of_equal_losses_the_first_locations_are_taken(self):
        corner = 100.0 * torch.arange(3000)[None, :, None].expand(1, -1, 2)
        weight = ohem_mask(torch.zeros(1, 3000), torch.cat([corner, corner + 10], dim=-1), keep=16)
        assert weight.nonzero()[:, 1].tolist() == list(range(16))

    def test_positives_do_not_matter_without_a_ratio(self):
        loss, boxes, positives, ignored = batch(2)
        assert ohem_mask(loss, boxes, ignored=ignored).equal(
            ohem_mask(loss, boxes, positives, ignored=ignored)
        )

    def test_it_stops_when_enough_have_survived(self, monkeypatch):
        turns = []
        real = mining.iou
        monkeypatch.setattr(mining, "iou", lambda *a: turns.append(a[1].left.shape) or real(*a))
        loss, boxes, _, _ = batch(0, images=2, locations=5000, classes=1, spread=1000.0)
        assert (ohem_mask(loss, boxes, keep=64).sum(1) == 64).all()
        assert turns == [(2, mining.FIRST)] * 64


MINERS = {
    "hard": lambda loss, boxes, positives, ignored: hard_negative_mask(loss, positives, ignored=ignored),
    "ohem": lambda loss, boxes, positives, ignored: ohem_mask(loss, boxes, ignored=ignored, keep=9),
    "ohem3": lambda loss, boxes, positives, ignored: ohem_mask(
        loss, boxes, positives, ignored=ignored, keep=9, ratio=3
    ),
    "random": lambda loss, boxes, positives, ignored: random_ratio_mask(
        positives, ignored=ignored, generator=torch.Generator().manual_seed(0)
    ),
}
each_miner = pytest.mark.parametrize("miner", MINERS.values(), ids=MINERS)
by_loss = pytest.mark.parametrize("miner", list(MINERS.values())[:3], ids=list(MINERS)[:3])


class TestAll:
    @by_loss
    def test_a_permutation_of_the_locations_permutes_the_weight(self, miner):
        for seed in range(5):
            given = batch(seed)
            order = torch.randperm(40, generator=torch.Generator().manual_seed(seed))
            assert miner(*(x[:, order] for x in given)).equal(miner(*given)[:, order])

    @by_loss
    def test_images_are_independent(self, miner):
        given = batch(4, images=4)
        alone = torch.cat([miner(*(x[b : b + 1] for x in given)) for b in range(4)])
        assert miner(*given).equal(alone)

    @each_miner
    def test_classes_are_summed_and_scale_does_not_matter(self, miner):
        loss, *rest = batch(5)
        expected = miner(loss, *rest)
        assert miner(loss.sum(-1), *rest).equal(expected)
        assert miner(1e-3 * loss, *rest).equal(expected)
        assert miner(loss.double(), *rest).equal(expected)

    @each_miner
    def test_no_positives_no_locations_no_images(self, miner):
        loss, boxes, positives, ignored = batch(6)
        nothing = torch.zeros_like(positives)
        weight = miner(loss, boxes, nothing, ignored)
        assert weight.sum(1).ge(1).all()
        assert weight.sum(1).le(9).all()
        assert not miner(loss, boxes, nothing, ~nothing).any()
        only_first = nothing | (torch.arange(3) == 0)[:, None]
        weight = miner(loss, boxes, positives, ignored | only_first)
        assert not weight[0].any()
        assert weight[1:].equal(miner(loss, boxes, positives, ignored)[1:])
        assert miner(*(x[:, :0] for x in batch(6))).shape == (3, 0)
        assert miner(*(x[:0] for x in batch(6))).shape == (0, 40)

    @each_miner
    def test_it_is_a_constant(self, miner):
        _, boxes, positives, ignored = batch(7)
        logits = torch.randn(3, 40, 2, generator=torch.Generator().manual_seed(0)).requires_grad_()
        labels = torch.where(positives, 1, 2).masked_fill(ignored, -100)
        loss = sigmoid_focal_loss(logits, labels)
        weight = miner(loss, boxes.requires_grad_(), positives, ignored)
        assert not weight.requires_grad
        (loss * weight[..., None]).sum().backward()
        assert boxes.grad is None
        assert logits.grad.abs().sum(-1).bool().equal(weight.bool())
        # The same number by the loss's own weight, one per row.
        again = sigmoid_focal_loss(logits, labels, reduction="sum", weight=weight)
        assert_close(again, (loss * weight[..., None]).sum())


class TestErrors:
    @pytest.mark.parametrize(
        ("call", "message"),
        [
            (lambda a, b, p: hard_negative_mask(a.sum(), p), "loss is a tensor of shape ()"),
            (lambda a, b, p: hard_negative_mask(a.long(), p), "a floating tensor (B, P) or (B, P, C)"),
            (lambda a, b, p: hard_negative_mask(a, p.float()), "positives is a tensor of shape (3, 40)"),
            (lambda a, b, p: hard_negative_mask(a, p[:, 1:]), "it must be a bool tensor of shape (3, 40)"),
            (lambda a, b, p: hard_negative_mask(a, p, ignored=p[:1]), "ignored is a tensor of shape (1, 40)"),
            (lambda a, b, p: hard_negative_mask(a, p, -1), "ratio is -1; it must be at least 0 and finite"),
            (lambda a, b, p: hard_negative_mask(a, p, math.inf), "ratio is inf"),
            (lambda a, b, p: hard_negative_mask(a, p, math.nan), "ratio is nan"),
            (lambda a, b, p: hard_negative_mask(a, p, 3, -1), "minimum is -1; it must be at least 0"),
            (lambda a, b, p: random_ratio_mask(p.sum(1)), "positives is a tensor of shape (3,)"),
            (lambda a, b, p: random_ratio_mask(p, -2), "ratio is -2"),
            (lambda a, b, p: ohem_mask(a, b[:, :3]), "boxes is a tensor of shape (3, 3, 4)"),
            (lambda a, b, p: ohem_mask(a, b, nms=1.5), "nms is 1.5; it must be in [0, 1]"),
            (lambda a, b, p: ohem_mask(a, b, keep=0), "keep is 0; it must be at least 1"),
            (lambda a, b, p: ohem_mask(a, b, ratio=3), "positives is None; with ratio"),
            (lambda a, b, p: ohem_mask(a, b, p, ratio=-3), "ratio is -3"),
            (
                lambda a, b, p: ohem_mask(a, b, p, ratio=3, keep=3),
                "keep is 3; with ratio 3 it must be at least 4",
            ),
            (lambda a, b, p: ohem_mask(a, b, p.int()), "(3, 40) and torch.int32; it must be a bool"),
        ],
    )  # fmt: skip
    def test_arguments(self, call, message: str):
        loss, boxes, positives, _ = batch(0)
        with pytest.raises(ValueError, match=re.escape(message)):
            call(loss, boxes, positives)


class TestByName:
    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            ("hard:3", Mining("hard", ratio=3)),
            ("hard", Mining("hard", ratio=3)),
            ("random:1.5", Mining("random", ratio=1.5)),
            ("ohem:0.7:256", Mining("ohem", nms=0.7, keep=256)),
            ("ohem", Mining("ohem", nms=0.5, keep=128)),
            ("ohem3:0.3", Mining("ohem3", nms=0.3, keep=128)),
        ],
    )
    def test_parse(self, text: str, expected: Mining):
        assert Mining.parse(text) == expected
        assert expected.by_boxes == text.startswith("ohem")

    def test_it_is_the_function(self):
        loss, boxes, positives, ignored = batch(3)
        generator = [torch.Generator().manual_seed(5) for _ in range(2)]
        for text, expected in (
            ("hard:1", hard_negative_mask(loss, positives, 1, ignored=ignored)),
            ("random:2", random_ratio_mask(positives, 2, ignored=ignored, generator=generator[0])),
            ("ohem:0.2:7", ohem_mask(loss, boxes, ignored=ignored, nms=0.2, keep=7)),
            ("ohem3:0.2:7", ohem_mask(loss, boxes, positives, ignored=ignored, nms=0.2, keep=7, ratio=3)),
        ):
            found = Mining.parse(text).mask(loss, boxes, positives, ignored, generator[1])
            assert found.equal(expected), text
        with pytest.raises(ValueError, match="boxes is None; ohem needs"):
            Mining("ohem").mask(loss, None, positives, ignored)

    @pytest.mark.parametrize(
        ("text", "reason"),
        [
            ("", "unknown kind ''"),
            ("harder", "unknown kind 'harder'"),
            ("hard:x", "could not convert"),
            ("hard:-1", "ratio is -1.0"),
            ("hard:3:3", "hard takes ratio"),
            ("ohem:2", "nms is 2.0"),
            ("ohem:0.5:0", "keep is 0"),
            ("ohem:0.5:1.5", "invalid literal"),
            ("ohem3:0.5:8:1", "ohem3 takes nms and keep"),
        ],
    )
    def test_errors_say_what_it_may_be(self, text: str, reason: str):
        with pytest.raises(ValueError, match=re.escape(reason)) as caught:
            Mining.parse(text)
        assert "write hard:RATIO, random:RATIO, ohem:NMS:KEEP or ohem3:NMS:KEEP" in str(caught.value)
