"""Published parameters and costs of models, beside those that are counted here.

Each model's folder lists its own. `python -m vivit_jax.summary --reference` checks all of them.
Costs are of one clip in inference mode, in units of 1e9, by the conventions of
`vivit_jax.costs.count_costs`.
"""

import dataclasses
import importlib
from collections.abc import Mapping

from vivit_jax.models.registry import MODELS

# Largest relative difference of a count from the one given here. XLA/2 depends a little on how
# softmax, GELU and normalization are written.
TOLERANCES = {'parameters': 0, 'GMAC': 1e-3, 'GMAC-lin': 1e-3, 'XLA/2': 5e-3, '2xGMAC': 1e-3}


@dataclasses.dataclass(frozen=True)
class Published:
    """A published model.

    Attributes:
        label: what its paper calls it.
        keywords: of `create_model`.
        clip: (t, h, w).
        parameters: computed.
        costs: computed, by convention; the first is that of the paper.
        published_parameters: in millions, as printed; the paper may have truncated.
        published_cost: as printed.
    """

    label: str
    keywords: Mapping[str, object]
    clip: tuple[int, int, int]
    parameters: int
    costs: Mapping[str, float]
    published_parameters: float | None = None
    published_cost: float | None = None


def published_models() -> list[Published]:
    """The published figures of all models."""
    folders = dict.fromkeys(spec.__module__.rpartition('.')[0] for spec in MODELS.values())
    modules = [importlib.import_module(f'{folder}.published') for folder in folders]
    return [published for module in modules for published in module.PUBLISHED]
