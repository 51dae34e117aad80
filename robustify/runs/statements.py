r"""Statements about many images together, from certificates that each may be false with chance alpha.

Every certificate is false with chance at most :math:`\alpha`, and noise is independent over images. So the number of
false ones among :math:`m` is at most :math:`B(m, \alpha)`, in the sense that each of its tails is at most as heavy.

References:
    Certified Adversarial Robustness via Randomized Smoothing, Cohen, Rosenfeld, Kolter, 2019,
    https://arxiv.org/abs/1902.02918 (appendix on estimating certified test-set accuracy)
    Concentration Inequalities, Boucheron, Lugosi, Massart, 2013, theorem 2.10 (Bernstein's inequality)
"""

import math

from scipy.special import bdtr

from robustify.certificates.bounds import check_alpha, lower_bound, upper_bound
from robustify.certificates.radii import check_count
from robustify.errors import InputError
from robustify.format import at_most
from robustify.runs.folder import Run


def expected_false(images: int, alpha: float) -> float:
    r"""The most false certificates that are expected among so many: :math:`m \alpha`.

    Raises:
        InputError: If the number or alpha is impossible.
    """
    check_count("images", images)
    check_alpha(alpha)
    return images * alpha


def most_false(images: int, alpha: float, *, confidence: float = 0.999) -> int:
    r"""A number that false certificates do not exceed, with chance at least `confidence`.

    The exact quantile: the least q with :math:`P(B(m, \alpha) \le q) \ge` `confidence`.

    Raises:
        InputError: If a number is impossible.
    """
    check_count("images", images)
    check_alpha(alpha)
    check_alpha(1 - confidence)
    low, high = -1, images
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if float(bdtr(middle, images, alpha)) >= confidence else (middle, high)
    return high


def remarks(run: Run) -> list[str]:
    """Sentences about what a run's certificates claim besides the usual."""
    said = [run.plan.remark] if run.plan.remark else []
    if run.plan.norm is None:
        said.insert(0, f"The radius is: {run.plan.axis}.")
    family, attempt = run.config.get("family_alpha"), run.config.get("attempt")
    if family is not None:
        images = f"{run.samples:,}"
        said.append(f"That any certificate of the {images} images is false has a chance of at most {at_most(family)}.")
    if attempt is not None:
        total = at_most(run.config["attempts_alpha"])
        said.append(
            f"Attempt {attempt}: that any of all attempts at an image is false has a chance of at most {total}."
        )
    return said


def accuracy_lower_bound(accuracy: float, images: int, alpha: float, *, rho: float = 0.001) -> float:
    r"""Cohen's lower bound on the true certified accuracy on these images, from the share that certificates claim.

    .. math:: a - \alpha - \sqrt{2 \alpha (1 - \alpha) \ln(1/\rho) / m} - \ln(1/\rho) / (3m)

    holds with chance at least :math:`1 - \rho`, by Bernstein's inequality; never below 0. It is about these very
    images, not about others like them.

    Arguments:
        accuracy: Share of the images whose true label the certificates claim.
        images: Number of images, m.
        alpha: Allowed chance, for each certificate, of being false.
        rho: Allowed chance that the bound is false.

    Raises:
        InputError: If a number is impossible.
    """
    check_count("images", images)
    check_alpha(alpha)
    check_alpha(rho)
    if not 0 <= accuracy <= 1:
        raise InputError(f"expected an accuracy from 0 to 1; got {accuracy}")
    surprise = -math.log(rho)
    margin = alpha + math.sqrt(2 * alpha * (1 - alpha) * surprise / images) + surprise / (3 * images)
    return max(0.0, accuracy - margin)


def accuracy_interval(right: int, images: int, *, confidence: float = 0.95) -> tuple[float, float]:
    """Clopper and Pearson's interval for the accuracy on images like these, drawn at random.

    Raises:
        InputError: If a number is impossible.
    """
    check_alpha(1 - confidence)
    side = (1 - confidence) / 2
    return lower_bound(right, images, alpha=side), upper_bound(right, images, alpha=side)
