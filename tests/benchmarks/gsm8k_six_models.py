"""Pyramids, cascades and routers on real answers of six models to 660 questions of grade-school mathematics.

    python tests/benchmarks/gsm8k_six_models.py

The models' recorded answers are the agents: Python functions that look the answer up, run over a frame through the
whole stack. Prints two Markdown tables: what is gated by answers, on all questions; and routers, which look at the
question alone, taught and calibrated on the first 330 and tested on the other 330. ``right`` is the percentage whose
number is the reference answer's, as ``parse.number`` reads both; ``strong`` the percentage of questions that
gpt-4-1106-preview was asked; ``cost`` what a thousand questions cost, ``of strong`` its part of what it costs to ask
the strong model alone.

Tokens are counted from the texts. Prices are the makers' own; the four research models were never sold, and are
counted at Mixtral's price per parameter, as one answer each, though those named verification chose among 100.
"""

from __future__ import annotations

import gzip
import json
import re
import sys
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd

import moa_nb as moa
from moa_nb.chat import Completion, Usage
from moa_nb.evaluation.calibration.calibration import calibrate
from moa_nb.evaluation.calibration.curves import apgr
from moa_nb.pipeline.parse import number
from moa_nb.pipeline.routing import Nearest
from moa_nb.pipeline.vote import normalised
from moa_nb.tokens import count_tokens

DATA = Path(__file__).parents[3] / "shared" / "data" / "gsm8k_six_models" / "first_660.jsonl.gz"
STRONG, WEAK = "gpt-4-1106-preview", "mixtral-8x7b-instruct"
MIXTRAL = 0.7
"""Dollars per million tokens, prompt or completion."""
PRICES = {
    "6b_finetuning": (MIXTRAL * 6 / 46.7,) * 2,
    "6b_verification": (MIXTRAL * 6 / 46.7,) * 2,
    "175b_finetuning": (MIXTRAL * 175 / 46.7,) * 2,
    "175b_verification": (MIXTRAL * 175 / 46.7,) * 2,
    WEAK: (MIXTRAL,) * 2,
    STRONG: (10.0, 30.0),
}
"""Dollars per million tokens of prompt and completion, the weakest model first."""
BASE = ("6b_verification", "175b_verification", WEAK)
"""The three best models but the strong one."""
EQUATION = re.compile(r"([\d.,$ +*/()-]*\d\s*[+*/-][\d.,$ +*/()-]*)=\s*\$?(-?[\d,]+(?:\.\d+)?)")

Agent = Callable[[str], Completion]


def agents(answers: pd.DataFrame) -> dict[str, Agent]:
    """Return a function for each model that looks its answer up."""

    def look_up(model: str, texts: dict[str, str], prompt: str) -> Completion:
        text = texts[prompt]
        asked, said = count_tokens(prompt), count_tokens(text)
        cost = (asked * PRICES[model][0] + said * PRICES[model][1]) / 1e6
        return Completion(text, model, "stop", Usage(asked, said, estimated=True), cost)

    found: dict[str, Agent] = {}
    for model in PRICES:
        found[model] = partial(look_up, model, dict(zip(answers["question"], answers[model], strict=True)))
        found[model].__name__ = model  # type: ignore[attr-defined]  # how reports call it
    return found


def sums_hold(_: str, answer: str) -> float:
    """Return the share of an answer's equations that hold, drawn a little to 2/3: few of them say less than many."""
    found = EQUATION.findall(answer)
    return (sum(holds(*sides) for sides in found) + 1) / (len(found) + 3 / 2)


def holds(left: str, right: str) -> bool:
    """Return whether both sides of an equation come to the same; there are only digits and signs in it."""
    if "**" in left:
        return False
    try:
        return abs(eval(re.sub("[$, ]", "", left), {}) - float(right.replace(",", ""))) < 0.01
    except (SyntaxError, TypeError, ArithmeticError):
        return False


def measured(name: str, pipeline: moa.Pipeline, data: pd.DataFrame) -> dict[str, Any]:
    """Return what a pipeline makes of the questions."""
    run = data.moa.start.synthesize("question", pipeline=pipeline).wait()
    right = [normalised(number(text)) == normalised(gold) for text, gold in zip(run.values, data["gold"], strict=True)]
    asked = run.by_model.loc[run.by_model["model"] == f"function:{STRONG}", "calls"].sum()
    return {
        "pipeline": name,
        "right": 100 * sum(right) / len(data),
        "strong": 100 * asked / len(data),
        "cost": 1000 * float(run.report["cost"].sum()) / len(data),
    }


def gated(models: dict[str, Agent]) -> Iterable[tuple[str, moa.Pipeline]]:
    """Yield what looks at answers: each model alone, votes, pyramids, cascades."""
    for model, agent in models.items():
        yield model, moa.Pipeline(layers=[[agent]])
    vote = partial(moa.Pipeline, strategy="pyramid", oracle=models[STRONG], agree=0)
    yield "vote of the five others", vote(base=[agent for name, agent in models.items() if name != STRONG])
    yield f"vote of {', '.join(BASE)}", vote(base=[models[name] for name in BASE])
    yield "vote of all six", vote(base=list(models.values()))
    for agree in (0.6, 0.67):
        of = "two of three" if agree < 2 / 3 else "all three"
        base = [models[name] for name in BASE]
        yield f"pyramid, {of} agree", vote(base=base, agree=agree)
    for other in ("6b_verification", "175b_verification"):
        yield f"pyramid, {other} and mixtral agree", vote(base=[models[other], models[WEAK]], agree=1)
    pair = [models[WEAK], models[STRONG]]
    for above in (0.5, 0.7, 0.8, 0.86, 0.9):
        recipe = moa.Pipeline(strategy="cascade", tiers=pair, scorer=sums_hold, accept_above=above)
        yield f"cascade from mixtral, sums hold > {above}", recipe


def routers(data: pd.DataFrame) -> dict[str, tuple[Any, list[float]]]:
    """Return routers, each with its scores of questions that it was not taught with."""
    taught, kept = data.iloc[::2], data.iloc[1::2]
    fails = [
        normalised(number(text)) != normalised(gold) for text, gold in zip(taught[WEAK], taught["gold"], strict=True)
    ]
    nearest = Nearest(examples=tuple(zip(taught["question"], map(float, fails), strict=True)), k=15)
    return {
        "nearest questions": (nearest, [float(nearest.word(text) or 0) for text in kept["question"]]),
        "length of the question": (question_length, [len(text) for text in data["question"]]),
    }


def question_length(question: str) -> float:
    """Return the characters of a question."""
    return float(len(question))


def table(rows: list[dict[str, Any]], strong: dict[str, Any]) -> str:
    """Return rows as a Markdown table, their cost beside that of the strong model alone."""
    lines = ["| | right, % | strong, % | cost, $ | of strong, % |", "|---|---:|---:|---:|---:|"]
    for row in rows:
        part = 100 * row["cost"] / strong["cost"]
        lines.append(
            f"| {row['pipeline']} | {row['right']:.1f} | {row['strong']:.1f} | {row['cost']:.3f} | {part:.1f} |"
        )
    return "\n".join(lines)


def main() -> int:
    """Return 0 once both tables are printed, 1 where the data are absent."""
    if not DATA.is_file():
        print(f"no recorded answers at {DATA}")
        return 1
    moa.configure(store="none")
    rows = [json.loads(line) for line in gzip.decompress(DATA.read_bytes()).decode().splitlines()]
    data = pd.DataFrame([{**row, **{model: row[model]["solution"] for model in PRICES}} for row in rows])
    models = agents(data)

    results = [measured(name, pipeline, data) for name, pipeline in gated(models)]
    alone = {row["pipeline"]: row for row in results}
    print(f"{len(data)} questions\n\n{table(results, alone[STRONG])}\n")
    flags = {model: sum(row[model]["is_correct"] for row in rows) for model in PRICES}
    print("right as recorded, %:", ", ".join(f"{model} {100 * n / len(rows):.1f}" for model, n in flags.items()), "\n")

    known, unseen = data.iloc[: len(data) // 2], data.iloc[len(data) // 2 :]
    weak, strong = (measured(name, moa.Pipeline(layers=[[models[name]]]), unseen) for name in (WEAK, STRONG))
    tested, recovered = [weak, strong], []
    for name, (router, scores) in routers(known).items():
        curve = []
        for fraction in (0.1, 0.25, 0.5, 0.75, 0.9):
            pipeline = moa.Pipeline(
                strategy="route",
                ways=[models[WEAK], models[STRONG]],
                router=router,
                thresholds=[calibrate(scores, fraction)],
            )
            tested.append(measured(f"{name}, calibrated to {fraction:.0%}", pipeline, unseen))
            curve.append((tested[-1]["strong"] / 100, tested[-1]["right"]))
        ends = [(0.0, weak["right"]), *curve, (1.0, strong["right"])]
        recovered.append(f"{name} {apgr(ends, weak['right'], strong['right']):.2f}")
    print(f"{len(unseen)} questions that routers had not seen\n\n{table(tested, strong)}\n")
    print("average performance gap recovered (0.5 is chance):", ", ".join(recovered))
    return 0


if __name__ == "__main__":
    sys.exit(main())
