"""What a run would take is known without a key; a run checks its keys before it sends anything."""

from __future__ import annotations

import pandas as pd
import pytest
from IPython.core.interactiveshell import InteractiveShell
from magics import shell_fixture  # noqa: F401 - a fixture

import moa_nb as moa
from moa_nb.errors import KeyRejected


def test_an_estimate_needs_no_key() -> None:
    """Nothing is sent, so that a price can be known before a key is bought; the run itself refuses at once."""
    frame = pd.DataFrame({"text": ["One?", "Two?"]})
    options = {"pipeline": "single", "aggregator": "openai:gpt-4o-mini"}
    assert frame.moa.estimate.synthesize("text", **options).cost
    assert moa.estimate("One?", **options).cost
    with pytest.raises(KeyRejected, match="OPENAI_API_KEY"):
        frame.moa.synthesize("text", **options, progress=False)
    with pytest.raises(KeyRejected, match="OPENAI_API_KEY"):
        moa.run("One?", **options)


def test_a_dry_run_needs_no_key(shell: InteractiveShell, capsys: pytest.CaptureFixture[str]) -> None:
    """Nor does the cell that only shows what would be sent."""
    shell.run_line_magic("load_ext", "moa_nb")
    capsys.readouterr()
    moa.configure(aggregator="openai:gpt-4o-mini")
    shell.run_cell_magic("moa", "--dry-run -p single", "Why?")
    assert "$" in capsys.readouterr().out


def test_a_comparison_is_priced_without_a_key() -> None:
    """Pipelines and their judge are priced together before a key is bought; the comparison itself refuses at once."""
    frame = pd.DataFrame({"text": ["The mill closed in May. It was old.", "It rained. The river rose."]})
    said = {"judge": "openai:gpt-4o-mini", "instruction": "Summarize in one sentence"}
    estimate = moa.compare.estimate(frame, "text", ["single", "moa-lite"], **said)
    assert estimate.cost
    with pytest.raises(KeyRejected, match="OPENAI_API_KEY"):
        moa.compare(frame, "text", ["single", "moa-lite"], progress=False, **said)
