"""What every model returns."""

from collections.abc import Mapping

import flax.struct
import jax


@flax.struct.dataclass
class ModelOutput:
    """The result of a forward pass, float32.

    Attributes:
        logits: [b classes], or by head where the model has several.
        features: [b d], what the classifier sees.
        intermediates: with `capture_attention=True` the attention weights under the names of the
            layers that made them, see `SelfAttention`; else empty.
    """

    logits: jax.Array | Mapping[str, jax.Array]
    features: jax.Array
    intermediates: Mapping = flax.struct.field(default_factory=dict)
