"""Section d: the original implementation, Scenic's ViViT, in this package's training step."""

from collections.abc import Iterator, Sequence

import jax
from original_vivit import original_model

from accelerator_sections.models import measure_programs
from accelerator_sections.plan import Settings
from accelerator_sections.rows import latest
from accelerator_sections.training import Training
from vivit_jax.layers.tokens import ModelOutput

_SIZE = 'B/16x2'
_BATCH = 16  # where nothing is known of ours


class _StandIn:
    """A model of Scenic with the interface and the parameters of a model of this package."""

    def __init__(self, model, checkout: str):
        self.spec = model.spec
        self._model = original_model(model, checkout)

    def apply(self, variables: dict, clip: jax.Array, train: bool = False, rngs=None, mutable=()):
        """Like `flax.linen.Module.apply`; there are no batch statistics to change."""
        logits = self._model.apply({'params': variables['params']}, clip, train=train, rngs=rngs)
        output = ModelOutput(logits, logits)
        return (output, {}) if mutable else output


def original(settings: Settings, rows: Sequence[dict], model: str) -> Iterator[dict]:
    """Training step and forward pass with this package's batch, or with as much of it as fits."""
    known = latest(rows, section='c', model=model, size=_SIZE, program='training step') or {}
    batch = 2 if settings.tiny else known.get('batch', _BATCH)
    training = Training(
        settings, model, _SIZE, stand_in=lambda ours: _StandIn(ours, settings.original)
    )
    labels = {'name': 'original', 'model': model, 'size': _SIZE}
    yield from measure_programs(settings, rows, training, labels, batch)
