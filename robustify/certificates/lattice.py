r"""Gaussian noise in whole grid steps: the exact table that it is drawn from, and how far that is from ideal.

A certificate on the pixel grid is a theorem about :math:`K^* = \mathrm{round}(s g)`, with :math:`s = 255 \sigma` and
:math:`g` standard normal: rounding an ideal noisy image gives exactly the image plus :math:`K^*` steps of 1/255. To
draw it, a random word :math:`u`, uniform on :math:`\{0, \dots, 2^B - 1\}` with :math:`B = 64`, is compared with

.. math:: T = (P_{n-1}, \dots, P_0,\; 2^B - P_0, \dots, 2^B - P_{n-1}), \quad
    P_k = \mathrm{nint}\left(2^B\, \Phi\left(-\frac{k + 1/2}{s}\right)\right),

where :math:`n` counts the :math:`P_k` that are not 0: the noise is :math:`K = -n + \#\{T \le u\}`. The thresholds are
computed to 50 digits, by mpmath, so they are the same on every machine.

**Distance.** In units of :math:`2^{-B}`, each threshold is at most 1/2 from its exact place. So the probability of each
value between :math:`-n` and :math:`n` is wrong by at most 1: a value in the middle has two thresholds; a value at an
end has one, and is drawn in place of the tail behind it, which is less than 1/2. The two tails themselves, which are
never drawn, are together less than 1. Half of the sum of all errors is at most :math:`(2n + 2) / 2`, so the total
variation is at most :math:`(n + 1)\, 2^{-B}` for one pixel. Pixels are independent, so distances add up over pixels.
Any event, hence any class, has under :math:`K` a probability within that distance of what it has under :math:`K^*`.

The random words, of a counter-based generator, are taken for ideal uniforms; nothing else is assumed.

References:
    Sound Randomized Smoothing in Floating-Point Arithmetic, Voráček, Hein, 2023, https://arxiv.org/abs/2207.07209
"""

import math
from functools import cache, lru_cache
from typing import Any

from robustify.errors import InputError

BITS = 64
"""Bits of the random word that is compared with the thresholds."""

LARGEST = 0.01
"""A larger distance is not a correction any more, but a fault."""

_DIGITS = 50


@lru_cache(maxsize=16)
def thresholds(sigma: float, *, bits: int = BITS) -> tuple[int, ...]:
    """Thresholds, increasing, whose number at or below a uniform word is the noise in steps plus half their number.

    Arguments:
        sigma: Standard deviation of the noise, in [0, 1] pixels; a step is 1/255.
        bits: Number of bits of the word, from 8; fewer than 64 make a problem small enough to be enumerated.

    Raises:
        InputError: If sigma is not positive and finite.
    """
    _check_sigma(sigma)
    tails = [_tail(k, sigma, bits) for k in range(largest_step(sigma, bits=bits))]
    return (*reversed(tails), *((1 << bits) - tail for tail in tails))


def largest_step(sigma: float, *, bits: int = BITS) -> int:
    """The largest noise that is ever drawn, in steps of 1/255.

    Raises:
        InputError: If sigma is not positive and finite.
    """
    _check_sigma(sigma)
    # P_k is not 0 where the tail is at least half a unit; which side of a tie it falls, two looks at P decide.
    step = max(0, math.floor(float(_scale(sigma) * _quantile(bits)) - 0.5))
    while _tail(step, sigma, bits) > 0:
        step += 1
    while step > 0 and _tail(step - 1, sigma, bits) == 0:
        step -= 1
    return step


@lru_cache(maxsize=256)
def total_variation(sigma: float, dimensions: int, *, bits: int = BITS) -> float:
    """An upper bound on the total-variation distance between drawn and exactly rounded Gaussian noise.

    Grows in proportion to sigma and to the number of dimensions: 3e-12 at sigma = 0.5 and 3×224×224.

    Arguments:
        sigma: Standard deviation of the noise, in [0, 1] pixels.
        dimensions: Number of pixels times channels of one draw.
        bits: Number of bits of the random word.

    Raises:
        InputError: If an argument is impossible, or the bound is not below 0.01.
    """
    _check_sigma(sigma)
    if dimensions < 1:
        raise InputError(f"expected at least 1 dimension; got {dimensions}")
    units = dimensions * (largest_step(sigma, bits=bits) + 1)
    distance = math.nextafter(math.ldexp(float(units), -bits), math.inf)
    if not distance < LARGEST:
        raise InputError(
            f"noise of sigma = {sigma:g} in {dimensions:,} dimensions may be {distance:.2g} from a rounded Gaussian; "
            f"expected less than {LARGEST:g}.\n  Use a smaller sigma or a smaller image."
        )
    return distance


def _tail(k: int, sigma: float, bits: int) -> int:
    """The chance of more than k steps up, in whole units: P_k."""
    mp = _digits()
    return int(mp.nint(mp.ldexp(mp.ncdf(-(k + mp.mpf(1) / 2) / _scale(sigma)), bits)))


@cache
def _quantile(bits: int) -> Any:  # noqa: ANN401 - a number of mpmath, which has no types
    """How many standard deviations up a tail of half a unit begins."""
    mp = _digits()
    return mp.sqrt(2) * mp.erfinv(1 - mp.ldexp(1, -bits))


def _scale(sigma: float) -> Any:  # noqa: ANN401
    """Steps of 1/255 in a standard deviation, exactly."""
    return 255 * _digits().mpf(sigma)


@cache
def _digits() -> Any:  # noqa: ANN401
    """A context of our own: the precision that others set does not matter."""
    import mpmath

    context = mpmath.MPContext()
    context.dps = _DIGITS
    return context


def _check_sigma(sigma: float) -> None:
    if not 1e-9 <= sigma <= 1e9:  # beyond, tables would have no end
        raise InputError(f"expected a positive, finite sigma from 1e-9 to 1e9; got {sigma}")
