"""One version of the templates over a few rows, side by side with what another one said."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from moa_nb.panels.figures import dollars, share
from moa_nb.panels.provenance import MIME_TYPE, records
from moa_nb.panels.tables import TableDisplay, table
from moa_nb.pipeline.result import Result
from moa_nb.pipeline.similarity import similarity

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Trial", "Tried"]


@dataclass(frozen=True)
class Tried:
    """One row of a trial."""

    position: int
    """From 0."""
    label: str
    result: Result | None
    """Its run; ``None`` where it failed before anything was asked."""
    before: str | None
    """What the other version answers; ``None`` where the store does not know."""
    error: str | None = None
    """Why there is no answer; ``None`` where there is one."""

    @property
    def text(self) -> str | None:
        """The answer."""
        return None if self.error is not None or self.result is None else self.result.text

    @property
    def agreement(self) -> float | None:
        """How far the agents agree, 0 to 1; ``None`` where one alone was asked."""
        return None if self.result is None else self.result.agreement

    @property
    def alike(self) -> float | None:
        """How like the other version's answer it is, 0 to 1; ``None`` where one of the two is missing."""
        return None if self.text is None or self.before is None else similarity(self.before, self.text)

    @property
    def cost(self) -> float | None:
        """Dollars paid now; ``None`` where a price is not known."""
        return 0.0 if self.result is None else self.result.cost


@dataclass(frozen=True, repr=False)
class Trial:
    """The same templates over several rows."""

    version: str
    """What the version is called that was run."""
    against: str
    """The one beside it."""
    rows: tuple[Tried, ...]

    @property
    def cost(self) -> float | None:
        """Dollars paid for all rows; ``None`` where a price is not known."""
        costs = [row.cost for row in self.rows]
        return None if None in costs else sum(cost for cost in costs if cost is not None)

    @property
    def agreement(self) -> float | None:
        """The mean agreement of the agents, 0 to 1; ``None`` where it is known of no row."""
        known = [row.agreement for row in self.rows if row.agreement is not None]
        return sum(known) / len(known) if known else None

    def to_frame(self) -> pd.DataFrame:
        """Return a row for each row: its label, both answers, how alike they are, agreement, cost, error."""
        import pandas as pd

        columns = ["position", "label", "before", "text", "alike", "agreement", "cost", "error"]
        return pd.DataFrame([[getattr(row, name) for name in columns] for row in self.rows], columns=columns)

    @property
    def headers(self) -> tuple[str, ...]:
        """The headings of the table."""
        return ("row", self.against, self.version, "alike", "agreement", "$", "sent")

    @property
    def cells(self) -> Iterator[tuple[str, ...]]:
        """The lines of the table, as text."""
        for row in self.rows:
            n_sent = 0 if row.result is None else sum(not call.cached for call in row.result.calls)
            yield (
                row.label,
                "–" if row.before is None else row.before,
                row.error if row.text is None else row.text,  # type: ignore[misc]  # one of the two is there
                share(row.alike),
                share(row.agreement),
                dollars(row.cost),
                str(n_sent),
            )

    @property
    def caption(self) -> str:
        """What all rows came to, in one line."""
        alike = [row.alike for row in self.rows if row.alike is not None]
        said = [f"{len(self.rows)} rows", f"${dollars(self.cost)}"]
        if self.agreement is not None:
            said.append(f"agreement of the agents {share(self.agreement)}")
        if alike:
            said.append(f"{sum(one == 1 for one in alike)} of {len(alike)} answers unchanged")
        return ", ".join(said)

    @property
    def _table(self) -> TableDisplay:
        return table([*self.cells], self.headers, self.caption)

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, Any]:  # noqa: ARG002 - IPython's
        shown = self._table
        return {
            "text/html": shown._repr_html_(),
            "text/markdown": shown._repr_markdown_(),
            "text/plain": repr(shown),
            MIME_TYPE: records([row.result for row in self.rows if row.result is not None]),
        }

    def __repr__(self) -> str:
        return repr(self._table)
