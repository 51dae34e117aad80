"""Answers for several images: a list that shows itself as a table."""

from collections.abc import Iterable, Sequence
from html import escape
from typing import Protocol, TypeVar, final

from robustify.format import table

ENDS = 20
"""Answers that a long table shows at its beginning, and at its end."""

TOP = 3
"""Classes whose votes a `repr` shows."""


class Answer(Protocol):
    """A certificate or a prediction."""

    def summary(self) -> dict[str, str]:
        """A few words under each heading of a table."""
        ...


T = TypeVar("T", bound=Answer)


@final
class Answers(list[T]):
    """Certificates or predictions of a batch, in its order: a list, shown as a table in terminals and notebooks."""

    def __repr__(self) -> str:
        return table(self._table()) if self else "[]"

    def _repr_html_(self) -> str:
        """The table as notebooks show it."""
        heading, *lines = self._table() if self else [[]]
        body = "".join(_line(cells, "td") for cells in lines)
        return f"<table><thead>{_line(heading, 'th')}</thead><tbody>{body}</tbody></table>"

    def _table(self) -> list[list[str]]:
        """Headings and lines; the middle is left out where there are many."""
        lines = [[str(i), *self[i].summary().values()] for i in self._shown()]
        if len(self) > 2 * ENDS:
            lines.insert(ENDS, ["…"] * len(lines[0]))
        return [["", *self[0].summary()], *lines]

    def _shown(self) -> list[int]:
        every = list(range(len(self)))
        return every if len(every) <= 2 * ENDS else every[:ENDS] + every[-ENDS:]


def top_votes(votes: Sequence[int]) -> str:
    """The most frequent classes and their votes, as a Python dictionary would show them."""
    ranked = sorted((c for c, count in enumerate(votes) if count), key=lambda c: -votes[c])
    shown = [f"{c}: {votes[c]}" for c in ranked[:TOP]] + ["…"] * (len(ranked) > TOP)
    return f"{{{', '.join(shown)}}}"


def _line(cells: Iterable[str], tag: str) -> str:
    return f"<tr>{''.join(f'<{tag}>{escape(cell)}</{tag}>' for cell in cells)}</tr>"
