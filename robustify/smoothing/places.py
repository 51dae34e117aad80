"""How draws and probes share the places of a batch; without torch, for settings read it."""

PROBES = 8
"""Images whose logits are known, shown among the draws."""

EVERY = 32
"""One place of so many is a probe's."""


def probes_in_first(batch: int) -> int:
    """Number of probes in the first batch of a run: a quarter of it at most; none in batches of one image."""
    return max(min(1, batch - 1), min(PROBES, batch // 4))


def batch_with_probes(draws: int) -> int:
    """The smallest batch that, as the first of a run, has room for so many draws."""
    return draws + max(1, min(PROBES, draws // 3))
