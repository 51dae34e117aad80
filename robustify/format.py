"""Numbers as people read them."""


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
