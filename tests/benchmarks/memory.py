"""Peak memory of a run: rows of four proposals and an aggregation, with answers of 2 KB.

    python tests/benchmarks/memory.py [--rows 20000]

In a fresh process: the peak of its resident memory, less what it had after its imports, less the frame and the results
(both as pandas counts them, texts included). The service is a process of its own on loopback.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from pathlib import Path
from typing import Any

from processes import machine, result_of, serving

CLAIM = 40.0
MIB = 1 << 20
PROPOSERS = ("a", "b", "c", "d")


def resident(which: str) -> float:
    """Return MiB of this process: ``VmRSS`` now, ``VmHWM`` at most."""
    found = re.search(rf"{which}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found is not None
    return int(found[1]) / 1024


def child(url: str, n_rows: int) -> dict[str, float]:
    """Return MiB of one run."""
    import aiohttp  # noqa: F401 - imported by the first call
    import pandas as pd

    import moa_nb as moa

    moa.configure(
        providers={"lab": {"base_url": url}},
        proposers=[f"lab:{name}" for name in PROPOSERS],
        aggregator="lab:z",
        models={f"lab:{name}": {"prompt_price": 0.0, "completion_price": 0.0} for name in (*PROPOSERS, "z")},
        ask_above_calls=10**9,
    )
    # A first row imports what is imported late.
    assert pd.Series(["a first row"]).moa.synthesize(progress=False).notna().all()
    imported = resident("VmRSS")
    frame = pd.DataFrame({"review": [f"review {number}: the strap broke after a week" for number in range(n_rows)]})
    before = resident("VmRSS")
    answers = frame.moa.synthesize("review", progress=False)
    found: dict[str, Any] = {
        "imported": imported,
        "frame": frame.memory_usage(deep=True).sum() / MIB,
        "results": answers.memory_usage(deep=True) / MIB,
        "before": before,
        "after": resident("VmRSS"),
        "peak": resident("VmHWM"),
    }
    assert answers.notna().all()
    return {name: float(value) for name, value in found.items()}


def main() -> int:
    """Return 0 if the claim is kept, else 1."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--answer", type=int, default=2048, help="bytes of an answer (default 2048)")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        print(json.dumps(child(options.child, options.rows)))
        return 0
    responder = str(Path(__file__).with_name("responder.py"))
    with serving(responder, "--answer", str(options.answer)) as url:
        found = result_of(__file__, "--rows", str(options.rows), "--child", url)
    above = found["peak"] - found["imported"] - found["frame"] - found["results"]
    print(", ".join(f"{name} {mib:.1f} MiB" for name, mib in found.items()))
    print(f"{options.rows} rows: {above:.1f} MiB above imports, frame and results (claim: at most {CLAIM:.0f} MiB)")
    print(machine())
    return int(above > CLAIM)


if __name__ == "__main__":
    sys.exit(main())
