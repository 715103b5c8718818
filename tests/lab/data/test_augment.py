import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from detloss.lab.data import Augment, Sample, augment, letterbox, unletterbox

OFF = Augment(flip=0, scale=(1, 1), translate=0, colour=0)


def rectangle(box, size=(64, 64), ignored=False, label=3) -> Sample:
    """A white rectangle on black, annotated exactly; corners are whole numbers."""
    image = np.zeros((*size, 3), np.uint8)
    x1, y1, x2, y2 = box
    image[y1:y2, x1:x2] = 255
    return Sample(image, np.array([box], np.float32), np.array([label]), "r", np.array([ignored]))


def drawn_box(image):
    """Where the image is brighter than half, by area: half-covered pixels count as half."""
    light = image.astype(float).mean(2) / 255
    light[np.abs(image.astype(int) - 114).max(2) == 0] = 0  # filling
    y, x = light.max(1), light.max(0)
    rows, columns = np.flatnonzero(y > 0.02), np.flatnonzero(x > 0.02)
    return columns[0], rows[0], columns[-1] + 1, rows[-1] + 1


boxes = st.tuples(st.integers(4, 40), st.integers(4, 40), st.integers(6, 20), st.integers(6, 20)).map(
    lambda b: (b[0], b[1], b[0] + b[2], b[1] + b[3])
)


@settings(max_examples=150)
@given(boxes, st.integers(0, 2**31), st.sampled_from([(64, 64), (64, 96), (96, 64)]))
def test_boxes_follow_the_pixels(box, seed, size):
    sample = rectangle(box, size)
    out = augment(sample, np.random.default_rng(seed), Augment(colour=0, scale=(0.6, 1.6), translate=0.3))
    assert out.image.shape == sample.image.shape
    assert out.image.dtype == np.uint8
    assert (out.boxes >= 0).all()
    assert (out.boxes <= [size[1], size[0]] * 2).all()
    if len(out.boxes):
        # Bilinear resampling spreads an edge over about two pixels.
        assert np.abs(np.array(drawn_box(out.image)) - out.boxes[0]).max() <= 2.0
        assert out.labels.tolist() == [3]
        assert out.id == "r"


def test_flip_is_exact():
    sample = rectangle((10, 20, 30, 25))
    out = augment(sample, np.random.default_rng(0), Augment(flip=1, scale=(1, 1), translate=0, colour=0))
    np.testing.assert_array_equal(out.image, sample.image[:, ::-1])
    assert out.boxes.tolist() == [[34, 20, 54, 25]]


def test_off_changes_nothing():
    sample = rectangle((10, 20, 30, 25))
    out = augment(sample, np.random.default_rng(0), OFF)
    np.testing.assert_array_equal(out.image, sample.image)
    np.testing.assert_array_equal(out.boxes, sample.boxes)
    assert not np.shares_memory(out.image, sample.image)


def test_magnification_is_about_the_centre():
    out = augment(rectangle((24, 28, 40, 36)), np.random.default_rng(0), Augment(0, (2, 2), 0, 0))
    assert out.boxes.tolist() == [[16, 24, 48, 40]]
    assert (out.image[30:34, 20:44] == 255).all()
    small = augment(rectangle((24, 28, 40, 36)), np.random.default_rng(0), Augment(0, (0.5, 0.5), 0, 0))
    assert small.boxes.tolist() == [[28, 30, 36, 34]]
    assert (small.image[:16] == 114).all()
    assert (small.image[:, 48:] == 114).all()
    assert (small.image[16:28, 16:48] == 0).all()


@pytest.mark.parametrize(
    ("box", "wanted", "ignored"),
    [
        ((5, 20, 15, 30), [], []),  # left of the middle half: gone
        ((10, 20, 20, 30), [[0, 8, 8, 28]], [False]),  # 4 of 10 columns left
        ((8, 20, 18, 30), [[0, 8, 4, 28]], [True]),  # 2 of 10: seen, but too little of it
        ((20, 20, 44, 44), [[8, 8, 56, 56]], [False]),
    ],
)
def test_what_becomes_of_objects_that_are_cut(box, wanted, ignored):
    out = augment(rectangle(box), np.random.default_rng(0), Augment(0, (2, 2), 0, 0, visible=0.3))
    assert out.boxes.tolist() == wanted
    assert out.ignored.tolist() == ignored
    assert len(out.labels) == len(wanted)


def test_ignored_stays_ignored():
    assert augment(rectangle((20, 20, 40, 40), ignored=True), np.random.default_rng(0)).ignored.tolist() == [
        True
    ]


def test_same_rng_same_result_and_input_untouched():
    sample = rectangle((10, 20, 30, 45))
    before = sample.image.copy(), sample.boxes.copy()
    first, second = (augment(sample, np.random.default_rng(5)) for _ in range(2))
    np.testing.assert_array_equal(first.image, second.image)
    np.testing.assert_array_equal(first.boxes, second.boxes)
    other = augment(sample, np.random.default_rng(6))
    assert not np.array_equal(first.image, other.image)
    np.testing.assert_array_equal(sample.image, before[0])
    np.testing.assert_array_equal(sample.boxes, before[1])


def test_every_call_draws_the_same_number_of_values():
    states = []
    for config in (Augment(), OFF, Augment(flip=1, colour=1)):
        rng = np.random.default_rng(3)
        augment(rectangle((10, 20, 30, 45)), rng, config)
        states.append(rng.random())
    assert len(set(states)) == 1


def test_colour_moves_pixels_within_its_range_and_no_boxes():
    sample = Sample(
        np.full((16, 16, 3), (120, 100, 80), np.uint8), np.zeros((0, 4), np.float32), np.zeros(0, int), "g",
        np.zeros(0, bool),
    )  # fmt: skip
    values = np.array(
        [
            augment(sample, np.random.default_rng(k), Augment(0, (1, 1), 0, colour=0.2))
            .image[0, 0]
            .astype(float)
            for k in range(200)
        ]
    )
    # brightness ±.2 alone moves 100 by 20; contrast and saturation add to it, both less.
    spread = values[:, 1].max() - values[:, 1].min()
    assert 30 < spread < 60
    saturation = (values.max(1) - values.min(1)) / 40  # gain of brightness · contrast · saturation
    assert saturation.min() == pytest.approx(0.8**3, abs=0.15)
    assert saturation.max() == pytest.approx(1.2**3, abs=0.3)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"flip": 2}, "flip is 2; it must be from 0 to 1"),
        ({"colour": -0.1}, "colour is -0.1"),
        ({"translate": 3}, "translate"),
        ({"visible": -1}, "visible"),
        ({"scale": (0, 1)}, "scale"),
        ({"scale": (2, 1)}, r"scale is \(2, 1\); it must be \(smallest, largest\)"),
    ],
)
def test_bad_knobs(config, message):
    with pytest.raises(ValueError, match=message):
        Augment(**config)


@settings(max_examples=100)
@given(st.integers(5, 300), st.integers(5, 300), st.integers(16, 128), st.integers(0, 2**31))
def test_letterbox_and_its_inverse(height, width, size, seed):
    rng = np.random.default_rng(seed)
    corners = np.sort(rng.uniform(0, [width, height], (4, 2, 2)), axis=1).reshape(4, 4).astype(np.float32)
    image = rng.integers(0, 100, (height, width, 3), np.uint8)
    sample = Sample(image, corners, np.arange(4), "s", np.zeros(4, bool))
    out, scale, offset = letterbox(sample, size)
    assert out.image.shape == (size, size, 3)
    assert scale == pytest.approx(size / max(height, width))
    np.testing.assert_allclose(unletterbox(out.boxes, scale, offset), corners, atol=1e-3)
    inside = unletterbox(out.boxes + 1000, scale, offset, (height, width))
    assert inside.tolist() == [[width, height] * 2] * 4
    # The picture lies where a box of the whole image goes, to less than a pixel; beside it is filling.
    x, y = offset
    seen = np.abs(out.image.astype(int) - 114).max(2) > 0
    rows, columns = np.flatnonzero(seen.any(1)), np.flatnonzero(seen.any(0))
    assert (columns[0], rows[0]) == (x, y)
    assert x + width * scale - 1 < columns[-1] + 1 <= x + width * scale + 1e-6 or width * scale < 1
    assert y + height * scale - 1 < rows[-1] + 1 <= y + height * scale + 1e-6 or height * scale < 1


def test_letterbox_boxes_lie_on_the_pixels():
    out, scale, offset = letterbox(rectangle((40, 20, 80, 60), size=(100, 133)), 128)
    assert scale == 128 / 133
    assert offset == (0, 16)
    assert np.abs(np.array(drawn_box(out.image)) - out.boxes[0]).max() <= 1.0


def test_letterbox_has_one_scale_along_both_sides():
    # 101 rows times 64 / 133 are 48.6: the picture ends within a pixel, and is not squeezed into 48 rows.
    out, _, _ = letterbox(rectangle((40, 80, 80, 98), size=(101, 133)), 64)
    light = out.image[..., 0].astype(float) * (out.image[..., 0] != 114)
    centre = (light.sum(1) * (np.arange(64) + 0.5)).sum() / light.sum()
    assert centre == pytest.approx(out.boxes[0, [1, 3]].mean(), abs=0.05)
