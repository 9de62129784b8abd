"""What ``import moa_nb`` costs in CPU seconds on top of ``import pandas, IPython``.

Each run is a fresh interpreter; the least of them is the one that least of anything else disturbed.

    python tests/benchmarks/import_cost.py --runs 20
"""

from __future__ import annotations

import argparse
import subprocess
import sys

CLAIM = 0.10
"""CPU seconds that the import may cost."""

PROGRAM = """
import time
import IPython, pandas
start = time.process_time()
import moa_nb
print(time.process_time() - start)
"""


def measured() -> float:
    """Return the CPU seconds of one import in a fresh interpreter."""
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
    return float(done.stdout)


def main() -> int:
    """Return 0 if the least of the runs keeps the claim, else 1."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=10, help="fresh interpreters to start (default 10)")
    seconds = sorted(measured() for _ in range(parser.parse_args().runs))
    print(
        f"import moa_nb: least {seconds[0]:.4f} s, median {seconds[len(seconds) // 2]:.4f} s of CPU in {len(seconds)} runs"
        f" (claim: at most {CLAIM:.2f} s)",
    )
    return int(seconds[0] > CLAIM)


if __name__ == "__main__":
    sys.exit(main())
