"""Every script of examples/ runs two steps, and says time and memory before and after.

On BCCD where that is, else on drawn images.

Every trainer of examples/ is compared by the laboratory.
"""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from detloss.lab.data import load, save
from detloss.lab.runs import read_csv, read_json

pytestmark = pytest.mark.clients
FOLDER = Path(__file__).parent.parent / "examples"
NEEDS = {
    "torchvision_retinanet": "torchvision",
    "transformers_rt_detr": "transformers",
    "ultralytics_yolo": "ultralytics",
    "lightning_bf16": "lightning",
    "segmentation": "torch",
    "multi_label": "torch",
    "own_formula": "torch",
}
TRAINERS = {"lightning_trainer": ("lightning", "torchvision"), "ultralytics_trainer": ("ultralytics",)}
BCCD = Path(__file__).parents[2] / "shared" / "data" / "bccd"
LINE = re.compile(r"first step +\d+ ms, then +\d+ ms; peak +\d+ MB; loss [\d.e+-]+ → [\d.e+-]+$", re.M)


def test_every_example_is_here():
    scripts = {file.stem for file in FOLDER.glob("*.py") if '__name__ == "__main__"' in file.read_text()}
    assert scripts == set(NEEDS)
    assert {file.stem for file in FOLDER.glob("*_trainer.py")} == set(TRAINERS)


@pytest.mark.parametrize("name", NEEDS)
def test_examples(name, tmp_path):
    pytest.importorskip(NEEDS[name])
    data = ["--data", str(BCCD)] if BCCD.is_dir() else []
    said = run([str(FOLDER / f"{name}.py"), "--steps", "2", "--size", "64", *data], tmp_path)
    assert len(LINE.findall(said)) >= 2, said


def test_the_benchmark_of_the_integrations(tmp_path):
    for client in ("torchvision", "transformers", "ultralytics", "rfdetr"):
        pytest.importorskip(client)
    file = tmp_path / "integrations.csv"
    run([str(FOLDER.parent / "benchmarks/integrations.py"), "--quick", "--out", str(file)], tmp_path)
    rows = read_csv(file)
    assert len(rows) == 5 * 4
    for row in rows:
        assert 0 < float(row["low_ms"]) <= float(row["median_ms"]) <= float(row["high_ms"])
        assert row["ratio"] == "1.0" or not row["losses"].startswith(row["client"])


@pytest.mark.skipif(not BCCD.is_dir(), reason=f"no {BCCD}: github.com/Shenggan/BCCD_Dataset")
@pytest.mark.parametrize("name", TRAINERS)
def test_trainers(name, tmp_path):
    for client in TRAINERS[name]:
        pytest.importorskip(client)
    splits = {split: load(BCCD, split).select(range(count)) for split, count in (("train", 8), ("val", 4))}
    save(splits, tmp_path / "bccd", "voc", splits["train"].names)
    command = (
        f"compare --trainer {FOLDER / name}.py:train --data bccd --losses default+default quality_focal "
    )
    command += "--seeds 1 --lr 0.001 --box-weight 2 --steps 4 --batch 4 --size 64 --device cpu --workers 1"
    run(["-m", "detloss", *command.split(), "--out", "out"], tmp_path)
    rows = read_csv(tmp_path / "out" / "results.csv")
    assert [row["classification_loss"] for row in rows] == ["default", "quality_focal"]
    for folder in (tmp_path / "out" / "runs").glob("*/seed-0"):
        assert read_json(folder / "metrics.json")["images"] == 4
        assert (folder / "trainer.log").stat().st_size
        assert not (folder / "data").exists()


def run(arguments: list[str], folder: Path) -> str:
    """What a program printed, which went well."""
    environment = os.environ | {
        "YOLO_OFFLINE": "true",
        "YOLO_CONFIG_DIR": str(folder),
        "PYTHONPATH": os.pathsep.join(sys.path),
        "OMP_NUM_THREADS": "1",
    }
    command = [sys.executable, "-W", "ignore", *arguments]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
