"""Which classification loss on real images? BCE, focal and quality focal on BCCD.

Data: BCCD, 364 blood-cell images in VOC format (205 train and 87 val as shipped; platelets, red and white
cells, about 11 red cells for one of the others), at ../shared/data/bccd or where the first argument says.
Command: python experiments/bccd.py [FOLDER]. It runs `detloss compare` with the arguments below into
runs/bccd (an interrupted run continues) and leaves tables and figures in experiments/bccd.
Duration: under 60 minutes on two cores; what was measured stands in experiments/README.md.
Expected: a smaller gap than on the embedded scenes. Blood cells are large and every image holds about a
dozen, so that a location is far more often positive; the run prints how often.
"""

import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parent
LOSSES = ("bce", "focal", "quality_focal")
SETTINGS = shlex.split(
    "--seeds 3 --size 192 --batch 8 --steps 400 --evaluations 4 --detector.width 16 --lrs 0.004 0.012"
)


def main() -> None:
    data = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT.parent / "shared" / "data" / "bccd"
    out, results = ROOT / "runs" / "bccd", HERE / "bccd"
    began = time.monotonic()
    command = [sys.executable, "-m", "detloss", "compare", "--data", str(data), "--losses", *LOSSES]
    subprocess.run([*command, *SETTINGS, "--out", str(out)], check=True)
    print(f"{(time.monotonic() - began) / 60:.1f} minutes")
    results.mkdir(exist_ok=True)
    for name in ("results.csv", "sweep.csv", "data.json", "config.json", "versions.json"):
        shutil.copy(out / name, results / name)
    for name in ("ap_per_seed", "ap_over_steps", "reliability", "samples"):
        figure = out / "figures" / f"{name}.png"
        if figure.exists():
            shutil.copy(figure, results / figure.name)


if __name__ == "__main__":
    main()
