"""Strategies on the offline agents: what needs no judgement runs, the rest is refused before any work."""

from __future__ import annotations

import warnings

import pandas as pd
import pytest

import moa_nb as moa
from moa_nb.errors import SetupError
from moa_nb.pipeline import presets

TEXT = "The mill closed in May. Forty people lost their work. The town bought the mill. It opens as a school in June."

JUDGED = {
    "attention-moa",
    "automix",
    "cascade",
    "judge",
    "judge-pairwise",
    "rank-and-fuse",
    "route",
    "smoa",
    "universal-self-consistency",
}


@pytest.mark.parametrize("name", sorted(JUDGED))
def test_what_needs_a_judge_is_refused_in_one_line(name: str) -> None:
    """It says who cannot judge and what to do; no layer was asked, and a dry run says the same."""
    for ask in (moa.run, moa.estimate):
        with pytest.raises(SetupError, match=rf"'{name}' asks for a judgement, and offline:\w+ only picks") as raised:
            ask("Summarize in one sentence: " + TEXT, pipeline=name)
        assert "\n" not in str(raised.value)
        assert raised.value.result is None


def test_a_judge_within_is_refused_as_well() -> None:
    """A frame learns it before its first row, whichever pipeline within needs the judge."""
    frame = pd.DataFrame({"text": [TEXT]})
    pipeline = moa.Pipeline(layers=[["judge", "offline:lead"], ["offline:consensus"]])
    with pytest.raises(SetupError, match="'judge' asks for a judgement"):
        frame.moa.synthesize("text", instruction="Summarize in one sentence", pipeline=pipeline, progress=False)


def test_a_function_may_judge() -> None:
    """Only the judge has to be somebody who can: the tiers pick sentences."""
    tiers = ["offline:lead", "offline:textrank"]
    pipeline = moa.Pipeline(strategy="cascade", tiers=tiers, scorer=lambda question, answer: 0.9)
    assert moa.run("Summarize in one sentence: " + TEXT, pipeline=pipeline).accepted


@pytest.mark.parametrize("name", sorted(set(presets.names()) - JUDGED))
def test_what_needs_none_answers(name: str) -> None:
    """With sentences of the text, and nothing of our own prompts."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        result = moa.run("Summarize in one sentence: " + TEXT, pipeline=name)
    assert result.error is None
    assert all(sentence.strip(". ") in TEXT for sentence in result.text.split(". ")), result.text
