"""Recompute a run's ledger error from its final states, with numpy and safetensors alone.

    python -m benchmarks.ledger RUN

What exchanges have moved must add up to nothing over all peers. A difference that only its responder has applied,
because the run ended before the other end could, is taken off: it is one whose number the responder has done and the
initiator still has pending. Nothing of gradvine's own code takes part.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
from safetensors import safe_open
from safetensors.numpy import load_file


def recompute(folder: Path) -> tuple[float, int]:
    """The relative ledger error of a run's folder, and how many exchanges were half-applied."""
    tensors, numbers = {}, {}
    for path in sorted((folder / "states").iterdir()):
        tensors[path.stem] = load_file(path)
        with safe_open(path, "np") as file:
            numbers[path.stem] = json.loads(file.metadata()["numbers"])
    total = sum(each["ledger"].astype(np.float64) for each in tensors.values())
    halves = 0
    for name, each in tensors.items():
        for key, w in each.items():
            if key.startswith("w."):
                owner = key[2:]
                if numbers[name][f"edge.{owner}.done"] == numbers[owner][f"edge.{name}.pending"]:
                    total = total - numbers[name]["ledger_share"] * w.astype(np.float64)
                    halves += 1
    moved = sum(np.linalg.norm(each["ledger"].astype(np.float64)) for each in tensors.values())
    return float(np.linalg.norm(total) / moved), halves


if __name__ == "__main__":
    error, half_applied = recompute(Path(sys.argv[1]))
    print(f"ledger error {error:.3g} (relative), {half_applied} exchanges half-applied")
