"""The clips that a ViT for images sees, once it is a model for videos."""

import dataclasses

from vivit_jax.errors import UserError
from vivit_jax.model_card import ModelCard
from vivit_jax.video.preprocessing import Preprocessing

_FRAMES, _PIXELS = 16, 224


def clips_of_image_vit(
    card: ModelCard, num_frames: int | None, crop_size: int | None
) -> tuple[dict[str, object], Preprocessing]:
    """Keywords and preprocessing of a model for videos that starts from an image ViT.

    Args:
        card: of the image ViT, a `vivit_joint` for clips of one frame.
        num_frames: of a clip, spread over the whole video; None: 16.
        crop_size: pixels of the sides of the clip; None: 224.

    Returns:
        Keywords for a ViViT whose tubelets are patches of one frame, with the name and the classes
        of the card; and the preprocessing.

    Raises:
        UserError: `crop_size` does not divide into patches.
    """
    num_frames, crop_size = num_frames or _FRAMES, crop_size or _PIXELS
    keywords = {
        name: value
        for name, value in card.model.items()
        if name not in ('tokenizer', 'num_sampled_frames')
    }
    patch = keywords['tubelet_size'][1]
    if crop_size % patch:
        raise UserError(
            f'crop_size={crop_size} does not divide into patches of {patch} pixels: take '
            f'{max(patch, round(crop_size / patch) * patch)}'
        )
    spec = dataclasses.replace(
        card.preprocessing,
        num_frames=num_frames,
        sampling='segments',
        crop_size=crop_size,
        short_side=crop_size,
    )
    return keywords, spec
