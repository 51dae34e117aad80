"""Runs of robustify 0.1, read as runs of today. Their seeds gave other noise, so their rows cannot be drawn again."""

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
from scipy.special import ndtr, ndtri

from robustify.certificates.family import Bound, Look, Tally
from robustify.certificates.queries import ESTIMATION, SELECTION
from robustify.errors import RunError
from robustify.runs.rows import Row, read_table, unreadable

_PLAN = ("rule", "sigma", "alpha", "n0", "n", "slack")
_SAME = ("robustify", "labels", "soundness", "samples", "samples_sha256", "seed", "fresh")
NEEDED = (*_PLAN, *_SAME, "classifier", "classifier_sha256", "denoiser", "denoiser_sha256", "dtype", "contract")
"""Keys without which such a run cannot be read."""


def wrote(config: object) -> bool:
    """Whether robustify 0.1 wrote this content of a `run.json`."""
    return isinstance(config, dict) and "rule" in config and "format" not in config


def refuse(folder: Path, config: Mapping[str, Any]) -> None:
    """Raises `RunError` where rows of a run of robustify 0.1 would have to be drawn again."""
    if config.get("format") == 1:
        raise RunError(
            f"the run in {str(folder)!r} was made by robustify 0.1, whose seeds gave other noise: its rows cannot be "
            "drawn again.\n  Status, report and verification of its claims still work; certify into another folder."
        )


def configuration(old: Mapping[str, Any]) -> dict[str, Any]:
    """The configuration as data of today."""
    denoiser, _, description = old["denoiser"].partition(": ")
    weights, *rest = old["dtype"].split(", ")
    precision = next((part.removesuffix(" autocast") for part in rest if part.endswith(" autocast")), "float32")
    sides = map(int, re.findall(r"\d+", old["contract"])[:3])
    return {
        "format": 1,
        **{name: old[name] for name in _SAME},
        **{name: old.get(name) for name in ("family_alpha", "attempt", "attempts_alpha")},
        "family": "gaussian",
        "plan": {name: old[name] for name in (*_PLAN, "radii") if name in old},
        "classifier": {"name": old["classifier"], "sha256": old["classifier_sha256"]},
        "denoiser": {"name": denoiser, "description": description, "sha256": old["denoiser_sha256"]},
        "numerics": {"weights": weights, "precision": precision, "compiled": "compiled" in rest},
        "contract": dict(zip(("channels", "height", "width"), sides, strict=True)),
    }


def read_rows(file: Path, config: Mapping[str, Any]) -> list[Row]:
    """The rows of a Parquet file, which copied plan, seed and soundness into each.

    Raises:
        RunError: If the file cannot be read, or a copy differs from the configuration.
    """
    try:
        records = read_table(file).to_pylist()
        copies = {**config["plan"], "seed": config["seed"], "soundness": config["soundness"]}
        wrong = [(r["sample"], name) for r in records for name, value in copies.items() if r[name] != value]
        if wrong:
            raise ValueError(f"the row of {wrong[0][0]!r} has another {wrong[0][1]} than run.json")
        return [_row(record) for record in records]
    except (OSError, KeyError, TypeError, ValueError, pa.ArrowException) as error:
        raise unreadable(file, error) from error


def _row(record: Mapping[str, Any]) -> Row:
    selection, looks = tuple(record["selection"]), tuple(Look(*look) for look in record["looks"])
    label = selection.index(max(selection)) if selection else record["truth"]
    chosen = (Tally(0, SELECTION, record["n0"], selection),) if selection else ()
    drawn = looks[-1].n if looks else 0
    tested = Tally(0, ESTIMATION, drawn, tuple(record["votes"]), label, looks)
    kept = {name: record[name] for name in ("sample", "truth", "label", "radius", "batch", "pixels", "seconds")}
    return Row(**kept, bounds=(Bound(record["p_lower"], record["p_upper"]),), tallies=(*chosen, tested))


def total_variation(sigma: float, dimensions: int) -> float:
    """The bound on how far the grid noise of robustify 0.1, rounded quantiles of uniforms, was from a Gaussian's."""
    scale, grain, error = 255 * sigma, 2.0**-53, 1e-14 + 3 * 2.0**-53
    largest = -float(ndtri(grain / 2))
    at_0, at_1 = (math.exp(-x / 2) / math.sqrt(2 * math.pi) for x in (0, 1))
    pairs = math.floor(scale * largest * (1 - 2 * error) + 0.5)
    arithmetic = 2 * error / (1 - 2 * error) ** 2 * min(pairs * at_1, scale * at_0 + at_1)
    tails = [float(ndtr(-(pairs + half) / scale)) for half in (0.5, 1.5)]
    near = grain - tails[0] if (pairs + 0.5) / scale < largest * (1 + 2 * error) else 0.0
    return dimensions * (pairs * grain + arithmetic + 2 * (max(tails[0], near) + tails[1])) * (1 + 1e-9)
