"""What calibration by replay is worth on recorded answers, with thresholds chosen on one half and measured on the other.

    python tests/benchmarks/calibration.py

MMLU (Hendrycks et al. 2021): which of 14,042 questions mixtral-8x7b and gpt-4-1106-preview got right, as RouteLLM
recorded it (lm-sys/RouteLLM, Apache-2.0). Routers are taught on one half of the questions, and asked about the other.
``CPT 50 %`` is the least share of strong calls that recovers half of the gap between both models, ``APGR`` the part
of the gap that is recovered over all shares; a coin has 0.5.

GSM8K (Cobbe et al. 2021): the cascades of ``gsm8k_six_models.py``, which see no right answers: a check of the sums in
an answer gates them. They run once with their gates closed; then every threshold is a replay.
"""

from __future__ import annotations

import gzip
import json
import math
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from gsm8k_six_models import DATA as GSM8K
from gsm8k_six_models import PRICES, STRONG, WEAK, agents, sums_hold

import moa_nb as moa
from moa_nb.errors import SetupError
from moa_nb.evaluation.calibration.curves import apgr, apgr_interval, chance, cpt, curve, optimal
from moa_nb.evaluation.calibration.replay import Replay
from moa_nb.pipeline.routing import Nearest

MMLU = GSM8K.parents[1] / "routing" / "mmlu_correctness.csv.gz"
EXAMPLES, ASKED = 700, 700
"""Questions that the nearest are looked for among, and for how many: each is compared with each, word by word."""


def mmlu() -> Iterator[str]:
    """Yield what routers recover of the gap."""
    data = pd.read_csv(MMLU)
    weak, strong = data["mixtral_correct"].astype(float), data["gpt4_correct"].astype(float)
    order = np.random.default_rng(0).permutation(len(data))
    taught, asked = order[: len(data) // 2], order[len(data) // 2 :]
    yield f"MMLU: {len(data):,} questions, mixtral {weak.mean():.2%} right, gpt-4-1106 {strong.mean():.2%}"
    yield f"routers taught on {len(taught):,}, asked about the other {len(asked):,}\n"
    yield "| router | APGR [95 %] | CPT 20 % | CPT 50 % | CPT 80 % |"
    yield "|---|---|---:|---:|---:|"

    a, b = weak.iloc[asked].to_numpy(), strong.iloc[asked].to_numpy()
    yield line("coin", "0.50", chance(a, b))
    gain = (strong - weak).iloc[taught].groupby(data["subject"].iloc[taught]).mean()
    fails = (1 - weak).iloc[taught].groupby(data["subject"].iloc[taught]).mean()
    subjects = data["subject"].iloc[asked]
    yield routed("mean gain of the subject", subjects.map(gain).to_numpy(), a, b)
    yield routed("mixtral's errors in the subject", subjects.map(fails).to_numpy(), a, b)
    yield routed("length of the question", data["prompt"].iloc[asked].str.len().to_numpy(), a, b)

    some = data.iloc[taught[:EXAMPLES]].assign(needed=lambda rows: (1 - rows["mixtral_correct"]).astype(float))
    nearest = Nearest.of(some, "prompt", "needed", k=25)
    said = [nearest.word(text) for text in data["prompt"].iloc[asked[:ASKED]]]
    yield routed(f"nearest of {EXAMPLES:,}, asked about {ASKED:,}", said, a[:ASKED], b[:ASKED])
    best = optimal(a, b)
    yield line("optimal: knows both answers", f"{apgr(best):.2f}", best)

    replay = Replay(
        subjects.map(gain).to_numpy(),
        {"mixtral": a, "gpt-4": b},
        pipeline=moa.Pipeline(strategy="route", ways=["lab:mixtral", "lab:gpt-4"], router={"column": "gain"}),
    )
    yield "\nby the mean gain of the subject, its threshold chosen on one half of these questions\n"
    for share in (0.2, 0.5, 0.8):
        yield f"at most {share:.0%} strong\n{replay.calibrate(max_strong_share=share)}\n"


def routed(name: str, scores: Any, weak: Any, strong: Any) -> str:
    """Return the line of a router."""
    seen = apgr_interval(scores, weak, strong)
    return line(name, f"{seen.mean:.3f} [{seen.low:.3f}, {seen.high:.3f}]", curve(scores, weak, strong))


def line(name: str, recovered: str, points: pd.DataFrame) -> str:
    """Return a line of the table."""
    shares = (cpt(points, x) for x in (0.2, 0.5, 0.8))
    return f"| {name} | {recovered} | {' | '.join(f'{100 * share:.1f} %' for share in shares if share is not None)} |"


def gsm8k() -> Iterator[str]:
    """Yield what cascades make of the wishes."""
    rows = [json.loads(text) for text in gzip.decompress(GSM8K.read_bytes()).decode().splitlines()]
    data = pd.DataFrame([{**row, **{model: row[model]["solution"] for model in PRICES}} for row in rows])
    models = agents(data)
    for names in ((WEAK, STRONG), ("175b_verification", WEAK, STRONG)):
        closed = moa.Pipeline(
            strategy="cascade",
            tiers=[models[name] for name in names],
            scorer=sums_hold,
            accept_above=math.inf,
        )
        run = data.moa.start.synthesize("question", pipeline=closed)
        began = time.perf_counter()
        replay = Replay.of(run, closed, reference=data["gold"], metric="numeric")
        yield f"GSM8K: {' -> '.join(names)}, {len(replay)} questions, run and read in {time.perf_counter() - began:.1f} s\n"
        if len(names) == 2:
            right = replay.quality.to_numpy().T
            # A cascade goes on where the score is low.
            seen = apgr_interval(-replay.scores.iloc[:, 0].to_numpy(), *right)
            yield "| gate | APGR [95 %] | CPT 20 % | CPT 50 % | CPT 80 % |\n|---|---|---:|---:|---:|"
            yield line("the sums hold", f"{seen.mean:.3f} [{seen.low:.3f}, {seen.high:.3f}]", replay.curve())
            yield line("optimal: knows both answers", f"{apgr(optimal(*right)):.2f}", optimal(*right))
            yield ""
        wishes = {"max_strong_share": 0.3, "max_cost": 0.003, "min_quality": 0.8}
        for said, limit in [*wishes.items(), ("min_quality", 0.99)]:
            began = time.perf_counter()
            try:
                found: Any = replay.calibrate(**{said: limit})
            except SetupError as error:
                found = error
            yield f"{said} = {limit:g}, in {time.perf_counter() - began:.2f} s\n{found}\n"


def main() -> int:
    """Return 0 once both are printed, 1 where the data are absent."""
    parts: list[tuple[Path, Callable[[], Iterator[str]]]] = [(MMLU, mmlu), (GSM8K, gsm8k)]
    if missing := [file for file, _ in parts if not file.is_file()]:
        print(f"no recorded data at {missing[0]}")
        return 1
    moa.configure(store="none")
    for _, part in parts:
        for text in part():
            print(text, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
