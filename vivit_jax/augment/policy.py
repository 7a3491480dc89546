"""The settings of augmentation."""

import dataclasses

from vivit_jax.errors import check_range


@dataclasses.dataclass(frozen=True)
class Augmentation:
    """Changes of a clip on the device; by default none. The keys of the config's `augment`.

    Attributes:
        flip: probability of mirroring; if labels mention left or right, take 0 or set `flip_swaps`.
        color_jitter: probability of changing brightness, contrast, saturation and hue.
        color_drop: probability of greyscale.
        randaugment_layers: RandAugment's operations per clip; ViViT has 2 of them, instead of
            color_jitter and color_drop.
        randaugment_magnitude: RandAugment's strength, from 0 to 10 and beyond.
        randaugment_geometry: whether RandAugment also rotates, shears and moves, as ViViT's does
            not.
        erase: probability of a box of random pixels.
        mixup_alpha: mixup's Beta(alpha, alpha) of the weights of two clips; 0: no mixup.
        cutmix_alpha: cutmix's Beta(alpha, alpha) of the area of a box; 0: no cutmix; with mixup
            too, each clip draws one of the two.
        repeats: clips of each video, one after another in a batch; an epoch then has as many
            videos fewer.

    Raises:
        UserError: a value is out of its range.
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

    def __post_init__(self):
        for name in ('flip', 'color_jitter', 'color_drop', 'erase'):
            check_range(f'augment.{name}', getattr(self, name), 0, 1)
        for name in ('randaugment_layers', 'randaugment_magnitude', 'mixup_alpha', 'cutmix_alpha'):
            check_range(f'augment.{name}', getattr(self, name), 0)
        check_range('augment.repeats', self.repeats, 1)
