"""ROUGE of the offline agents on 618 paper abstracts with summaries by people (SciTLDR's test part).

    python tests/benchmarks/rouge_offline.py [--rows N]

Prints a Markdown table: mean F1 of ROUGE-1, ROUGE-2 and ROUGE-L (``rouge-score``, with stemming) at one and
at two sentences. An abstract has several summaries by people: the best match of the three measures, each on
its own, counts. The intervals are 95 % paired bootstrap intervals of the difference to lead (2,000 resamples
of the abstracts, the same for every agent).

``moa`` is three layers: the four proposers; the four again, with the first proposals as references; the
consensus of the second ones. ``random`` takes sentences of the abstract by a seeded draw.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import io
import json
import random
import statistics
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np

from moa_nb.chat import Message, Request
from moa_nb.providers.offline import answer

DATA = Path(__file__).parents[3] / "shared" / "data" / "text_tables" / "scitldr_test.csv.gz"
PROPOSERS = ("textrank", "lexrank", "lsa", "lead")
MEASURES = ("rouge1", "rouge2", "rougeL")
INSTRUCTIONS = {1: "Summarize in one sentence", 2: "Summarize in two sentences"}
MARGIN = 0.3
"""ROUGE-1 points (of 100) that the consensus may be below the median proposer."""


def ask(name: str, abstract: str, instruction: str, references: tuple[str, ...] = ()) -> str:
    """Return what agent ``name`` answers about the abstract."""
    messages = (Message("user", f"{instruction}\n\n{abstract}"),)
    return answer(Request(f"offline:{name}", messages, references=references, material=abstract)).text


def systems(abstract: str, n_sentences: int, draw: random.Random) -> dict[str, str]:
    """Return every system's summary of one abstract."""
    from moa_nb.providers.offline.sentences import split

    instruction = INSTRUCTIONS[n_sentences]
    first = {name: ask(name, abstract, instruction) for name in PROPOSERS}
    second = tuple(ask(name, abstract, instruction, tuple(first.values())) for name in PROPOSERS)
    sentences = split(abstract)
    at = sorted(draw.sample(range(len(sentences)), min(n_sentences, len(sentences))))
    return {
        **first,
        "consensus": ask("consensus", abstract, instruction, tuple(first.values())),
        "moa": ask("consensus", abstract, instruction, second),
        "random": " ".join(sentences[number].text for number in at),
    }


def best_scores(scorer: Callable[[str, str], dict[str, float]], summaries: list[str], text: str) -> list[float]:
    """Return the three measures, each the best over the summaries by people."""
    found = [scorer(summary, text) for summary in summaries]
    return [100 * max(one[measure] for one in found) for measure in MEASURES]


def interval(differences: np.ndarray, draws: np.ndarray) -> tuple[float, float]:
    """Return the 95 % bootstrap interval of the mean difference."""
    low, high = np.percentile(differences[draws].mean(axis=1), [2.5, 97.5])
    return float(low), float(high)


def main() -> int:
    """Return 0, or 1 where the consensus is further below the median proposer than it may be."""
    parser = argparse.ArgumentParser(description="ROUGE of the offline agents on SciTLDR")
    parser.add_argument("--rows", type=int, default=None, help="only the first N abstracts")
    rows = parser.parse_args().rows
    if not DATA.exists():
        print(f"absent: {DATA}; nothing was measured")
        return 0
    from rouge_score.rouge_scorer import RougeScorer

    rouge = RougeScorer(list(MEASURES), use_stemmer=True)

    def scorer(summary: str, text: str) -> dict[str, float]:
        return {measure: score.fmeasure for measure, score in rouge.score(summary, text).items()}

    with gzip.open(DATA, "rt", encoding="utf-8", newline="") as file:
        papers = list(csv.DictReader(io.StringIO(file.read())))[:rows]
    print(f"{len(papers)} abstracts of SciTLDR; F1 x 100, the best over each abstract's summaries by people.\n")
    print("| sentences | agent | ROUGE-1 | ROUGE-2 | ROUGE-L | ROUGE-1 less lead, 95 % interval | words |")
    print("|---|---|---|---|---|---|---|")
    draws = np.random.default_rng(7).integers(0, len(papers), (2000, len(papers)))
    is_kept = True
    closing: list[str] = []
    for n_sentences in INSTRUCTIONS:
        draw = random.Random(n_sentences)
        found: dict[str, list[list[float]]] = {}
        words: dict[str, list[int]] = {}
        for paper in papers:
            summaries = json.loads(paper["tldrs"])
            for name, text in systems(paper["abstract"], n_sentences, draw).items():
                found.setdefault(name, []).append(best_scores(scorer, summaries, text))
                words.setdefault(name, []).append(len(text.split()))
        tables = {name: np.array(rows_of) for name, rows_of in found.items()}
        means = {name: table.mean(axis=0) for name, table in tables.items()}
        for name, table in tables.items():
            low, high = interval(table[:, 0] - tables["lead"][:, 0], draws)
            difference = f"{means[name][0] - means['lead'][0]:+.2f} [{low:+.2f}, {high:+.2f}]" if name != "lead" else ""
            figures = " | ".join(f"{value:.2f}" for value in means[name])
            print(f"| {n_sentences} | {name} | {figures} | {difference} | {statistics.mean(words[name]):.1f} |")
        median = statistics.median(float(means[name][0]) for name in PROPOSERS)
        gap = float(means["consensus"][0]) - median
        is_kept = is_kept and gap >= -MARGIN
        closing.append(
            f"At {n_sentences} sentence(s) the consensus is {gap:+.2f} ROUGE-1 from the median proposer ({median:.2f}), "
            f"and may be {-MARGIN}: {'kept' if gap >= -MARGIN else 'NOT KEPT'}."
        )
    print("\n" + "\n".join(closing))
    return 0 if is_kept else 1


if __name__ == "__main__":
    sys.exit(main())
