import numpy as np
import pytest
from scipy.stats import binom, chisquare

from robustify.certificates.lattice import thresholds
from robustify.errors import InputError
from robustify.smoothing.sampler import LatticeSampler, lattice_sampler

SIGMAS = [0.001, 0.05, 0.12, 0.25, 1.0, 3.0]


def words(count: int, seed: int) -> np.ndarray:
    return np.random.Philox(key=seed).random_raw(count)


def drawn(sigma: float, whole: np.ndarray) -> np.ndarray:
    """Noise of whole words, given to the sampler in two parts."""
    sampler, leading = lattice_sampler(sigma), (whole >> np.uint64(48)).astype(np.uint16)
    undecided = np.flatnonzero(sampler.guide[leading] == np.iinfo(np.int16).min)
    return sampler.draw(leading, lambda count: (whole[undecided] << np.uint64(16))[:count])


def plain(sigma: float, whole: np.ndarray) -> np.ndarray:
    """The definition: half the number of thresholds less than how many a word reaches."""
    table = np.array(thresholds(sigma), dtype=np.uint64)
    return np.searchsorted(table, whole, side="right") - len(table) // 2


@pytest.mark.parametrize("sigma", SIGMAS)
def test_the_table_and_the_rest_are_the_definition_bit_for_bit(sigma: float) -> None:
    whole = words(400_000, seed=1)
    assert np.array_equal(drawn(sigma, whole), plain(sigma, whole))


@pytest.mark.parametrize("sigma", SIGMAS)
def test_words_at_and_beside_every_threshold(sigma: float) -> None:
    table = np.array(thresholds(sigma), dtype=np.uint64)
    ends = np.array([0, 2**64 - 1], dtype=np.uint64)
    whole = np.concatenate([table - np.uint64(1), table, table + np.uint64(1), ends])
    assert np.array_equal(drawn(sigma, whole), plain(sigma, whole))


@pytest.mark.parametrize("sigma", SIGMAS)
def test_every_entry_of_the_guide_is_the_noise_of_its_whole_interval(sigma: float) -> None:
    begin = np.arange(2**16, dtype=np.uint64) << np.uint64(48)
    lowest, highest = plain(sigma, begin), plain(sigma, begin | np.uint64(2**48 - 1))
    guide = LatticeSampler(sigma).guide
    decided = guide != np.iinfo(np.int16).min
    assert np.array_equal(decided, lowest == highest)
    assert np.array_equal(guide[decided], lowest[decided])
    assert decided.mean() > 0.9


def test_noise_has_exactly_its_law() -> None:
    """Four million fixed words: the test can only change when the generator or the table does."""
    noise = drawn(0.05, words(4_000_000, seed=2))
    table = np.array([0, *thresholds(0.05), 2**64], dtype=object)
    law = np.diff(table).astype(float) / 2.0**64
    counts = np.bincount(noise + len(law) // 2, minlength=len(law))
    often = law * len(noise) > 20
    seen = np.append(counts[often], counts[~often].sum())
    assert chisquare(seen, len(noise) * np.append(law[often], law[~often].sum())).pvalue > 1e-3
    assert noise.var() == pytest.approx((255 * 0.05) ** 2 + 1 / 12, rel=5 * np.sqrt(2 / len(noise)))


def test_the_far_tail_is_drawn() -> None:
    """Noise truncated at three standard deviations looks right at a glance: here its tail is counted."""
    noise = np.abs(drawn(0.25, words(4_000_000, seed=3)))
    for multiple in (3.0, 3.5, 4.0, 4.5):
        steps = round(255 * 0.25 * multiple)
        table = thresholds(0.25)
        chance = 2 * table[len(table) // 2 - steps] / 2**64
        found = int((noise >= steps).sum())
        assert 1e-6 < binom.cdf(found, len(noise), chance) < 1 - 1e-6


def test_words_with_nothing_undecided_ask_for_no_more() -> None:
    def never(count: int) -> np.ndarray:
        raise AssertionError(f"{count} words asked for")

    sampler = lattice_sampler(0.25)
    middle = np.array([w for w in range(2**15, 2**15 + 900) if sampler.guide[w] == 0], dtype=np.uint16)
    assert not sampler.draw(middle, never).any()


@pytest.mark.parametrize("sigma", [0.0, 14.0, float("nan")])
def test_noise_beyond_16_bits_is_refused(sigma: float) -> None:
    with pytest.raises(InputError, match="expected 0 < sigma < 14"):
        LatticeSampler(sigma)
