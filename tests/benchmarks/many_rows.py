"""Many rows: memory over a hundred thousand rows, asked and again from the store, and how often equal rows are asked.

    python tests/benchmarks/many_rows.py [--rows 100000]

Three fresh processes share one store. The first synthesizes all rows with four proposals and an aggregation, the second
runs the same cell again, the third classifies as many short texts of which only a hundredth differ. Printed are the peak
of resident memory less what there was after the imports, less the frame and the results (as pandas counts them), and
the calls that the service saw. The service is a process of its own on loopback.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any
from urllib.request import urlopen

from memory import MIB, PROPOSERS, resident
from processes import machine, result_of, serving

CLAIM = 150.0
LABELS = ("praise", "bug", "billing")


def child(url: str, n_rows: int, verb: str) -> dict[str, float]:
    """Return MiB and seconds of one run."""
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

    def run(frame: pd.DataFrame) -> Any:
        if verb == "classify":
            return frame.moa.classify("review", LABELS, progress=False)
        return frame.moa.synthesize("review", progress=False)

    run(pd.DataFrame({"review": ["a first row"]}))  # imports what is imported late
    imported = resident("VmRSS")
    n_unlike = n_rows // 100 if verb == "classify" else n_rows
    frame = pd.DataFrame({"review": [f"review {number % n_unlike}: the strap broke" for number in range(n_rows)]})
    began = time.perf_counter()
    answers = run(frame)
    seconds = time.perf_counter() - began
    assert answers.notna().all()
    above = resident("VmHWM") - imported - (frame.memory_usage(deep=True).sum() + answers.memory_usage(deep=True)) / MIB
    return {"above": float(above), "seconds": seconds}


def seen(url: str) -> int:
    """Return how many requests the service has seen."""
    with urlopen(f"{url}/seen") as answer:
        return int(json.load(answer)[0])


def main() -> int:
    """Return 0 if the claims are kept, else 1."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--verb", default="synthesize", help=argparse.SUPPRESS)
    parser.add_argument("--child", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        print(json.dumps(child(options.child, options.rows, options.verb)))
        return 0
    responder, n_rows = str(Path(__file__).with_name("responder.py")), options.rows
    command = [__file__, "--rows", str(n_rows)]
    wrong = 0
    with tempfile.TemporaryDirectory() as home:
        with serving(responder, "--answer", "500") as url:
            for name, n_calls in (("asked", 5 * n_rows), ("again, from the store", 0)):
                before = seen(url)
                found = result_of(*command, "--child", url, home=home)
                n_sent = seen(url) - before
                print(
                    f"{n_rows:,} rows of 5 calls, {name}: {found['above']:.0f} MiB, {n_sent:,} calls, {found['seconds']:.0f} s"
                )
                wrong += found["above"] > CLAIM or not n_calls <= n_sent <= n_calls + 5
        with serving(responder, "--text", json.dumps({"label": LABELS[0]})) as url:
            found = result_of(*command, "--verb", "classify", "--child", url, home=home)
            n_sent, n_least = seen(url), (n_rows // 100) * len(PROPOSERS)
            print(
                f"{n_rows:,} texts, {n_rows // 100:,} of them unlike, classified by {len(PROPOSERS)} who agree:"
                f" {found['above']:.0f} MiB, {n_sent:,} calls, {found['seconds']:.0f} s"
            )
            wrong += found["above"] > CLAIM or not n_least <= n_sent <= n_least + len(PROPOSERS)
    print(f"(claims: at most {CLAIM:.0f} MiB above imports, frame and results; each question asked once)")
    print(machine())
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main())
