r"""What a scheduler of diffusers says about training: the noise at each timestep, and what the network predicts.

How a scheduler would walk through its timesteps when it samples does not matter here, so options such as
`use_karras_sigmas` or `timestep_spacing` change nothing. Refused are options that say that the network was trained
otherwise than on :math:`y_t = \sqrt{\bar\alpha_t}\, y + \sqrt{1 - \bar\alpha_t}\, z` with the index t as its timestep.
"""

from collections.abc import Mapping
from typing import Any, TypeAlias

import numpy as np
import torch

from robustify.errors import ModelError

Table: TypeAlias = np.ndarray[Any, np.dtype[np.float64]]

PREDICTIONS = ("epsilon", "sample", "v_prediction")
"""What a network may predict: the noise, the clean image, or the velocity of Salimans and Ho, 2022."""

_STAND_IN = 2.0**-24
"""What some schedulers store for an alpha_bar of exactly 0, whose noise no number can hold."""

_OTHER_TRAINING = {
    "use_flow_sigmas": (False, "the network follows a flow, whose noise is not that of alphas_cumprod"),
    "timestep_type": ("discrete", "the network's timestep is a function of sigma, not an index of alphas_cumprod"),
    "interpolation_type": ("linear", "its timesteps do not have the noise that alphas_cumprod gives them"),
}
"""Options that say how a network was trained, with the only value that fits and what another one means."""


def prediction_of(scheduler: Any) -> str:  # noqa: ANN401 - schedulers share no base class with these attributes
    """What the network predicts, one of `PREDICTIONS`; "epsilon" where the scheduler does not say.

    Raises:
        ModelError: If it predicts something else.
    """
    prediction = str(_config(scheduler).get("prediction_type", "epsilon"))
    if prediction not in PREDICTIONS:
        raise ModelError(f"expected a prediction type of {', '.join(PREDICTIONS)}; got {prediction!r}")
    return prediction


def log_snr_of(scheduler: Any) -> Table:  # noqa: ANN401
    """log(alpha_bar / (1 - alpha_bar)) at each timestep 0, 1, …, decreasing, in float64.

    A schedule of zero terminal signal-to-noise ratio ends one step earlier: its last step is the noise of an infinite
    sigma.

    Raises:
        ModelError: If the scheduler has no such table, or its timesteps are no indices of it.
    """
    name = type(scheduler).__name__
    table = getattr(scheduler, "alphas_cumprod", None)
    if table is None:
        raise ModelError(
            f"expected a scheduler with alphas_cumprod; {name} has none.\n"
            "  Give the scheduler that the network was trained with, such as DDPMScheduler."
        )
    config = _config(scheduler)
    for option, (fitting, meaning) in _OTHER_TRAINING.items():
        if (value := config.get(option, fitting)) != fitting:
            raise ModelError(f"expected a scheduler with {option}={fitting!r}; {name} has {value!r}: {meaning}")
    alpha_bar = torch.as_tensor(table).double().cpu().numpy()
    if alpha_bar.ndim == 1 and alpha_bar[-1:].size and alpha_bar[-1] in (0, _STAND_IN):
        alpha_bar = alpha_bar[:-1]
    return _logit(alpha_bar)


def _logit(alpha_bar: Table) -> Table:
    fits = alpha_bar.ndim == 1 and len(alpha_bar) > 1
    if not (fits and alpha_bar[-1] > 0 and alpha_bar[0] < 1 and np.all(np.diff(alpha_bar) < 0)):
        raise ModelError("expected alphas_cumprod that strictly decrease within (0, 1), for at least 2 timesteps")
    return np.asarray(np.log(alpha_bar) - np.log1p(-alpha_bar))


def _config(scheduler: Any) -> Mapping[str, Any]:  # noqa: ANN401
    config = getattr(scheduler, "config", None)
    return config if isinstance(config, Mapping) else {}
