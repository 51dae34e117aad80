"""Arguments of wrong types or out of range, as users without a type checker pass them.

In a process of its own, without the run-time type checks of the other tests, which would raise errors of theirs first.
"""

import json
import subprocess
import sys

import pytest

SCRIPT = """
import json, math
import numpy as np
from torch import nn
from robustify import Preprocessing, Settings, robustify

network = nn.Sequential(nn.Flatten(), nn.Linear(16, 3)).eval()
plain = Preprocessing(mean=(0.0,), std=(1.0,), size=(4, 4))

def settings(**options):
    return Settings(**options)

def sigma(**options):
    return robustify(network, preprocessing=plain, **options)

def patches(**options):
    from robustify.certificates.patch_cleanser import PatchCleanser
    return PatchCleanser(**{"patch": 0.02, **options})

def bands(**options):
    from robustify.certificates.band_smoothing import BandSmoothing
    return BandSmoothing(**{"patch": 0.02, "band": 4, **options})

def size(**options):
    return Preprocessing(**{"mean": (0.0,), "std": (1.0,), "size": (4, 4), **options})

def run(**options):
    from robustify import certify_dataset
    from robustify.data import Sample
    sample = Sample("a", np.zeros((4, 4), np.uint8), options.pop("true", None))
    return certify_dataset(options.pop("model", robustify(network, preprocessing=plain)), [sample], "never", **options)

cases = [
    *[(settings, "seed", value) for value in ("a", True, 1.5, -1, 2**128)],
    *[(settings, "batch", value) for value in (True, "64", 0)],
    *[(settings, "n", value) for value in ("100", True, 1e4)],
    *[(settings, "n_max", value) for value in (1e4, None)],
    *[(settings, "n0", value) for value in (True, None)],
    *[(settings, "alpha", value) for value in ("0.1", True, None, math.nan, 1.0)],
    *[(settings, "radius", value) for value in ("0.5", True, [0.1, "a"], [], [0.1, math.nan], -0.5, {0.5: 1})],
    *[(settings, "family_wise", value) for value in ("no", 1)],
    *[(settings, "known_label", value) for value in ("yes", 0)],
    *[(sigma, name, value) for name in ("compiled", "gray") for value in ("no", 1)],
    *[(sigma, "device", value) for value in ("meta", "nowhere")],
    *[(size, "mean", value) for value in ((math.nan,), (math.inf,))],
    *[(size, "std", value) for value in ((math.nan,), (math.inf,), (0.0,))],
    (size, "size", (4.7, 4)),
    *[(run, "settings", value) for value in ({"n": 100}, "fast")],
    *[(run, "model", value) for value in (None, 3)],
    *[(run, "true", value) for value in (-1, 3, True, 1.5, "0")],
    *[(sigma, "sigma", value) for value in (True, "0.5", math.nan, -1.0)],
    *[(patches, "patch", value) for value in (True, "big", 5, 2.0, math.nan, None, (5,), [(5, 5, 5)], (2.5, 2))],
    *[(patches, name, value) for name in ("masks", "stride") for value in (True, "6", 2.5, 0)],
    *[(patches, "patches", value) for value in (True, "1", 1.0, None, 3)],
    *[(bands, "patch", value) for value in (True, "big", 5, 2.0, math.nan, None, (5,), (2.5, 2), [(1, 2), (2, 1)])],
    *[(bands, "band", value) for value in (True, "4", 2.5, 0, None)],
    *[(bands, "stride", value) for value in (True, 1.5, 0)],
    *[(bands, "keep", value) for value in ("all", ["rows"], None)],
    *[(bands, "drop_tokens", value) for value in ("no", 1)],
]
found = []
for call, name, value in cases:
    try:
        call(**{name: value})
        found.append((name, repr(value), "accepted", ""))
    except Exception as error:
        found.append((name, repr(value), type(error).__name__, str(error)))
radii = [Settings(radius=r).radii for r in (np.array([0.2, 0.1]), (0.2, np.float32(0.1)), {0.1, 0.2}, np.float64(0.1))]
print(json.dumps([found, radii]))
"""


@pytest.fixture(scope="module")
def outcome() -> tuple[list[tuple[str, str, str, str]], list[list[float]]]:
    command = [sys.executable, "-c", SCRIPT]
    found, radii = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    return found, radii


def test_each_is_refused_by_our_own_error_that_names_the_option_and_what_was_given(
    outcome: tuple[list[tuple[str, str, str, str]], list[list[float]]],
) -> None:
    found, _ = outcome
    assert len(found) == 100
    for name, value, kind, text in found:
        known = value in text or text.endswith(("got dict", "got str", "got int", "got NoneType"))
        assert (kind, known) == ("InputError", True), (name, value, text)


def test_radii_come_in_any_collection_of_numbers(
    outcome: tuple[list[tuple[str, str, str, str]], list[list[float]]],
) -> None:
    assert outcome[1] == [pytest.approx(radii) for radii in ([0.1, 0.2], [0.1, 0.2], [0.1, 0.2], [0.1])]
