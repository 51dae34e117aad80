"""How draws and probes share the places of a batch; without torch, for settings read it."""

PROBES = 8
"""Images whose logits are known, shown among the draws."""

EVERY = 64
"""One place of so many is a probe's."""


def probes_in_first(batch: int) -> int:
    """Number of probes in the first batch of a run: one of 32 places; none in batches of one image."""
    return max(min(1, batch - 1), min(PROBES, batch // 32))


def batch_with_probes(draws: int) -> int:
    """The smallest batch that, as the first of a run, has room for so many draws."""
    return draws + min(PROBES, -(-draws // 31))
