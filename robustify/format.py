"""Numbers as people read them."""

from decimal import ROUND_CEILING, ROUND_FLOOR, Context, Decimal


def duration(seconds: int | float) -> str:
    """A time in its two largest units."""
    if seconds < 60:
        return f"{seconds:.3g} s" if seconds < 10 else f"{seconds:.0f} s"
    whole = round(seconds)
    for name, unit, smaller, part in (("d", 86_400, "h", 3_600), ("h", 3_600, "min", 60), ("min", 60, "s", 1)):
        if whole >= unit:
            return f"{whole // unit} {name} {whole % unit // part} {smaller}"
    return f"{whole} s"


def memory(size: int | float) -> str:
    """A number of bytes in the largest unit of which it holds one."""
    for name in ("B", "KiB", "MiB"):
        if size < 1024:
            return f"{size:.3g} {name}"
        size /= 1024
    return f"{size:.3g} GiB"


def floor(value: float, digits: int = 3) -> float:
    """The number rounded down, never up, to so many decimals: what is shown may not exceed what is proven."""
    return float(Decimal(value).quantize(Decimal(1).scaleb(-digits), rounding=ROUND_FLOOR))


def at_most(value: float) -> str:
    """The number in at most 6 digits, rounded up: no chance of error looks smaller than it is."""
    return f"{float(Context(prec=6, rounding=ROUND_CEILING).create_decimal(repr(value))):g}"
