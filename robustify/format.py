"""Numbers as text for people."""

from collections.abc import Sequence
from decimal import ROUND_CEILING, ROUND_FLOOR, Context, Decimal


def duration(seconds: int | float) -> str:
    """A time in its two largest units, such as "2 h 5 min"."""
    if seconds < 60:
        return f"{seconds:.3g} s" if seconds < 10 else f"{seconds:.0f} s"
    whole = round(seconds)
    for name, unit, smaller, part in (("d", 86_400, "h", 3_600), ("h", 3_600, "min", 60), ("min", 60, "s", 1)):
        if whole >= unit:
            return f"{whole // unit} {name} {whole % unit // part} {smaller}"
    return f"{whole} s"


def memory(size: int | float) -> str:
    """A number of bytes in the largest unit of which it has at least one, such as "3 MiB"."""
    for name in ("B", "KiB", "MiB"):
        if size < 1024:
            return f"{size:.3g} {name}"
        size /= 1024
    return f"{size:.3g} GiB"


def floor(value: float, digits: int = 3) -> float:
    """A number rounded down to so many decimals, so that nothing shown exceeds what is proven."""
    return float(Decimal(value).quantize(Decimal(1).scaleb(-digits), rounding=ROUND_FLOOR))


def at_most(value: float) -> str:
    """A number as text of at most 6 digits, rounded up, so that no chance of error looks smaller than it is."""
    return f"{float(Context(prec=6, rounding=ROUND_CEILING).create_decimal(repr(value))):g}"


def table(lines: Sequence[Sequence[str]]) -> str:
    """Lines of text in columns, the first of them the headings; columns of numbers, or without any, to the right.

    Arguments:
        lines: Cells of each line, equally many.
    """
    columns = list(zip(*lines, strict=True))
    widths = [max(map(len, column)) for column in columns]
    right = [all(cell[:1].isdigit() or cell in ("–", "…", "") for cell in column[1:]) for column in columns]
    return "\n".join(
        "  ".join(c.rjust(w) if r else c.ljust(w) for c, w, r in zip(line, widths, right, strict=True)).rstrip()
        for line in lines
    )
