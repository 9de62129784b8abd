"""The example notebooks' saved outputs and the README's tables are what the code gives.

    python tests/test_examples.py --update            # every notebook whose data are there
    python tests/test_examples.py --update quickstart 01-tickets

runs notebooks anew, with nothing configured, and saves them with their outputs.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import sys
import tempfile
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient
from nbformat import NotebookNode
from real_kernels import new_manager

ROOT = Path(__file__).parents[1]
EXAMPLES = ROOT / "examples"
README = ROOT / "README.md"
SHARED = ROOT.parent / "shared" / "data"
"""Recorded data, which are no part of the project; a notebook that needs them says so."""

NOTEBOOKS = sorted(file.stem for file in EXAMPLES.glob("*.ipynb"))

RECORDED = {name for name in NOTEBOOKS if "shared/data" in (EXAMPLES / f"{name}.ipynb").read_text("utf-8")}
"""Notebooks that read recorded data."""

NOBODY = "http://127.0.0.1:9"
"""A proxy that nobody listens on: a local server that happens to run here is not found."""

SECRET = b"the quickstart's fences are alike"[:32]
"""The key of the fences: with it, prompts and their tokens are the same wherever a notebook runs."""

WIDGET = "application/vnd.jupyter.widget-view+json"

MOST_BYTES = 400_000
"""Of a notebook; code hosts show no large ones."""

PLACES = re.compile(r"/(?:home|root|tmp|work|Users)/|[A-Z]:\\\\|127\.0\.0\.1:\d{5}|\bsk-\w{8}")
"""What tells where a notebook ran, or a key."""

DIFFERS = (
    (re.compile(r"\b\d{8}-\d{6}-[0-9a-f]{6}\b"), "RUN"),
    (re.compile(r"\b\d{4}-\d\d-\d\d \d\d:\d\d\b"), "MOMENT"),
    (re.compile(r"\b\d{4}-\d\d-\d\d\b"), "DAY"),
    (re.compile(r"<?\b\d+(\.\d+)? (ms|s|min)\b( \d+ s\b)?"), "TIME"),
    (re.compile(r"\b\d+(\.\d+)? [kM]B\b"), "SIZE"),
    (re.compile(r"\[[0-9a-f]{18}\]"), "FENCE"),
    # A run that a person stops is stopped wherever it is.
    (re.compile(r"stopped after \d+"), "stopped after SOME"),
    # pandas before 3.0 shows missing texts in another way.
    (re.compile(r"<NA>|\bNone\b"), "NaN"),
    # Seconds stand in a column of a comparison.
    (re.compile(r"(?m)^((?:single|pyramid|checked)  .*?  )\d+\.\d(?=  )"), r"\1TIME"),
    (re.compile(r"-{2,}"), "--"),
    (re.compile(r"\s+"), " "),
)
"""What is not the same on every run, with what stands for it."""


# Running them -------------------------------------------------------------------------------------


def environment(home: Path, *, serves: bool) -> dict[str, str]:
    """Return an environment with nothing configured and a home that is empty.

    Args:
        home: the home.
        serves: whether the notebook brings a server of its own, on this machine, and so must reach it.
    """
    from moa_nb import settings

    keys = {service.key_env for service in settings.services().values()}
    kept = {
        name: value
        for name, value in os.environ.items()
        if name not in keys and not name.startswith(("MOA_NB_", "XDG_")) and not name.lower().endswith("_proxy")
    }
    # Without "no_proxy" this machine is asked directly, and a server on it might be found.
    proxy = {} if serves else {"http_proxy": NOBODY, "no_proxy": "nowhere.invalid"}
    return {
        **kept,
        **proxy,
        "HOME": str(home),
        "MOA_NB_HOME": str(home / ".local" / "share" / "moa_nb"),
        "MPLBACKEND": "module://matplotlib_inline.backend_inline",
        "PYDEVD_DISABLE_FILE_VALIDATION": "1",
    }


def executed(name: str, folder: Path) -> NotebookNode:
    """Return a notebook as it comes out when it runs in a copy of ``examples/`` below ``folder``."""
    # Recorded data lie two folders above an example, as they do above the real one.
    copy, home = folder / "main" / "examples", folder / "home"
    shutil.copytree(EXAMPLES, copy)
    if SHARED.exists():
        (folder / "shared").mkdir()
        (folder / "shared" / "data").symlink_to(SHARED, target_is_directory=True)
    data = home / ".local" / "share" / "moa_nb"
    data.mkdir(parents=True)
    (data / "fence.key").write_bytes(SECRET)
    notebook = nbformat.read(EXAMPLES / f"{name}.ipynb", as_version=4)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    client = NotebookClient(
        notebook,
        timeout=300,
        startup_timeout=300,
        iopub_timeout=60,
        resources={"metadata": {"path": str(copy)}},
        store_widget_state=False,
        record_timing=False,
        allow_errors=True,
    )
    client.km = new_manager()  # given later, it is still the client's own, which ends it
    serves = any("moa_nb.testing" in cell.source for cell in code_cells(notebook))
    client.execute(env=environment(home, serves=serves))
    notebook.metadata = nbformat.from_dict(
        {
            "kernelspec": {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"},
            "language_info": {"name": "python"},
        }
    )
    return notebook


def update(name: str) -> None:
    """Run a notebook and save it with its outputs."""
    with tempfile.TemporaryDirectory() as folder:
        notebook = executed(name, Path(folder))
    for cell in code_cells(notebook):
        failed = [output.evalue for output in cell.outputs if output.output_type == "error"]
        if failed:
            sys.exit(f"{name} is left as it was, since a cell ends in an error: {failed[0]}")
        cell.outputs = [output for output in cell.outputs if not is_bar(output)]
    nbformat.validate(notebook)
    nbformat.write(notebook, EXAMPLES / f"{name}.ipynb")


# What they show -----------------------------------------------------------------------------------


def is_bar(output: NotebookNode) -> bool:
    """Return whether an output is a progress bar, as it goes on or as it ended: one appears where a run takes a while."""
    data = output.get("data", {})
    return WIDGET in data or re.match(r"moa: +\d+%\|", data.get("text/plain", "")) is not None


def shown(cell: NotebookNode) -> str:
    """Return what a cell shows as text, without what differs from run to run."""
    texts = []
    for output in cell.outputs:
        if output.output_type == "stream":
            texts.append(output.text)
        elif output.output_type == "error":
            texts.append(f"{output.ename}: {output.evalue}")
        elif not is_bar(output):
            texts.append(output.data["text/plain"])
    text = "\n".join(texts)
    for pattern, replacement in DIFFERS:
        text = pattern.sub(replacement, text)
    return text.strip()


def code_cells(notebook: NotebookNode) -> list[NotebookNode]:
    """Return the cells that run."""
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def read(name: str) -> NotebookNode:
    """Return a notebook as it lies there."""
    return nbformat.read(EXAMPLES / f"{name}.ipynb", as_version=4)


@pytest.fixture(scope="module")
def saved() -> NotebookNode:
    """Return the quickstart as it lies there."""
    return read("quickstart")


@pytest.mark.kernel
@pytest.mark.slow
@pytest.mark.parametrize("name", NOTEBOOKS)
def test_a_notebook_shows_what_it_was_saved_with(name: str, tmp_path: Path) -> None:
    """Nothing is configured, no cell ends in an error, and answers, tables and counts are those of the saved file."""
    if name in RECORDED:
        for library in ("matplotlib", "sklearn", "krippendorff"):
            pytest.importorskip(library, reason=f"{name} evaluates")
        if not SHARED.exists():
            pytest.skip(f"{name} needs the recorded data, and {SHARED} is not there")
    fresh, kept = executed(name, tmp_path), read(name)
    errors = [output for cell in code_cells(fresh) for output in cell.outputs if output.output_type == "error"]
    assert [f"{error.ename}: {error.evalue}" for error in errors] == []
    for now, then in zip(code_cells(fresh), code_cells(kept), strict=True):
        assert shown(now) == shown(then), (
            f"cell {then.execution_count} of {name}; if it should be so: python tests/test_examples.py --update {name}"
        )


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_a_notebook_is_saved_as_it_ran(name: str) -> None:
    """Every cell ran, once, in order; no widgets, no timings of cells, no errors, no foreign kernel, and not too large."""
    file, notebook = EXAMPLES / f"{name}.ipynb", read(name)
    nbformat.validate(notebook)
    cells = code_cells(notebook)
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    assert set(notebook.metadata) == {"kernelspec", "language_info"}
    assert notebook.metadata.kernelspec.name == "python3"
    assert all(cell.metadata == {} for cell in notebook.cells)
    outputs = [output for cell in cells for output in cell.outputs]
    assert all(output.output_type != "error" and WIDGET not in output.get("data", {}) for output in outputs)
    assert all(output.get("name") != "stderr" for output in outputs)
    assert file.stat().st_size < MOST_BYTES


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_a_notebook_tells_nothing_of_where_it_ran(name: str) -> None:
    """No folder of a machine, no port, no key, in cells or outputs."""
    for cell in read(name).cells:
        texts = [cell.source]
        for output in cell.get("outputs", []):
            texts += [
                output.get("text", ""),
                *(str(data) for kind, data in output.get("data", {}).items() if kind != "image/png"),
            ]
        found = [match.group() for text in texts for match in PLACES.finditer(text)]
        assert found == [], cell.source[:60]


def test_the_notebooks_are_numbered() -> None:
    """The quickstart stands alone; each other one has a number of its own, and says in its first cell what it shows."""
    numbers = [name[:2] for name in NOTEBOOKS if name != "quickstart"]
    assert numbers == [f"{number:02d}" for number in range(1, len(numbers) + 1)]
    for name in NOTEBOOKS:
        assert read(name).cells[0].source.startswith("# "), name


def test_the_reviews_are_as_the_quickstart_says() -> None:
    """Forty reviews under ids of their own, three of them empty, and the odd ones among them."""
    import pandas as pd

    reviews = pd.read_csv(EXAMPLES / "reviews.csv", index_col="id")
    assert list(reviews.columns) == ["product", "region", "date", "stars", "review"]
    assert (len(reviews), int(reviews["review"].isna().sum())) == (40, 3)
    assert reviews.index.is_unique
    assert reviews["stars"].between(1, 5).all()
    for odd in ("{{ fine }}", "<img", "☕", "Mühle", "静か"):
        assert reviews["review"].str.contains(odd, regex=False).sum() == 1, odd


def test_the_tickets_are_as_untidy_as_tickets_are() -> None:
    """Fifty-two of them: without a text, without a product, twice the same, in other languages, broken, hostile."""
    import pandas as pd

    tickets = pd.read_csv(EXAMPLES / "tickets.csv", index_col="id")
    assert list(tickets.columns) == ["opened", "product", "channel", "topic", "message"]
    assert (len(tickets), int(tickets["message"].isna().sum()), int(tickets["product"].isna().sum())) == (52, 2, 3)
    assert tickets.index.is_unique
    assert int(tickets["message"].dropna().duplicated().sum()) == 2
    assert int(tickets["topic"].notna().sum()) == 14
    for odd in ("{{ settings }}", "<script>", "Einstellring", "Très", "ケトル", "GrÃ¼ÃŸe", ";;crank"):
        assert tickets["message"].str.contains(odd, regex=False).sum() == 1, odd


# The README ---------------------------------------------------------------------------------------


def option_rows() -> list[str]:
    """Return the rows of the README's table of options, from the parser's own help."""
    from moa_nb.notebook.arguments import cell_parser

    rows = []
    for action in cell_parser()._actions:
        spelled = " ".join([", ".join(action.option_strings) or action.dest.upper(), action.metavar or ""]).strip()
        choices = f" ({', '.join(action.choices)})" if action.choices else ""
        rows.append(f"| `{spelled}` | {(action.help or '') % {}}{choices} |")
    return rows


def below(mark: str) -> list[str]:
    """Return the README's lines from ``<!-- mark -->`` to the next empty one, without the fences of code."""
    block = README.read_text("utf-8").partition(f"<!-- {mark} -->\n")[2].partition("\n\n")[0]
    return [line for line in block.splitlines() if not line.startswith("```")]


def test_the_readme_lists_the_options() -> None:
    """The table of ``%%moa``'s options is the parser's help, row for row."""
    assert below("options")[2:] == option_rows()


def test_the_readme_names_the_commands() -> None:
    """It names every word that ``%moa`` takes, and no other."""
    from moa_nb.notebook.arguments import COMMANDS

    assert set(re.findall(r"`%moa (\w+)", README.read_text("utf-8"))) == set(COMMANDS)


def test_the_readme_states_the_order_of_services() -> None:
    """Keys are looked for in the order that the README says, then local servers."""
    from moa_nb import settings

    services = settings.services().values()
    keys = [service.key_env for service in services if service.key_env and service.proposers]
    line = next(line for line in README.read_text("utf-8").splitlines() if line.startswith("1. a key"))
    assert re.findall(r"`([A-Z_]+)`", line) == keys


def test_the_readme_shows_pipelines_and_settings_that_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each TOML block of the README is read as what its first line says it is."""
    import tomllib

    import moa_nb as moa
    from moa_nb import settings
    from moa_nb.engine.engine import stop

    blocks = re.findall(r"```toml\n# (\S+)\n(.*?)```", README.read_text("utf-8"), re.DOTALL)
    assert [name for name, _ in blocks] == ["moa.toml", "templates/pipelines/careful.toml"]
    for name, text in blocks:
        tomllib.loads(text)
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, "utf-8")
    monkeypatch.chdir(tmp_path)
    for variable in [name for name in os.environ if name.startswith("MOA_NB_")]:
        monkeypatch.delenv(variable)
    for variable in ("LAB_KEY", "OPENAI_API_KEY"):
        monkeypatch.setenv(variable, "no key")
    monkeypatch.setenv("MOA_NB_HOME", str(tmp_path / "home"))
    (tmp_path / "templates" / "prompts").mkdir()
    (tmp_path / "templates" / "prompts" / "verdict.jinja").write_text(
        "{{ references | join(fence) }}{{ question }}{{ agent }}", "utf-8"
    )
    settings.reset()
    stop()
    try:
        # Its models have prices, as its budget asks for; nothing is sent.
        priced = moa.estimate("Hello")
        assert (priced.pipeline, priced.n_calls, priced.n_unpriced) == ("moa-lite", 4, 0)
        assert moa.estimate("Hello", pipeline="careful").n_calls == 6
    finally:
        stop()


def test_the_readmes_python_parses() -> None:
    """Its cells are Python, once magics are taken out, and its links lead somewhere."""
    text = README.read_text("utf-8")
    for block in re.findall(r"```python\n(.*?)```", text, re.DOTALL):
        if not block.startswith("%%"):
            compile(block, "README.md", "exec")
    for target in re.findall(r"\]\(([^)#]+)\)", text):
        assert target.startswith("http") or (ROOT / target).exists(), target


@pytest.mark.parametrize("mark", ["answer", "dry-run"])
def test_the_readme_shows_what_the_quickstart_shows(mark: str, saved: NotebookNode) -> None:
    """Each line that stands in the README as output is one of the quickstart's."""
    lines = [line for line in below(mark) if line != "…"]
    texts = [output.get("text") or output.data["text/plain"] for cell in code_cells(saved) for output in cell.outputs]
    known = {line for text in texts for line in text.splitlines()}
    assert lines
    assert [line for line in lines if line not in known] == []


def test_the_readme_shows_what_comes_of_a_column(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The three rows in the README are what the offline agents answer."""
    import pandas as pd

    from moa_nb.engine.engine import stop

    monkeypatch.setenv("MOA_NB_HOME", str(tmp_path))
    reviews = pd.read_csv(EXAMPLES / "reviews.csv", index_col="id").loc[[1005, 1007, 1021]]
    stop()
    try:
        in_short = reviews.moa.synthesize(
            "review",
            instruction="Summarize in one sentence",
            progress=False,
            pipeline="moa-lite",
            models=["offline:textrank", "offline:lexrank", "offline:lsa", "offline:lead"],
            aggregator="offline:consensus",
        )
    finally:
        stop()
    rows = [f"{label}: {'nan' if pd.isna(value) else repr(value)}" for label, value in in_short.items()]
    assert [line.strip(" {},") for line in below("reviews")] == rows


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Run the notebooks with nothing configured.")
    parser.add_argument("--update", nargs="*", metavar="NAME", help="save these, or all, with their outputs")
    chosen = parser.parse_args().update
    if chosen is None:
        sys.exit("nothing done: with --update notebooks are run and saved; their tests run under pytest")
    for each in chosen or [name for name in NOTEBOOKS if name not in RECORDED or SHARED.exists()]:
        update(each)
