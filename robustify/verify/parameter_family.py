"""The check of rows of certificates against a change of one number, such as brightness: do their counts prove them?

The claim is one about Gaussian noise, of one number instead of many pixels, and `robustify.verify.gaussian_family`
checks it, independently of the code that made it. In addition, the bounds must allow for how far the law of the number
that was drawn is from a Gaussian; on 8-bit images that is the library's bound on total variation, for one value.
"""

from collections.abc import Iterator

from robustify.certificates.contrast import ContrastPlan
from robustify.certificates.lattice import total_variation
from robustify.certificates.parameters import ParameterPlan
from robustify.runs.folder import Run
from robustify.runs.rows import Row
from robustify.verify import gaussian_family
from robustify.verify.problem import Problem


def problems(row: Row, plan: ParameterPlan, run: Run) -> Iterator[Problem]:
    """The problems of one row; checks that build on something wrong are left out."""
    if isinstance(plan, ContrastPlan) and run.soundness != "float":
        yield Problem("run.json", "soundness", run.soundness, "float, as factors leave the grid of 8-bit images")
        return
    least = 0.0 if run.soundness == "float" else total_variation(plan.of.sigma, 1)
    if plan.of.slack < least:
        yield Problem("run.json", "slack", plan.of.slack, f"at least {least}")
        return
    yield from gaussian_family.problems(row, plan.of, run)
