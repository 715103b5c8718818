"""What weighs the terms of a detector's loss against one another."""

import math
import subprocess
import sys

import pytest
import torch
from torch import distributed
from torch.testing import assert_close

from detloss.balance import ClassWeight, class_weights, global_normalizer, guided_scale


def test_by_hand():
    classes, boxes = torch.tensor(6.0), torch.tensor(1.5, requires_grad=True)
    scale = guided_scale(classes, boxes)
    assert scale == 4
    assert not scale.requires_grad
    (scale * boxes).backward()
    assert boxes.grad == 4


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_no_box_term_is_a_finite_factor(dtype: torch.dtype):
    scale = guided_scale(torch.tensor(3.0, dtype=dtype), torch.tensor(0.0, dtype=dtype))
    assert scale.isfinite()
    assert scale.dtype == dtype


@pytest.mark.parametrize(
    ("value", "least", "expected"),
    [(5, 1.0, 5.0), (0, 1.0, 1.0), (0.25, 1.0, 1.0), (0.25, 0.1, 0.25), (0, 0.0, 0.0)],
)
def test_one_process_divides_by_its_own_number(value, least, expected):
    for given in (value, torch.tensor(value), torch.tensor([value]), torch.tensor(float(value)).double()):
        result = global_normalizer(given, least)
        assert result.item() == pytest.approx(expected)
        assert result.shape == ()
        assert result.dtype == (
            torch.float64 if getattr(given, "dtype", None) == torch.float64 else torch.float32
        )


def test_the_number_is_not_changed_and_has_no_gradient():
    quality = torch.tensor(0.5, requires_grad=True)
    result = global_normalizer(quality)
    assert result.item() == 1
    assert not result.requires_grad
    assert quality.item() == 0.5
    counted = torch.tensor([True, False, True])
    assert global_normalizer(counted.sum()).item() == 2
    with pytest.raises(ValueError, match=r"value has shape \(3,\); it must be one number"):
        global_normalizer(counted)


def test_a_group_of_one_sends_nothing(tmp_path, monkeypatch):
    distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/group", rank=0, world_size=1)
    try:
        monkeypatch.setattr(distributed, "all_reduce", None)
        assert global_normalizer(3).item() == 3
    finally:
        distributed.destroy_process_group()


TWO = """
import sys, torch
from torch import distributed, nn
from detloss import sigmoid_focal_loss
from detloss.balance import global_normalizer

rank, folder = int(sys.argv[1]), sys.argv[2]
distributed.init_process_group("gloo", init_method=f"file://{folder}/group", rank=rank, world_size=2)
numbers = [(4, 0), (0.5, 2.5), (0, 0), (0, 1), (3, 5)]
for pair in numbers:
    for value in (pair[rank], torch.tensor(pair[rank]), torch.tensor([pair[rank]]).double()):
        given = torch.as_tensor(value).clone()
        result = global_normalizer(value)
        assert result.item() == max(sum(pair) / 2, 1), (pair, result)
        assert torch.equal(torch.as_tensor(value), given)

# the gradient of two processes, one without positives, is that of all images in one
torch.manual_seed(0)
x = torch.randn(2, 10, 3)
y = torch.full((2, 10), 4)
y[0, :5] = torch.tensor([0, 1, 2, 3, 0])
alone, model = (nn.Linear(3, 4) for _ in range(2))
alone.load_state_dict(model.state_dict())
(sigmoid_focal_loss(alone(x), y, reduction="sum") / 5).backward()
model = nn.parallel.DistributedDataParallel(model)
loss = sigmoid_focal_loss(model(x[rank]), y[rank], reduction="sum")
(loss / global_normalizer((y[rank] < 4).sum())).backward()
torch.testing.assert_close(model.module.weight.grad, alone.weight.grad)
distributed.destroy_process_group()
"""


def test_two_processes(tmp_path):
    script = tmp_path / "two.py"
    script.write_text(TWO)
    running = [
        subprocess.Popen([sys.executable, script, str(rank), tmp_path], stderr=subprocess.PIPE, text=True)
        for rank in range(2)
    ]
    try:
        for process in running:
            _, errors = process.communicate(timeout=240)
            assert process.returncode == 0, errors
    finally:
        for process in running:
            process.kill()


LONG_TAIL = [5000, 800, 120, 30, 2, 1]


class TestClassWeights:
    def test_inverse_by_hand(self):
        # 1/1 and 1/3, scaled by 2 / (4/3)
        assert_close(class_weights([1, 3], "inverse"), torch.tensor([1.5, 0.5]))
        # 1/2 and 1/6 the same way; 1/√1 and 1/√9
        assert_close(class_weights([2, 6], "inverse"), torch.tensor([1.5, 0.5]))
        assert_close(class_weights([1, 9], "inverse", power=0.5), torch.tensor([1.5, 0.5]))

    def test_effective_number_as_the_paper_writes_it(self):
        for beta in (0.9, 0.99, 0.999, 0.9999):
            n = torch.tensor(LONG_TAIL).double()
            plain = (1 - beta) / (1 - beta**n)
            assert_close(class_weights(LONG_TAIL, beta=beta), (plain * len(n) / plain.sum()).float())

    def test_limits_of_beta(self):
        assert_close(class_weights(LONG_TAIL, beta=0.0), torch.ones(6))
        near_one = class_weights(LONG_TAIL, beta=1 - 1e-9)
        assert_close(near_one, class_weights(LONG_TAIL, "inverse"), rtol=1e-4, atol=1e-6)
        assert_close(class_weights([10**6, 5 * 10**6]), torch.ones(2))  # both far beyond 1/(1-β)

    @pytest.mark.parametrize("method", ["effective", "inverse"])
    @pytest.mark.parametrize("cap", [None, 1.0, 1.3, 2.0, 5.0, 100.0])
    def test_the_mean_is_one_and_nothing_is_above_the_cap(self, method, cap):
        for seed in range(50):
            draw = torch.Generator().manual_seed(seed)
            classes = int(torch.randint(1, 20, (), generator=draw))
            counts = (10 ** (5 * torch.rand(classes, generator=draw))).long()
            weights = class_weights(counts, method, cap=cap)
            assert float(weights.mean()) == pytest.approx(1, abs=1e-5)
            assert (weights > 0).all()
            assert cap is None or weights.max() <= cap + 1e-5
            order = counts.argsort()
            assert (weights[order].diff() <= 1e-6).all()  # rare ones first

    def test_a_cap_gives_what_it_takes_to_the_others(self):
        # 1.6, .32, .08 in proportion 20:4:1; the first is held at 1.5, the others share 1.5
        assert_close(class_weights([1, 5, 20], "inverse", cap=1.5), torch.tensor([1.5, 1.2, 0.3]))

    def test_classes_without_objects(self):
        with_them = class_weights([0, 1, 3, 0], "inverse")
        assert_close(with_them, torch.tensor([1.0, 1.5, 0.5, 1.0]))
        assert_close(class_weights([0, 0]), torch.ones(2))
        assert class_weights([]).shape == (0,)

    def test_counts_of_any_kind(self):
        expected = class_weights([1, 3], "inverse")
        for counts in (torch.tensor([1, 3]), torch.tensor([1.0, 3.0]), (1, 3)):
            weights = class_weights(counts, "inverse")
            assert_close(weights, expected)
            assert weights.dtype == torch.float32

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ({"counts": [1, -1]}, r"counts are \[1\.0, -1\.0\]; each must be at least 0 and finite"),
            ({"counts": [1, math.inf]}, "each must be at least 0 and finite"),
            ({"counts": [[1, 2]]}, r"counts has shape \(1, 2\); it must be \(C,\)"),
            ({"method": "sqrt"}, "method is 'sqrt'; it may be one of 'effective', 'inverse'"),
            ({"beta": 1.0}, r"beta is 1\.0; it must be at least 0 and below 1"),
            ({"beta": math.nan}, "beta is nan"),
            ({"power": -0.5}, r"power is -0\.5; it must be at least 0"),
            ({"cap": 0.5}, r"cap is 0\.5; it must be at least 1, the mean of the weights, or None"),
        ],
    )
    def test_errors(self, arguments, message):
        with pytest.raises(ValueError, match=message):
            class_weights(**{"counts": [1, 2]} | arguments)

    def test_by_name(self):
        assert ClassWeight.parse("effective") == ClassWeight("effective", 0.999)
        assert ClassWeight.parse("inverse") == ClassWeight("inverse", 1.0)
        assert ClassWeight.parse(" inverse : 0.5 : 10") == ClassWeight("inverse", 0.5, 10.0)
        assert_close(ClassWeight.parse("effective:0.99").of(LONG_TAIL), class_weights(LONG_TAIL, beta=0.99))
        capped = class_weights(LONG_TAIL, "inverse", power=0.5, cap=2.0)
        assert_close(ClassWeight.parse("inverse:0.5:2").of(LONG_TAIL), capped)

    @pytest.mark.parametrize(
        ("text", "reason"),
        [
            ("", "unknown method ''"),
            ("0.999", "unknown method '0.999'"),
            ("effective:2", "beta is 2.0; it must be at least 0"),
            ("inverse:-1", "power is -1.0"),
            ("inverse:1:0.5", "cap is 0.5"),
            ("inverse:1:2:3", "inverse takes a number and a cap"),
            ("inverse:half", "could not convert string to float: 'half'"),
        ],
    )
    def test_wrong_names(self, text, reason):
        with pytest.raises(ValueError, match="is not a choice of class weights") as caught:
            ClassWeight.parse(text)
        assert reason in str(caught.value)
        assert "as in effective:0.999 or inverse:0.5:10" in str(caught.value)
