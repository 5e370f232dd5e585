"""Makes the golden files: python -m tests.golden.make [torch tf flax openai karpathy keras_hub]; see README.md."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np

from tests.golden.common import CONFIGS, GOLDEN, truth

SCRIPTS = ("torch", "tf", "flax", "openai", "karpathy")


def write_truth() -> None:
    """Writes truth/<config>.npz, canonical name -> array, and truth/configs.json, the fields of each config."""
    folder = GOLDEN / "truth"
    folder.mkdir(exist_ok=True)
    for key in CONFIGS:
        np.savez_compressed(folder / f"{key}.npz", **truth(key))
    (folder / "configs.json").write_text(json.dumps(CONFIGS, indent=2) + "\n")


def drop_stale_entries() -> None:
    """Removes the lines of index.json whose directory is gone."""
    path = GOLDEN / "index.json"
    index = {name: entry for name, entry in json.loads(path.read_text()).items() if (GOLDEN / name).is_dir()}
    path.write_text(json.dumps(index, indent=2) + "\n")


def main() -> None:
    write_truth()
    for name in sys.argv[1:] or SCRIPTS:
        # A process each: the frameworks' settings are global, and TensorFlow's names count the models made before.
        subprocess.run([sys.executable, "-m", f"tests.golden.make_{name}"], check=True)
    drop_stale_entries()


if __name__ == "__main__":
    main()
