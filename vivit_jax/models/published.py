"""Parameters and costs of published models: as counted here, and as printed in the papers.

Each model's folder lists its own figures, and `python -m vivit_jax.summary --reference` checks all
of them. Costs are for one clip in inference mode, in units of 1e9, in the conventions of
`vivit_jax.costs.count_costs`.
"""

import dataclasses
import importlib
from collections.abc import Mapping

from vivit_jax.models.registry import MODELS

# The largest allowed relative difference between a count and the figure in the table. XLA/2
# depends a little on the code of softmax, GELU and normalization.
TOLERANCES = {'parameters': 0, 'GMAC': 1e-3, 'GMAC-lin': 1e-3, 'XLA/2': 5e-3, '2xGMAC': 1e-3}


@dataclasses.dataclass(frozen=True)
class Published:
    """A published model.

    Attributes:
        label: the name of the model in its paper.
        keywords: keywords of `create_model`.
        clip: (t, h, w) in frames and pixels.
        parameters: number of parameters, as counted here.
        costs: costs as counted here, by convention; the first convention is the paper's.
        published_parameters: millions of parameters, as printed; the paper may have truncated.
        published_cost: cost as printed.
    """

    label: str
    keywords: Mapping[str, object]
    clip: tuple[int, int, int]
    parameters: int
    costs: Mapping[str, float]
    published_parameters: float | None = None
    published_cost: float | None = None


def published_models() -> list[Published]:
    """The rows of all models."""
    folders = dict.fromkeys(spec.__module__.rpartition('.')[0] for spec in MODELS.values())
    modules = [importlib.import_module(f'{folder}.published') for folder in folders]
    return [published for module in modules for published in module.PUBLISHED]
