"""The settings of augmentation."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Augmentation:
    """How the clips of a training step are changed on the device; by default not at all.

    Attributes:
        flip: probability of mirroring. If left or right is part of a label, use 0 or `flip_swaps`
            of the config.
        color_jitter: probability of `random_color_jitter`.
        color_drop: probability of greyscale.
        randaugment_layers: see `random_augment`. The original ViViT has either RandAugment or
            changes of colour.
        randaugment_magnitude: see `random_augment`.
        randaugment_geometry: whether RandAugment rotates, shears and moves too; the original does
            not.
        erase: probability of `random_erase`.
        mixup_alpha: see `mix`.
        cutmix_alpha: see `mix`.
        repeats: clips of each video, which follow one another in a batch.
    """

    flip: float = 0.0
    color_jitter: float = 0.0
    color_drop: float = 0.0
    randaugment_layers: int = 0
    randaugment_magnitude: float = 10.0
    randaugment_geometry: bool = True
    erase: float = 0.0
    mixup_alpha: float = 0.0
    cutmix_alpha: float = 0.0
    repeats: int = 1
