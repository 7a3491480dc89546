"""Reads checkpoints of the original ViViT (Scenic): train states that Flax wrote as msgpack."""

import math
import re
from collections.abc import Mapping
from pathlib import Path

import flax.traverse_util
import numpy as np

from vivit_jax.errors import UserError
from vivit_jax.heads import numbered_labels
from vivit_jax.model_card import ModelCard
from vivit_jax.video.preprocessing import Preprocessing
from vivit_jax.weights.flax_msgpack import read_train_state
from vivit_jax.weights.misfits import count_layers, find_misfits
from vivit_jax.weights.positions import format_grid, make_square
from vivit_jax.weights.renames import Renames, rename
from vivit_jax.weights.tensor_files import check_floats
from vivit_jax.weights.weights import Weights

# Before Linen, Flax numbered all modules of a block together. The other names are the same here.
_RENAMES: Renames = (
    (r'(encoderblock_\d+)/MultiHeadDotProductAttention_1/', r'\1/MultiHeadDotProductAttention_0/'),
    (r'(encoderblock_\d+)/LayerNorm_2/', r'\1/LayerNorm_1/'),
    (r'(encoderblock_\d+)/MlpBlock_3/', r'\1/MlpBlock_0/'),
)

# The original has one classifier for EPIC-Kitchens-100, with these columns; here there are two
# heads, in this order.
_EPIC_COLUMNS = {'noun': 300, 'verb': 97}
_EPIC_HEADS = ('verb', 'noun')

# All published models have these values: pixels, frames of a clip, and sampled frames.
_SIDE, _NUM_FRAMES, _NUM_SAMPLED_FRAMES = 224, 32, 16

KIND = 'original ViViT checkpoint (Scenic)'
_TABLE = 'posembed_input/pos_embedding'
_GIVE_GRID = 'give the grid, as in --grid=8,10,12 of convert or config.init.grid (t, h, w)'


def read_scenic(
    path: Path,
    model: str | None = None,
    *,
    grid: tuple[int, int, int] | None = None,
    frames: int | None = None,
    crop_size: int | None = None,
) -> Weights:
    """Reads a ViViT; it gets the original's preprocessing, and numbers as class names.

    The names of the parameters tell the model, with these exceptions. Joint attention with mean
    pooling and factorized dot-product attention have the same names. FSA's names do not tell
    which attention comes first; the order of the paper, space before time, is assumed. An image
    ViT of Scenic has the names of joint attention over frames, and becomes a `vivit_joint` for
    one frame.

    A position table tells only its number of places, not its grid. For a table of space and time
    together the first possible grid of these is assumed: one for both `frames` and `crop_size`, one
    for 224 pixels, one for either of the two, and one for 32 frames. `notes` say what was assumed.
    Positions of a grid that is not square are resized to squares, which all clips here are.

    Args:
        path: a file, or a folder with one file `checkpoint` or `checkpoint_<step>`.
        model: `'vivit_joint'` or `'vivit_fdp'` if the names fit both; by default `'vivit_fdp'`.
        grid: tokens along time, height and width, if the assumed grid is wrong.
        frames: frames of a clip, if known.
        crop_size: pixels of the side of a clip, if known.

    Raises:
        UserError: the file is damaged, no train state, or belongs to another model, and the message
            says what is in it; or its grid is not clear, or not the given one.
    """
    path = _find_file(path)
    tree, step = read_train_state(path)
    params = {
        rename('/'.join(map(str, name)), _RENAMES): np.asarray(value)
        for name, value in flax.traverse_util.flatten_dict(tree).items()
    }
    for name, value in params.items():
        check_floats(value, name, path)
    notes = []
    try:
        card, grid = _describe(params, model, grid, (frames, crop_size), notes)
        if misfits := find_misfits(card, params):
            raise ValueError('\n'.join(misfits))
    except UserError as error:
        raise UserError(f'{path}: {error}') from error
    except ValueError as error:
        modules = ', '.join(sorted({name.split('/')[0] for name in params}))
        raise UserError(
            f'{path} is no checkpoint of one of the four ViViTs with learned positions; it holds '
            f'{modules}, and:\n{error}\nGive one that is; an image ViT also as .npz, .safetensors '
            'or .pth'
        ) from error
    return Weights(
        kind=KIND,
        card=card,
        params=flax.traverse_util.unflatten_dict(params, sep='/'),
        grid=grid,
        has_head=any(name.startswith('output_projection') for name in params),
        notes=tuple(notes),
        step=step,
    )


def _find_file(path: Path) -> Path:
    if not path.is_dir():
        return path
    names = sorted(child.name for child in path.iterdir())
    found = [name for name in names if re.fullmatch(r'checkpoint(_\d+)?', name)]
    if len(found) != 1:
        raise UserError(
            f'{path} holds {len(found)} files called checkpoint or checkpoint_<step> '
            f'({", ".join(found or names[:5])}): give the path of the one to read'
        )
    return path / found[0]


def _describe(
    params: dict[str, np.ndarray],
    model: str | None,
    grid: tuple[int, int, int] | None,
    clip: tuple[int | None, int | None],
    notes: list[str],
) -> tuple[ModelCard, tuple[int, int, int]]:
    """Returns the card and the grid; splits a classifier of two heads, and makes the grid square.

    Raises:
        ValueError: arrays that tell the sizes are missing or have another rank; lists them.
        UserError: the grid is not clear, or not the given one.
    """
    name = _model_name(params, model, notes)
    encoder = 'SpatialTransformer' if name == 'vivit_fe' else 'Transformer'
    attention, mlp = ('space', 'MlpBlock') if name == 'vivit_fsa' else ('0', 'MlpBlock_0')
    block = f'{encoder}/encoderblock_0'
    kernel, table, query, dense = _shapes(
        params,
        {
            'embedding/kernel': (4, 5),
            f'{encoder}/{_TABLE}': (3,),
            f'{block}/MultiHeadDotProductAttention_{attention}/query/kernel': (3,),
            f'{block}/{mlp}/Dense_0/kernel': (2,),
        },
    )
    *lengths, patch, _, _, width = kernel
    length = sum(lengths)  # 0: frames have no tubelets
    has_class_token = any(name.startswith('cls') for name in params)
    num_places = table[1] - has_class_token
    num_times = None
    if name == 'vivit_fe':
        temporal = params.get(f'TemporalTransformer/{_TABLE}')
        num_times = None if temporal is None else temporal.shape[1] - has_class_token
    if grid is not None:
        _check_grid(grid, num_places, num_times, is_joint=name != 'vivit_fe')
    elif name == 'vivit_fe':
        grid = _factorized_grid(num_places, num_times, length, notes)
    else:
        grid = _joint_grid(num_places, patch, length, clip, notes)
    if grid[1] != grid[2]:
        grid = make_square(params, f'{encoder}/{_TABLE}', grid, (clip[1] or 0) // patch, notes)

    is_epic = _split_epic(params)
    num_classes = 1
    if is_epic:
        num_classes = {head: _EPIC_COLUMNS[head] for head in _EPIC_HEADS}
    elif 'output_projection/kernel' in params:
        num_classes = params['output_projection/kernel'].shape[-1]
    keywords = {
        'name': name,
        'hidden_size': width,
        'num_layers': count_layers(rf'{encoder}/encoderblock_(\d+)/', params),
        'num_heads': query[1],
        'mlp_dim': dense[1],
        'tubelet_size': (length or 1, patch, patch),
        'tokenizer': 'tubelet' if length else 'uniform_frames',
        'pool': 'cls' if has_class_token else 'mean',
        'num_classes': num_classes,
    }
    if not length:
        keywords['num_sampled_frames'] = grid[0]
    if name == 'vivit_fe':
        keywords['temporal_num_layers'] = count_layers(
            r'TemporalTransformer/encoderblock_(\d+)/', params
        )
    is_image_vit = not length and grid[0] == 1
    spec = Preprocessing(
        num_frames=1 if is_image_vit else grid[0] * length or max(_NUM_FRAMES, grid[0]),
        frame_stride=1 if is_image_vit or is_epic else 2,
        short_side=round(grid[1] * patch * 256 / 224),
        crop_size=grid[1] * patch,
    )
    return ModelCard(keywords, spec, numbered_labels(num_classes)), grid


def _model_name(params: Mapping[str, np.ndarray], model: str | None, notes: list[str]) -> str:
    if any(name.startswith('SpatialTransformer/') for name in params):
        return 'vivit_fe'
    if any('/MultiHeadDotProductAttention_space/' in name for name in params):
        notes.append('attention_order=space_time assumed')
        return 'vivit_fsa'
    if 'cls' in params:
        return 'vivit_joint'
    if model in ('vivit_joint', 'vivit_fdp'):
        return model
    notes.append('vivit_fdp assumed, could be vivit_joint with mean pooling')
    return 'vivit_fdp'


def _shapes(
    params: Mapping[str, np.ndarray], ranks: Mapping[str, tuple[int, ...]]
) -> list[tuple[int, ...]]:
    """The shapes of the named arrays.

    Raises:
        ValueError: lists all arrays that are missing or have none of their allowed ranks.
    """
    shapes = {name: params[name].shape if name in params else None for name in ranks}
    wrong = [
        f'{name}: {shape or "missing"}, needed {" or ".join(map(str, ranks[name]))} axes'
        for name, shape in shapes.items()
        if shape is None or len(shape) not in ranks[name]
    ]
    if wrong:
        raise ValueError('\n'.join(wrong))
    return list(shapes.values())


def _factorized_grid(
    num_places: int, num_times: int | None, length: int, notes: list[str]
) -> tuple[int, int, int]:
    """The grid of a spatial and a temporal table; if the latter is missing, of published clips."""
    side = math.isqrt(num_places)
    if side**2 != num_places:
        raise UserError(f'{num_places} places in space, which form no square: {_GIVE_GRID}')
    if num_times is None:
        num_times = _NUM_FRAMES // length if length else _NUM_SAMPLED_FRAMES
        notes.append(f'{num_times} places along time assumed')
    return num_times, side, side


def _joint_grid(
    num_places: int,
    patch: int,
    length: int,
    clip: tuple[int | None, int | None],
    notes: list[str],
) -> tuple[int, int, int]:
    """The most likely grid of a table of space and time, see `read_scenic`."""
    sides = [side for side in range(2, math.isqrt(num_places) + 1) if num_places % side**2 == 0]
    grids = [(num_places // side**2, side, side) for side in reversed(sides)]
    if not grids:
        raise UserError(f'{num_places} places form no squares along time: {_GIVE_GRID}')
    # Without tubelets the number of places along time is not told by the frames of a clip.
    frames, crop_size = clip[0] if length else None, clip[1]
    wanted = [(None, _SIDE), (None, crop_size), (frames, None)]
    if frames and crop_size:
        wanted.insert(0, (frames, crop_size))
    if length:
        wanted.append((_NUM_FRAMES, None))
    for frames, side in wanted:
        fitting = [
            grid
            for grid in grids
            if frames in (None, grid[0] * length) and side in (None, grid[1] * patch)
        ]
        if len(fitting) == 1:
            break
    else:
        fitting = grids
    if len(fitting) > 1:
        possible = ', '.join(map(format_grid, grids))
        raise UserError(f'{num_places} places can be a grid of {possible}: {_GIVE_GRID}')
    if fitting[0][1] * patch != _SIDE:
        notes.append(f'a grid of {format_grid(fitting[0])} assumed')
    return fitting[0]


def _check_grid(grid: tuple[int, int, int], num_places: int, num_times: int | None, is_joint: bool):
    """Raises a UserError if a given grid has other numbers of places than the tables."""
    time, height, width = grid
    if height * width * (time if is_joint else 1) != num_places:
        where = 'in space and time' if is_joint else 'in space'
        raise UserError(f'the grid {format_grid(grid)} does not have {num_places} places {where}')
    if num_times not in (None, time):
        raise UserError(f'the grid {format_grid(grid)} does not have {num_times} places in time')


def _split_epic(params: dict[str, np.ndarray]) -> bool:
    """Splits the classifier of EPIC-Kitchens-100 in place; returns False if it is another one."""
    names = [f'output_projection/{leaf}' for leaf in ('kernel', 'bias')]
    if any(
        name not in params or params[name].shape[-1:] != (sum(_EPIC_COLUMNS.values()),)
        for name in names
    ):
        return False
    for name in names:
        parts = np.split(params.pop(name), [_EPIC_COLUMNS['noun']], axis=-1)
        for head, part in zip(_EPIC_COLUMNS, parts, strict=True):
            params[name.replace('/', f'_{head}/')] = np.ascontiguousarray(part)
    return True
