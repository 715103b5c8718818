"""Results mean what their detector found, however its trainer numbers images and classes."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from detloss.lab.data import Dataset
from detloss.lab.data.images import ImageFiles
from detloss.lab.data.sample import Annotation
from detloss.lab.evaluate.detections import read_coco_results
from detloss.lab.evaluate.interpret import COCO_IDS, OwnIds, interpret

NAMES = ("cat", "dog", "owl")
OWN = OwnIds({40 + i: f"{i:06}" for i in range(6)}, {7: "dog", 9: "cat", 11: "owl"})


def dataset(names=NAMES, folder="images/val") -> Dataset:
    """Six images, 000000 to 000005, each with an object of two classes, apart from each other."""
    annotations = [
        Annotation(
            np.array([[10, 10, 50, 60], [100, 20, 140, 50]], np.float32) + i,
            np.array([i % len(names), (i + 1) % len(names)]),
            np.zeros(2, bool),
            f"{i:06}",
        )
        for i in range(6)
    ]
    paths = [Path(folder) / f"{a.id}.jpg" for a in annotations]
    return Dataset(names, annotations, ImageFiles(paths, [(200, 200)] * 6))


def rows(
    of: Dataset, image=lambda i, id: id, category=lambda label, name: label, only=None, **more
) -> list[dict]:
    """Every object found exactly, or those of some labels only."""
    found = []
    for i in range(len(of)):
        truth = of.annotation(i)
        for (x1, y1, x2, y2), label in zip(truth.boxes.tolist(), truth.labels.tolist()):
            if only is None or label in only:
                found.append(
                    {
                        "image_id": image(i, truth.id),
                        "category_id": category(label, of.names[label]),
                        "bbox": [x1, y1, x2 - x1, y2 - y1],
                        "score": 0.9,
                    }
                    | {key: value(truth.id) for key, value in more.items()}
                )
    return found


def same(found, of: Dataset, only=None) -> bool:
    """Whether exactly the objects (of some labels) were read."""
    for one, i in zip(found, range(len(of)), strict=True):
        truth = of.annotation(i)
        kept = np.isin(truth.labels, list(range(len(of.names)) if only is None else only))
        if one.labels.tolist() != truth.labels[kept].tolist() or not np.allclose(
            one.boxes, truth.boxes[kept]
        ):
            return False
    return True


IMAGES = {
    "stems": lambda i, id: id,
    "files": lambda i, id: f"{id}.jpg",
    "paths": lambda i, id: f"val/{id}.jpg",
    "numbers": lambda i, id: int(id),
    "own": lambda i, id: 40 + i,
    "own as text": lambda i, id: str(40 + i),
}
CLASSES = {
    "from 0": lambda label, name: label,
    "from 1": lambda label, name: label + 1,
    "names": lambda label, name: name,
    "own": lambda label, name: {"dog": 7, "cat": 9, "owl": 11}[name],
}


@pytest.mark.parametrize("only", [None, {1}, {0, 1}, {1, 2}])
@pytest.mark.parametrize("classes", CLASSES)
@pytest.mark.parametrize("images", IMAGES)
def test_any_numbering_is_read(images, classes, only):
    of = dataset()
    found, words = interpret(rows(of, IMAGES[images], CLASSES[classes], only), of, OWN)
    assert same(found, of, only), words
    assert "of 12 objects" in words


def test_coco_ids_with_gaps():
    names = tuple(f"class {i}" for i in range(80))
    of = dataset(names).select(range(6))
    annotations = [of.annotation(i) for i in range(6)]
    annotations = [Annotation(a.boxes, a.labels + 10 * i, a.ignored, a.id) for i, a in enumerate(annotations)]
    of = Dataset(names, annotations, ImageFiles([Path(f"{a.id}.jpg") for a in annotations], [(200, 200)] * 6))
    found, words = interpret(rows(of, category=lambda label, name: COCO_IDS[label]), of)
    assert same(found, of), words
    assert "COCO's 80 ids" in words


def test_file_name_says_more_than_a_number():
    """Numbers from 0 in the order of another tool, with the file beside: the numbers alone mislead."""
    of = dataset()
    found, words = interpret(rows(of, lambda i, id: 5 - i, file_name=lambda id: f"any/where/{id}.jpg"), of)
    assert same(found, of), words


def test_of_two_ways_that_know_all_ids_the_fitting_one_is_taken_and_the_other_told():
    of = dataset()
    found, words = interpret(rows(of, category=lambda label, name: label + 1, only={0, 1}), of)
    assert same(found, of, {0, 1})
    assert words == (
        "images by file name without suffix, classes counted from 1: finds 8 of 12 objects (images by file "
        "name without suffix, classes counted from 0: 0)"
    )


def test_where_nothing_tells_ids_are_those_that_the_lab_writes():
    of = dataset()
    wrong = [row | {"bbox": [0, 0, 1, 1], "category_id": 1} for row in rows(of)]
    found, _ = interpret(wrong, of, OWN)
    assert all(one.labels.tolist() == [1, 1] for one in found)
    own = [row | {"image_id": 40, "bbox": [0, 0, 1, 1], "category_id": 7} for row in rows(of)]
    found, _ = interpret(own, of, OWN)
    assert found[0].labels.tolist() == [1] * 12  # 7 is dog
    assert [len(one.labels) for one in interpret([], of, OWN)[0]] == [0] * 6


def test_what_cannot_be_told_apart_is_refused_with_both():
    of = dataset()
    boxes = rows(of)
    mixed = [row | {"category_id": id} for row in boxes for id in (1, 2)]
    with pytest.raises(ValueError, match=r"cannot be told.*from 0: 8 objects.*from 1: 8 objects.*NAME=ID"):
        interpret(mixed, of)
    found, words = interpret(mixed, of, category_ids=("0",))
    assert set(found[0].labels) == {1, 2}
    assert "classes counted from 0" in words


def test_a_wish_is_followed():
    of = dataset()
    results = rows(of, category=lambda label, name: {"cat": 30, "dog": 10, "owl": 20}[name])
    with pytest.raises(ValueError, match=r"category_id 30 is not a class"):
        interpret(results, of)
    assert same(interpret(results, of, category_ids=("owl=20", "cat=30", "dog=10"))[0], of)


@pytest.mark.parametrize("words", [("2",), ("own",), ("cat=1", "dog=2"), ("cat=1", "dog=1", "owl=2"), ()])
def test_a_wish_that_cannot_be(words):
    with pytest.raises(ValueError, match=r"category_ids is .*give auto, 0, 1, or a NAME=ID.*cat, dog, owl"):
        interpret(rows(dataset()), dataset(), category_ids=words)


def test_a_wish_under_which_nothing_is_right_while_another_way_fits():
    of = dataset()
    from_1 = rows(of, category=lambda label, name: label + 1, only={0, 1})
    with pytest.raises(ValueError, match=r"with category_ids 0 no object is found.*counted from 1, 8 are"):
        interpret(from_1, of, category_ids=("0",))


def test_files_of_one_name_in_two_folders_need_their_folders():
    of = dataset()
    twins = [of.annotation(i)._replace(id=f"{'ab'[i % 2]}/{i // 2}") for i in range(6)]
    paths = [Path(f"images/{one.id}.jpg") for one in twins]
    of = Dataset(NAMES, twins, ImageFiles(paths, [(200, 200)] * 6))
    assert same(interpret(rows(of, lambda i, id: f"{id}.jpg"), of)[0], of)
    with pytest.raises(ValueError, match=r"image_id '0.jpg' is not an image"):
        interpret(rows(of, lambda i, id: f"{id[2:]}.jpg"), of)


def test_a_whole_coco_file_with_scores_is_read_by_its_names(tmp_path):
    of = dataset()
    number = {f"{i:06}": 100 - i for i in range(6)}
    annotations = rows(of, lambda i, id: float(number[id]), lambda label, name: 3 - label)
    table = {
        "images": [{"id": n, "file_name": f"{id}.jpg"} for id, n in number.items()],
        "categories": [{"id": 3 - label, "name": name} for label, name in enumerate(NAMES)],
        "annotations": annotations,
    }
    file = tmp_path / "fiftyone.json"
    file.write_text(json.dumps(table), encoding="utf-8-sig")
    found, words = interpret(read_coco_results(file), of)
    assert same(found, of), words


@given(
    st.lists(
        st.fixed_dictionaries(
            {
                "image_id": st.integers(-1, 8) | st.sampled_from(["000001", "1", "x", ""]),
                "category_id": st.integers(-1, 4) | st.sampled_from(["cat", "0", "x", ""]),
                "bbox": st.lists(st.floats(-300, 300), min_size=4, max_size=4),
                "score": st.floats(allow_nan=True, allow_infinity=True),
            }
        ),
        max_size=4,
    ),
    st.sampled_from([None, OWN]),
)
def test_whatever_comes_is_read_or_refused_by_name(results, own):
    try:
        found, words = interpret(results, dataset(), own)
    except ValueError as refused:
        words = str(refused)
        found = None
    assert any(word in words for word in (["image_id", "category_id"] if found is None else ["objects"]))
    if found is not None:
        assert sum(len(one.labels) for one in found) == len(results)
