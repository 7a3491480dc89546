"""A frozen model, and what it makes of a clip."""

import dataclasses
import functools
import hashlib
import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path

import flax.linen as nn
import flax.traverse_util
import jax
import numpy as np

from vivit_jax.errors import UserError
from vivit_jax.evaluation.forward import prepare_clips
from vivit_jax.layers.pooling import pool_changes
from vivit_jax.layers.transformer import layer_norm
from vivit_jax.model_card import ModelCard
from vivit_jax.models.registry import create_model
from vivit_jax.models.variables import init_variables
from vivit_jax.parallel.mesh import fit_dtype
from vivit_jax.weights.image_clips import clips_of_image_vit
from vivit_jax.weights.load import create_weights_model, read_weights
from vivit_jax.weights.streams import start_variables
from vivit_jax.weights.weights import Weights

_VERSION = 1  # of what features are; another one has other files


@dataclasses.dataclass(frozen=True)
class Backbone:
    """A frozen model.

    An image ViT becomes a `vivit_fe` without a temporal encoder, which sees each frame alone.

    Attributes:
        model: the model.
        variables: its parameters and running statistics.
        card: describes both. The classes are those of the weights.
        is_of_frames: whether the model sees each frame alone.
    """

    model: nn.Module
    variables: Mapping
    card: ModelCard
    is_of_frames: bool

    @functools.cached_property
    def key(self) -> str:
        """A hash of everything that decides what a clip becomes, and how clips are made."""
        found = hashlib.sha256()
        unused = dict.fromkeys(('label_names', 'typical_sec', 'is_multi_label'))
        described = {**self.card.to_json(), **unused, 'is_of_frames': self.is_of_frames}
        described['depths'] = change_depths(self.model.spec.num_layers)
        described['version'] = _VERSION
        found.update(json.dumps(described, sort_keys=True).encode())
        arrays = flax.traverse_util.flatten_dict(self.variables, sep='/')
        for name in sorted(arrays):
            if 'output_projection' not in name:
                found.update(name.encode())
                found.update(np.ascontiguousarray(arrays[name]).tobytes())
        return found.hexdigest()[:16]

    def forward(self) -> Callable[[Mapping, Mapping], dict[str, jax.Array]]:
        """The function (variables, pixels) -> outputs of each clip, float32.

        Pixels are those of `create_forward`, [b views ...]. The outputs are `vectors` [b views t d]
        and, of ViViTs, `tokens` [b views t n d]: of the last encoder, by time index. A vector is
        the class token and the mean of the patches of a frame if the model sees each frame alone:
        then there are also `changes_4` [b views c] and so on, the `pool_changes` of the tokens
        after each of `change_depths` blocks and the final norm. Otherwise t is 1, and the vector is
        what the classifier takes.
        """
        model, spec, is_of_frames = self.model, self.card.preprocessing, self.is_of_frames
        depths = change_depths(model.spec.num_layers) if is_of_frames else ()
        captured = {f'encoderblock_{depth - 1}' for depth in depths}

        def forward(variables: Mapping, pixels: Mapping) -> dict[str, jax.Array]:
            leading, clip = prepare_clips(model.spec, spec, pixels)
            output, state = model.apply(
                variables,
                clip,
                mutable=['intermediates'],
                capture_intermediates=lambda module, method: (
                    module.name in captured and method == '__call__'
                ),
            )
            found = {'vectors': output.features[:, None]}
            state = state.get('intermediates', {})
            if 'tokens' in state:
                (found['tokens'],) = state['tokens']
            if is_of_frames:
                time, *space = model.spec.grid(spec.clip_shape)
                found['vectors'] = output.features.reshape(len(clip), time, -1)
                norm = layer_norm(model.spec, None)
                scale = {'params': variables['params']['SpatialTransformer']['encoder_norm']}
                blocks = state['SpatialTransformer']
                for depth in depths:
                    ((tokens, _),) = blocks[f'encoderblock_{depth - 1}']['__call__']
                    places = norm.apply(scale, tokens)[..., -math.prod(space) :, :]
                    places = places.reshape(len(clip), time, *places.shape[-2:])
                    found[f'changes_{depth}'] = pool_changes(places, space)
            return jax.tree.map(lambda x: x.reshape(*leading, *x.shape[1:]), found)

        return forward


def change_depths(num_layers: int) -> list[int]:
    """After how many blocks of so many the changes of tokens are taken; the last is all of them."""
    return sorted({-(-num_layers * part // 6) for part in range(2, 7)})


def read_backbone(
    checkpoint: str | Path, *, num_frames: int | None = None, crop_size: int | None = None
) -> Backbone:
    """Reads a frozen model.

    Args:
        checkpoint: see `read_weights`.
        num_frames, crop_size: of the clips of an image ViT, see `clips_of_image_vit`.

    Raises:
        UserError: the weights cannot be used; or they belong to a model for videos, whose clips
            are those that it was trained on, and frames or pixels are given.
    """
    weights = read_weights(checkpoint)
    if weights.card.model.get('modality') == 'rgbd':
        raise UserError(
            f'{checkpoint} is a model for RGB and one for depth: give the run of one of them'
        )
    if weights.is_image_model:
        return _of_frames(weights, num_frames, crop_size)
    if num_frames or crop_size:
        raise UserError(
            f'{checkpoint} is a {weights.card.model["name"]} for clips of '
            f'{"x".join(map(str, weights.card.preprocessing.clip_shape))}; only the frames and '
            'pixels of an image ViT can be chosen'
        )
    model, variables = create_weights_model(weights)
    is_of_frames = (
        weights.card.model['name'] == 'vivit_fe'
        and model.spec.temporal_num_layers == 0
        and model.spec.frame_pool == 'concat'
        and not model.spec.scan_layers  # which hides the tokens between blocks
    )
    return Backbone(_fit(model), variables, weights.card, is_of_frames)


def _of_frames(weights: Weights, num_frames: int | None, crop_size: int | None) -> Backbone:
    source = weights.card
    if source.model['name'] != 'vivit_joint':
        raise UserError(f'{weights.kind}: of image models, only ViTs can be frozen yet')
    keywords, spec = clips_of_image_vit(source, num_frames, crop_size)
    has_class_token = keywords.get('pool', 'cls') == 'cls'
    keywords |= {
        'name': 'vivit_fe',
        'temporal_num_layers': 0,
        'pool': 'cls_mean' if has_class_token else 'mean',
        'frame_pool': 'concat',
    }
    card = ModelCard(keywords, spec, source.label_names)
    model = create_model(**keywords)
    fresh = jax.jit(lambda: init_variables(jax.random.key(0), model, spec.clip_shape))()
    variables, _ = start_variables(
        model, fresh, weights, clip_shape=spec.clip_shape, reinit=('head',)
    )
    return Backbone(_fit(model), variables, card, is_of_frames=True)


def _fit(model: nn.Module) -> nn.Module:
    return fit_dtype(model, jax.default_backend())
