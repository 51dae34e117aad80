r"""How far integer-grid noise, as really drawn, is from an exactly rounded Gaussian.

A certificate on the pixel grid is a theorem about :math:`K^* = \mathrm{round}(s g)`, with :math:`s = 255\sigma` and
:math:`g` standard normal. What is drawn, in float64, is

.. math::
    K = \mathrm{round}(s \cdot \Phi^{-1}(u)), \quad u = \max(j 2^{-53}, 2^{-54}), \quad
    j \text{ uniform on } \{0, \dots, 2^{53} - 1\}.

Any event, hence any class, has under :math:`K` a probability within the total-variation distance of the two of what
it has under :math:`K^*`.

**Derivation**, for one pixel, with grain :math:`h = 2^{-53}`. The distance is half the total variation of the sequence
:math:`D_k = P(K \le k) - P(K^* \le k)`, which is 0 at both ends. Let :math:`b_k = (k + \frac12) / s`, so that
:math:`P(K^* \le k) = \Phi(b_k)`. Let the number that is rounded be :math:`s \Phi^{-1}(u) (1 + \delta)`,
:math:`|\delta| \le \varepsilon`: the error of `ndtri` and one rounding for each of two products. Rounding to an integer
is exact; which way ties go is left open.

1. *Grain.* :math:`K \le k` holds if :math:`\Phi^{-1}(u) < b_k - |b_k| \eta`, and only if
   :math:`\Phi^{-1}(u) \le b_k + |b_k| \eta`, with :math:`\eta = \varepsilon / (1 - \varepsilon)`. For :math:`p > h/2`,
   :math:`p \le P(u < p)` and :math:`P(u \le p) \le p + h`. So :math:`-e_k \le D_k \le h + e_k` with
   :math:`e_k \le |b_k| \eta\, \varphi(|b_k| (1 - \eta))`, as long as :math:`|b_k| < B (1 - \varepsilon)`, where
   :math:`B = -\Phi^{-1}(h/2)` is the largest number that can be drawn. There are :math:`2m` such boundaries, and
   :math:`2m` values in :math:`[0, h]` between two zeros vary by at most :math:`2mh`. Half of that is :math:`mh`.
2. *Errors of arithmetic.* They move each :math:`D_k` by at most :math:`e_k`, hence half the variation by at most
   :math:`\sum_k e_k`. As :math:`t\varphi(t)` has one mode, its sum over a grid is at most its integral over the spacing
   plus its maximum: :math:`\sum_k e_k \le 2 \frac{\varepsilon}{(1 - 2\varepsilon)^2} (s \varphi(0) + \varphi(1))`.
3. *Tails.* Beyond :math:`B (1 + \varepsilon)` nothing is drawn: :math:`|D_k| = \Phi(-|b_k|)` falls to 0 monotonically.
   Putting such a tail behind the values of step 1 adds at most its largest member, to half the variation. At most one
   boundary a side lies within :math:`\varepsilon` of :math:`B`; there :math:`|D_k| \le \max(q, h - q)` with
   :math:`q = \Phi(-|b_k|)`, and it adds as much again. So each side adds at most the sum over its first two boundaries.

Pixels are independent under both laws, so distances add up over pixels.

References:
    Cephes Mathematical Library, ndtri.c, Moshier, 2000, https://www.netlib.org/cephes/ (peak relative error 7.2e-16)
    Sound Randomized Smoothing in Floating-Point Arithmetic, Voracek, Hein, 2023, https://arxiv.org/abs/2207.07209
"""

import math

from scipy.special import ndtr, ndtri

from robustify.errors import InputError

NDTRI_ERROR = 1e-14
"""Assumed bound on the relative error of torch's float64 `ndtri`; Cephes states 7.2e-16, and tests find no more."""

LARGEST = 0.01
"""A larger distance isn't a correction any more, but a fault."""

_DENSITY_AT_0 = 1 / math.sqrt(2 * math.pi)
_DENSITY_AT_1 = _DENSITY_AT_0 * math.exp(-0.5)

_SAFETY = 1 + 1e-9
"""Covers the rounding of this computation itself."""

_TINY = 1e-300
"""Covers underflow of `ndtr`."""


def total_variation(sigma: float, dimensions: int, *, bits: int = 53, ndtri_error: float = NDTRI_ERROR) -> float:
    r"""An upper bound on the total-variation distance between drawn and exactly rounded Gaussian noise.

    .. math:: d \left( m h + 2 \frac{\varepsilon}{(1 - 2\varepsilon)^2} (s \varphi(0) + \varphi(1))
        + 2 \Phi(-b_m) + 2 \Phi(-b_{m+1}) \right)

    in the terms of this module's text; d is the number of dimensions. Grows with sigma and with d.

    Arguments:
        sigma: Standard deviation of the noise, in [0, 1] pixels; the grid is 1/255.
        dimensions: Independent pixels, times channels, of one draw.
        bits: Of the uniforms; fewer than 53 make a problem small enough to be enumerated.
        ndtri_error: Bound on the relative error of the inverse normal distribution function, at most 1e-3.

    Raises:
        InputError: If an argument is impossible, or the bound is not below 0.01.
    """
    _check(sigma, dimensions, bits, ndtri_error)
    distance = dimensions * _one_pixel(255 * sigma, 2.0**-bits, ndtri_error + 3 * 2.0**-53) * _SAFETY + _TINY
    if not distance < LARGEST:
        raise InputError(
            f"noise of sigma = {sigma:g} in {dimensions:,} dimensions, drawn from {bits}-bit uniforms, may be "
            f"{distance:.2g} from a rounded Gaussian; expected less than {LARGEST:g}.\n"
            "  Use a smaller sigma or a smaller image."
        )
    return distance


def _one_pixel(scale: float, grain: float, error: float) -> float:
    """The bound for one pixel, noise of standard deviation `scale` grid steps and `error` in all of arithmetic."""
    largest = -float(ndtri(grain / 2))
    # Twice the error: what is left covers the rounding of `largest` and of the products below.
    pairs = math.floor(scale * largest * (1 - 2 * error) + 0.5)
    arithmetic = 2 * error / (1 - 2 * error) ** 2 * min(pairs * _DENSITY_AT_1, scale * _DENSITY_AT_0 + _DENSITY_AT_1)
    first, second = ((pairs + 0.5) / scale, (pairs + 1.5) / scale)
    beyond, behind = float(ndtr(-first)), float(ndtr(-second))
    if first < largest * (1 + 2 * error):
        beyond = max(beyond, grain - beyond)
    return pairs * grain + arithmetic + 2 * (beyond + behind)


def _check(sigma: float, dimensions: int, bits: int, ndtri_error: float) -> None:
    if not 0 < sigma < math.inf:
        raise InputError(f"expected a positive, finite sigma; got {sigma}")
    if dimensions < 1:
        raise InputError(f"expected at least 1 dimension; got {dimensions}")
    if not 8 <= bits <= 53:
        raise InputError(f"expected 8 to 53 bits, as float64 holds no more; got {bits}")
    if not 2.0**-53 <= ndtri_error <= 1e-3:
        raise InputError(f"expected a relative error from 2^-53 to 1e-3; got {ndtri_error}")
