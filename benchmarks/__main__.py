"""Runs every benchmark of this folder and fails where a ratio misses its limit: `python -m benchmarks`."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path


def main() -> int:
    """Prints each benchmark's table, then what missed its limit; returns the number of misses."""
    missed = []
    for path in sorted(Path(__file__).parent.glob("[!_]*.py")):
        print(f"== {path.name}", flush=True)
        done = subprocess.run([sys.executable, str(path)], stdout=subprocess.PIPE, text=True, check=False)
        print(done.stdout, flush=True)
        if done.returncode:
            missed.append(f"{path.name} ended with exit code {done.returncode}")
        missed += beyond(done.stdout)
    print("\n".join(missed) or "All limits are met.")
    return len(missed)


def beyond(output: str) -> list[str]:
    """The `ratio <name> <value>` lines whose `limit <name> <bound>` is exceeded."""
    lines = [line.split() for line in output.splitlines()]
    ratios = {line[1]: float(line[2]) for line in lines if line[:1] == ["ratio"] and len(line) == 3}
    limits = {line[1]: float(line[2]) for line in lines if line[:1] == ["limit"] and len(line) == 3}
    return [
        f"{name} is {ratios[name]:.3g}, its limit is {bound:.3g}" if name in ratios else f"{name} was not measured"
        for name, bound in limits.items()
        if ratios.get(name, float("inf")) > bound
    ]


if __name__ == "__main__":
    sys.exit(main())
