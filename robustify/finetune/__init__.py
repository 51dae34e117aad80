"""Fine-tuning behind the noise: objectives, LoRA, and the loop that trains with them.

Names load on first use, so that the progress of a run can be read without torch.
"""

from robustify.lazy import lazy_names

__getattr__, __all__ = lazy_names(__name__, __file__)
