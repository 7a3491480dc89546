"""Reads weights from a path: the content tells which reader to use."""

import dataclasses
import functools
import logging
from collections.abc import Callable
from pathlib import Path

import flax.linen as nn
import flax.traverse_util
import jax
import numpy as np

from vivit_jax.errors import UserError, near_paths
from vivit_jax.heads import LabelNames
from vivit_jax.models.registry import create_model
from vivit_jax.models.variables import abstract_params
from vivit_jax.video.preprocessing import Preprocessing
from vivit_jax.weights import (
    from_imagenet_resnet,
    from_imagenet_vit,
    huggingface,
    torch_export,
    vivit_jax_npz,
)
from vivit_jax.weights.from_scenic import KIND, read_scenic
from vivit_jax.weights.misfits import find_misfits
from vivit_jax.weights.orbax import is_name_of_checkpoint, read_checkpoint
from vivit_jax.weights.tensor_files import check_finite, file_format, open_tensors
from vivit_jax.weights.weights import Weights

__all__ = ['load_checkpoint', 'read_weights']

_STATISTICS = 'batch_stats'

_log = logging.getLogger(__name__)

_WEIGHT_FILES = ('*.safetensors.index.json', '*.safetensors', '*.npz', '*.pth', '*.pt', '*.bin')


def load_checkpoint(path: str | Path) -> tuple[nn.Module, dict, Preprocessing, LabelNames]:
    """Loads a trained model.

    >>> model, variables, preprocessing, label_names = vivit_jax.load_checkpoint('runs/demo')

    Args:
        path: see `read_weights`.

    Returns:
        The model, its variables on the default device, the preprocessing that makes clips for it,
        and its classes: a tuple of names, or a dict head -> names if it has several heads. If the
        weights have no classifier, the model gets one with a single class whose logit is zero.
        Probabilities are the softmax of the logits, or, if the model was trained on videos with any
        number of labels, their sigmoids: `read_weights(path).card.is_multi_label` tells.

    Raises:
        UserError: there is no checkpoint, or its weights do not fit the model that it names.
    """
    weights = read_weights(path)
    model, variables = create_weights_model(weights)
    return model, variables, weights.card.preprocessing, weights.card.label_names


def create_weights_model(weights: Weights) -> tuple[nn.Module, dict]:
    """Makes the model of some weights; returns it with its variables on the default device.

    Raises:
        UserError: the weights do not fit the model that they name.
    """
    model = create_model(**weights.card.model)
    params = flax.traverse_util.flatten_dict(weights.params, sep='/')
    statistics = flax.traverse_util.flatten_dict(weights.batch_stats, sep='/')
    if misfits := find_misfits(weights.card, {**params, **statistics}):
        raise UserError('\n  '.join([f'{weights.kind} does not fit its model:', *misfits]))
    if not weights.has_head:
        expected = abstract_params(model, weights.card.preprocessing.clip_shape)
        for name, shape in flax.traverse_util.flatten_dict(expected, sep='/').items():
            params.setdefault(name, np.zeros(shape.shape, shape.dtype))
    params = flax.traverse_util.unflatten_dict(params, sep='/')
    variables = {'params': params, 'batch_stats': weights.batch_stats}
    return model, jax.device_put(variables, jax.local_devices()[0])


def read_weights(
    path: str | Path,
    *,
    model: str | None = None,
    value_range: tuple[float, float] | None = None,
    grid: tuple[int, int, int] | None = None,
    frames: int | None = None,
    crop_size: int | None = None,
    allow_non_finite: bool = False,
) -> Weights:
    """Reads the weights of a model; logs the reader's notes as warnings.

    Args:
        path: a run folder, its `best` or `last`, or a checkpoint of this package; an image ViT
            (`.npz` of vision_transformer or big_vision; `.safetensors` or `.pth` of timm or Hugging
            Face) or an image ResNet (`.safetensors` or `.pth` of torchvision, timm or Hugging
            Face); a checkpoint of the original ViViT; a Hugging Face ViViT folder; or an output of
            `vivit_jax.convert`.
        model: the name of the model, if the file does not tell it.
        value_range: the range of the pixels that the model expects, if the file tells it wrongly.
        grid: tokens along time, height and width of an original ViViT; other files tell theirs.
        frames, crop_size: frames and pixels of a clip, by which the grid of an original ViViT is
            found if there are several that its table may have.
        allow_non_finite: whether arrays may hold NaN and Inf.

    Raises:
        UserError: the path does not exist, holds no known kind of weights, or is damaged.
    """
    path = Path(path)
    if grid and (len(grid) != 3 or min(grid) < 1):
        raise UserError(f'grid={grid} must be three numbers from 1, as in 8,10,12')
    scenic = functools.partial(
        read_scenic, model=model, grid=grid or None, frames=frames, crop_size=crop_size
    )
    try:
        if is_name_of_checkpoint(path):
            weights = read_checkpoint(path)
        elif path.is_dir():
            weights = _read_folder(path, scenic, value_range)
        elif path.exists():
            weights = _read_file(path, scenic, value_range)
        else:
            raise UserError(f'there is no file or folder {path.absolute()}{near_paths(path)}')
    except UserError:
        raise
    except PermissionError as error:
        raise UserError(f'{error.filename or path} cannot be read (Permission denied)') from error
    except Exception as error:  # the file may come from anybody
        raise UserError(
            f'{path} cannot be read, as it or its configuration is damaged: '
            f'{type(error).__name__}: {next(iter(str(error).splitlines()), "")}'
        ) from error
    if grid and weights.kind != KIND and weights.grid != tuple(grid):
        raise UserError(f'grid={grid} is not the grid {weights.grid} that {path} tells')
    if not allow_non_finite:
        arrays = {**weights.params, _STATISTICS: weights.batch_stats}
        check_finite(
            flax.traverse_util.flatten_dict(arrays, sep='/'),
            str(path),
            '; convert --allow_non_finite and init.allow_non_finite read it as it is',
        )
    for note in weights.notes:
        _log.warning('%s: %s', path, note)
    if value_range is None:
        return weights
    spec = dataclasses.replace(weights.card.preprocessing, value_range=value_range)
    return dataclasses.replace(weights, card=dataclasses.replace(weights.card, preprocessing=spec))


def _read_folder(
    path: Path, scenic: Callable[[Path], Weights], value_range: tuple[float, float] | None
) -> Weights:
    if (path / 'checkpoints').is_dir() or any(path.glob('*/card')) or (path / 'card').exists():
        return read_checkpoint(path)
    if huggingface.matches(path):
        return huggingface.read_huggingface(path, value_range)
    for pattern in _WEIGHT_FILES:
        found = sorted(path.glob(pattern))
        if len(found) == 1:
            return _read_file(found[0], scenic, value_range)
    if any(path.glob('checkpoint*')):
        return scenic(path)
    raise UserError(
        f'{path} is no run folder, no Hugging Face folder, and it is not clear which file in '
        'it holds the weights: name the file'
    )


def _read_file(
    path: Path, scenic: Callable[[Path], Weights], value_range: tuple[float, float] | None
) -> Weights:
    if not path.name.endswith('.json') and file_format(path) == 'msgpack':
        return scenic(path)
    tensors = open_tensors(path)
    if torch_export.matches(tensors):
        return torch_export.read_torch(tensors, path)
    if vivit_jax_npz.matches(tensors):
        return vivit_jax_npz.read_npz(tensors, path)
    if from_imagenet_vit.matches(tensors.keys()):
        return from_imagenet_vit.read_image_vit(tensors, path, value_range)
    if from_imagenet_resnet.matches(tensors.keys()):
        return from_imagenet_resnet.read_image_resnet(tensors, path)
    names = ', '.join(list(tensors)[:5])
    raise UserError(
        f'{path} holds {len(tensors)} arrays ({names}, ...), which belong to no model that can be '
        'read: an image ViT or ResNet, an original ViViT checkpoint, or a file of vivit_jax'
    )
