"""What every model returns."""

import flax.struct
import jax


@flax.struct.dataclass
class ModelOutput:
    """The result of a forward pass, float32.

    Attributes:
        logits: [b, classes].
        features: [b, d], what the classifier sees.
    """

    logits: jax.Array
    features: jax.Array
