"""Orbax checkpoints: reads the model of a training run, and reads and writes models alone."""

import contextlib
import functools
import logging
import os
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import absl.logging
import jax
import orbax.checkpoint as ocp
from flax.traverse_util import flatten_dict

from vivit_jax.errors import UserError
from vivit_jax.model_card import ModelCard
from vivit_jax.models.registry import create_model
from vivit_jax.models.variables import abstract_variables
from vivit_jax.weights.checksums import find_damage, find_damaged_metrics, write_checksums
from vivit_jax.weights.tensor_files import check_floats
from vivit_jax.weights.weights import Weights, clip_grid

_log = logging.getLogger(__name__)

BEST_METRICS = {'val/acc1': 'top-1', 'val/map': 'mAP'}  # a run has one of them

# Of Orbax, which log the traceback of an error and raise the error in another thread.
_FILES_THAT_RAISE = ('future.py', 'checkpoint.py', 'async_checkpointer.py', 'checkpoint_manager.py')
_ECHOES = ('Event loop is closed', 'Encountered error while reading')
_TRIES = 10  # to read a checkpoint of a training that goes on


# Names of two checkpoints of a run folder, where links of these names are made when a run ends.
BEST, LAST = 'best', 'last'


def best_metric(metrics: dict[str, float]) -> float:
    """The number by which checkpoints are ranked; the highest is the best."""
    [name] = BEST_METRICS.keys() & metrics.keys()
    return metrics[name]


def read_checkpoint(path: str | Path) -> Weights:
    """Reads a model from a run folder or a checkpoint; its arrays are on the default device.

    If the run kept moving averages of the parameters, the averages are read. If a training that
    goes on deletes the checkpoint meanwhile, the one that took its place is read.

    Args:
        path: a run folder, or one checkpoint, as in `runs/demo/last` or
            `runs/demo/checkpoints/480`. A run folder means its `best`: the checkpoint with the best
            accuracy, or the latest if none was evaluated.

    Raises:
        UserError: there is no checkpoint, or it is damaged.
    """
    leave_out_echoes()
    path = Path(path)
    for _ in range(_TRIES):
        before = _list_files(path)
        try:
            return _read(*find_checkpoint(path))
        except Exception:  # Orbax raises many kinds, Exception itself among them
            time.sleep(0.5)  # a checkpoint is deleted file by file
            if _list_files(path) == before:
                raise
    raise UserError(
        f'{path}: checkpoints vanished {_TRIES} times while they were read: copy one to another '
        'folder, or let the training keep more of them with --config.train.keep_last=3'
    )


def _list_files(path: Path) -> set[str]:
    """The files of a run folder, or of one checkpoint."""
    root = path.parent if is_name_of_checkpoint(path) else path
    return {os.path.join(folder, name) for folder, _, names in os.walk(root) for name in names}


def _read(folder: Path, step: int) -> Weights:
    if file := find_damage(folder / str(step)):
        others = sorted(set(ocp.utils.checkpoint_steps(folder.absolute())) - {step})
        raise UserError(
            f'checkpoint {folder / str(step)} is damaged: {file} is missing, or is not as it was '
            f'written; other checkpoints there: {", ".join(map(str, others)) or "none"}'
        )
    handlers = {'state': ocp.PyTreeCheckpointHandler(), 'card': ocp.JsonCheckpointHandler()}
    with ocp.CheckpointManager(folder.absolute(), item_handlers=handlers) as manager:
        state = manager.item_metadata(step)['state'].tree
        has_ema = bool(state.get('ema'))
        try:
            card = ModelCard.from_json(
                manager.restore(step, args=ocp.args.Composite(card=ocp.args.JsonRestore()))['card']
            )
            card.check_layers(len(jax.tree.leaves(state)))
        except ValueError as error:
            raise UserError(f'checkpoint {folder / str(step)}: {error}') from error
        model = create_model(**card.model)
        sharding = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
        expected = abstract_variables(model, card.preprocessing.clip_shape)
        item = {name: tree for name, tree in expected.items() if tree}
        stored = state['ema'] if has_ema else state
        for name, array in flatten_dict({name: stored[name] for name in item}, sep='/').items():
            check_floats(array, name, folder / str(step))
        item = {'ema': item} if has_ema else item
        item = jax.tree.map(
            lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), item
        )
        restore = ocp.args.PyTreeRestore(
            item,
            restore_args=ocp.checkpoint_utils.construct_restore_args(item),
            partial_restore=True,
        )
        restored = manager.restore(step, args=ocp.args.Composite(state=restore))['state']
    restored = restored['ema'] if has_ema else restored
    _log.info('Loaded step %d of %s', step, folder)
    return Weights(
        f'checkpoint of step {step}',
        card,
        restored['params'],
        clip_grid(card),
        step=step,
        batch_stats=restored.get('batch_stats', {}),
    )


@functools.cache
def leave_out_echoes():
    """Keeps the threads of Orbax from printing tracebacks of errors that its methods raise.

    Where one of many reads or writes fails, each of the others would print one too.
    """
    logging.getLogger('absl').addFilter(_is_no_echo)
    logging.getLogger('asyncio').addFilter(_is_no_echo)
    hook = sys.unraisablehook
    sys.unraisablehook = lambda args: str(args.exc_value).startswith(_ECHOES) or hook(args)


def _is_no_echo(record: logging.LogRecord) -> bool:
    if record.name == 'asyncio':
        return 'orbax' not in record.getMessage()
    return not (record.exc_info and record.filename in _FILES_THAT_RAISE)


def write_checkpoint(card: ModelCard, params: dict, folder: Path, batch_stats: Mapping = {}):
    """Writes a folder with one checkpoint, of step 0, without an optimizer state.

    Raises:
        UserError: the folder holds checkpoints already, or cannot be written.
    """
    if has_checkpoints(folder):
        raise UserError(f'{folder} holds checkpoints already: name another folder')
    state = {'params': params}
    if batch_stats:
        state['batch_stats'] = dict(batch_stats)
    items = ocp.args.Composite(
        state=ocp.args.PyTreeSave(state), card=ocp.args.JsonSave(card.to_json())
    )
    handlers = {
        # Writing a file per parameter needs half of the memory of writing one file for all.
        'state': ocp.PyTreeCheckpointHandler(use_ocdbt=False),
        'card': ocp.JsonCheckpointHandler(),
    }
    options = ocp.CheckpointManagerOptions(enable_async_checkpointing=False)
    try:
        with (
            _only_errors(),
            ocp.CheckpointManager(
                folder.absolute(), item_handlers=handlers, options=options
            ) as manager,
        ):
            manager.save(0, args=items)
        write_checksums(folder / '0')
    except (OSError, ValueError, RuntimeError) as error:
        raise UserError(f'{folder} cannot be written: {error}') from error


@contextlib.contextmanager
def _only_errors() -> Iterator[None]:
    """Keeps Orbax from warning about choices that are meant."""
    verbosity = absl.logging.get_verbosity()
    absl.logging.set_verbosity(absl.logging.ERROR)
    try:
        yield
    finally:
        absl.logging.set_verbosity(verbosity)


def has_checkpoints(folder: Path) -> bool:
    """Whether a folder holds complete checkpoints; the folder need not exist."""
    return folder.is_dir() and bool(ocp.utils.checkpoint_steps(folder.absolute()))


def is_name_of_checkpoint(path: Path) -> bool:
    """Whether a path is `best` or `last` of a run folder, with or without the link."""
    return path.name in (BEST, LAST) and (path.parent / 'checkpoints').is_dir()


def find_checkpoint(path: str | Path) -> tuple[Path, int]:
    """The folder of checkpoints and the step to which `path` refers; see `read_checkpoint`."""
    path, name = Path(path), BEST
    if is_name_of_checkpoint(path):
        path, name = path.parent, path.name
    elif path.name.isdigit() and path.parent.is_dir() and (path / 'card').exists():
        return path.parent, int(path.name)
    folder = path / 'checkpoints' if (path / 'checkpoints').is_dir() else path
    if not folder.is_dir():
        raise UserError(f'no run folder or checkpoint at {path.absolute()}')
    if damaged := find_damaged_metrics(folder):
        raise UserError(
            f'{damaged[0]} is damaged: remove this folder, or go on with the training, which '
            'leaves it out'
        )
    options = ocp.CheckpointManagerOptions(best_fn=best_metric, best_mode='max', create=False)
    with ocp.CheckpointManager(folder.absolute(), options=options) as manager:
        step = manager.best_step() if name == BEST else None
        step = manager.latest_step() if step is None else step
    if step is None:
        raise UserError(f'{folder.absolute()} holds no complete checkpoint')
    return folder, step
