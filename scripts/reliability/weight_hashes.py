#!/usr/bin/env python3
"""Checks whether a change to the code leaves training bit-identical.

    python scripts/reliability/weight_hashes.py                   # sha256 of the weights after 200 steps
    python scripts/reliability/weight_hashes.py --against v0.1.0  # compares with a commit; exit code 1 if they differ

Trains on the bundled corpus with each model family and precision, on one CPU thread. Hashes differ between machines and
versions of torch: compare only hashes of the same environment.
"""

import argparse
import hashlib
import os
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
CASES = [(model, precision) for model in ("gru_tiny", "transformer_tiny") for precision in ("bf16", "fp32")]


def train(tree: Path, folder: Path, *, model: str, precision: str, steps: int) -> str:
    """Returns the sha256 of the weights that the code of a working tree trains."""
    overrides = [
        "experiment=demo_translation", f"model={model}", f"trainer.precision={precision}", "trainer.device=cpu",
        f"trainer.max_steps={steps}", f"trainer.eval_every={steps}", f"trainer.save_every={steps}", "trainer.threads=1",
        "trainer.metric=valid/loss", "trainer.eval_examples=0", "trainer.attention_images=0", "search.beam_size=1",
        "metrics.names=[bleu]", "metrics.bootstrap=0", f"output_root={folder}", f"name={model}-{precision}",
    ]  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-m", "seq2seq", "train", *overrides], cwd=tree, capture_output=True, text=True, check=False,
        env=os.environ | {"PYTHONPATH": str(tree), "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    if done.returncode:
        raise SystemExit(f"training {model} in {precision} with the code of {tree} failed:\n{done.stderr[-3000:]}")
    weights = folder / f"{model}-{precision}" / "checkpoints" / "last" / "model.safetensors"
    return hashlib.sha256(weights.read_bytes()).hexdigest()


def hashes(tree: Path, steps: int) -> list[str]:
    """Computes and prints the hash of each case."""
    found = []
    with tempfile.TemporaryDirectory() as folder:
        for model, precision in CASES:
            found.append(train(tree, Path(folder), model=model, precision=precision, steps=steps))
            print(f"  {model:17s} {precision}  {found[-1]}", flush=True)
    return found


def main() -> None:
    """Prints the hashes, and compares them with those of another commit."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--against", metavar="COMMIT", help="a commit, tag or branch to compare with")
    parser.add_argument("--steps", type=int, default=200)
    options = parser.parse_args()
    expected = None
    if options.against:
        with tempfile.TemporaryDirectory() as folder:
            tree = Path(folder, "tree")
            git = ["git", "-C", ROOT, "worktree"]
            subprocess.run([*git, "add", "--quiet", "--detach", tree, options.against], check=True)
            try:
                print(options.against)
                expected = hashes(tree, options.steps)
            finally:
                subprocess.run([*git, "remove", "--force", tree], check=True)
    print("working tree")
    found = hashes(ROOT, options.steps)
    if expected is not None:
        different = [" ".join(case) for case, old, new in zip(CASES, expected, found, strict=True) if old != new]
        print(f"different: {', '.join(different)}" if different else "bit-identical")
        sys.exit(bool(different))


if __name__ == "__main__":
    main()
