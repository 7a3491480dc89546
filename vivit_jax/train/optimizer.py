"""The optimizer of a training."""

import functools
import inspect
import operator
import types
from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
import optax
import optax.contrib
from ml_collections import ConfigDict

from vivit_jax.config.schema import KEYS
from vivit_jax.errors import UserError, near_words
from vivit_jax.train.freezing import Hold, leave_frozen
from vivit_jax.train.layer_decay import layer_scales
from vivit_jax.train.muon import hidden_matrices

# Keywords of optax that keys of the section `train` set.
_OF_KEYS = {
    'sgd': {'momentum': 'momentum', 'accumulator_dtype': 'moment_dtype'},
    'adamw': {'b1': 'momentum', 'b2': 'adam_b2', 'mu_dtype': 'moment_dtype'},
}
# What optimizers call their weight decay, and the parameters on which it acts.
_DECAYS = ('weight_decay', 'weight_decay_rate')
_MASKS = ('mask', 'weight_decay_mask')


def create_optimizer(
    config: ConfigDict,
    schedule: optax.Schedule,
    *,
    is_fusion: bool = False,
    hold: Hold = Hold(),
) -> optax.GradientTransformation:
    """The optimizer of the section `train`: gradient clipping, then an optimizer of optax.

    Weight decay acts on kernels only: not on biases, norms, class tokens and positions. Muon's acts
    on its matrices.

    Args:
        config: the section.
        schedule: learning rate by step.
        is_fusion: whether the model is a `Fusion`, whose models for RGB and for depth have their
            gradients clipped each by its own norm.
        hold: parameters that do not change at first.

    Raises:
        UserError: unknown optimizer, keyword, or type of its moments; an optimizer without weight
            decay of kernels is to have some; an optimizer needs more than gradients.
    """
    if config.moment_dtype not in ('float32', 'bfloat16'):
        raise UserError(
            f"train.moment_dtype={config.moment_dtype!r} must be 'float32' or 'bfloat16'"
        )
    update = _named_optimizer(config, schedule)
    clip = optax.clip_by_global_norm(config.clip_norm) if config.clip_norm else optax.identity()
    clip = _by_stream(clip) if is_fusion else clip

    def scale_by_layer(updates: dict, _) -> dict:
        return jax.tree.map(operator.mul, updates, layer_scales(updates, config.layer_decay))

    return optax.chain(
        leave_frozen(optax.chain(clip, update), config.freeze),
        optax.stateless(scale_by_layer),
        *([hold.scale_updates()] if hold.steps else []),
    )


@functools.cache
def known_optimizers() -> dict[str, Callable[..., optax.GradientTransformation]]:
    """The optimizers of optax that take a learning rate, by name.

    Schedule-free ones are left out: a test would need other parameters than they train.
    """
    found = {}
    for name, make in sorted({**vars(optax.contrib), **vars(optax)}.items()):
        if isinstance(make, types.FunctionType | functools.partial):
            first = next(iter(inspect.signature(make).parameters), None)
            if first == 'learning_rate' and not name.startswith(('_', 'scale_by', 'schedule_free')):
                found[name] = make
    return found


def _named_optimizer(config: ConfigDict, schedule: optax.Schedule) -> optax.GradientTransformation:
    """The optimizer that `train.optimizer` names, with its weight decay."""
    name, known = config.optimizer, known_optimizers()
    if name not in known:
        raise UserError(
            f'train.optimizer={name!r} is no optimizer of optax that takes a learning rate'
            f'{near_words(name, known)}'
        )
    decays = _decay_keywords(known[name])
    keywords = _given_keywords(config, set(decays))
    if decays:
        decay, mask = decays
        keywords |= {decay: config.weight_decay, mask: _kernels}
        if decay == 'weight_decay_rate':  # Adafactor does not multiply it by the learning rate
            keywords[decay] = lambda step: config.weight_decay * schedule(step)
    elif config.weight_decay and name != 'sgd':
        able = ', '.join(['sgd', *(x for x, make in known.items() if _decay_keywords(make))])
        raise UserError(
            f'train.weight_decay={config.weight_decay:g}: {name} has no weight decay that leaves '
            f'out biases and norms. Set train.weight_decay=0, or choose one of {able}'
        )
    if name == 'muon':
        keywords['muon_weight_dimension_numbers'] = hidden_matrices
    update = _checked(config, lambda: known[name](schedule, **keywords))
    if name == 'sgd':
        return optax.chain(optax.add_decayed_weights(config.weight_decay, mask=_kernels), update)
    return update


def _decay_keywords(make: Callable) -> tuple[str, ...]:
    """What an optimizer calls its weight decay and the mask of it; () if it has not both."""
    known = inspect.signature(make).parameters
    found = tuple(x for names in (_DECAYS, _MASKS) for x in names if x in known)
    return found if len(found) == 2 else ()


def _given_keywords(config: ConfigDict, decays: set[str]) -> dict[str, object]:
    """The keywords that the config gives to an optimizer, except for its weight decay.

    Raises:
        UserError: the optimizer has no such keyword, or a key of the config has no effect on it.
    """
    name, given = config.optimizer, config.optimizer_keywords
    if given is not None and not isinstance(given, Mapping | ConfigDict):
        raise UserError(
            f"train.optimizer_keywords={given!r} must have the form {{'b1': 0.95, 'eps': 1e-6}}"
        )
    of_keys = _OF_KEYS.get(name, {})
    used = [*of_keys.values(), *(['weight_decay'] if decays else [])]
    for key in ('momentum', 'adam_b2', 'moment_dtype'):
        if name not in _OF_KEYS and config[key] != KEYS[f'train.{key}'].initial:
            raise UserError(
                f'train.{key}={config[key]} is for sgd and adamw: give {name} keywords of its own '
                f'in train.optimizer_keywords, and set train.{key}={KEYS[f"train.{key}"].initial}'
            )
    own = {'learning_rate', 'muon_weight_dimension_numbers', *decays, *of_keys}
    known = [x for x in inspect.signature(known_optimizers()[name]).parameters if x not in own]
    given = dict(given or {})
    for keyword in given:
        if keyword not in known:
            keys = ', '.join(f'train.{key}' for key in ('learning_rate', *used))
            raise UserError(
                f'train.optimizer_keywords: {name} has the keywords {", ".join(known) or "none"}, '
                f'and no {keyword!r}; {keys} are keys of their own'
            )
    return {keyword: config[key] for keyword, key in of_keys.items()} | given


def _checked(
    config: ConfigDict, make: Callable[[], optax.GradientTransformation]
) -> optax.GradientTransformation:
    """An optimizer that was tried on two parameters, without computing anything.

    Raises:
        UserError: it cannot be made, cannot work with gradients alone, or cannot be saved.
    """
    params = {'Dense_0': {'kernel': jnp.zeros((2, 3)), 'bias': jnp.zeros(3)}}
    try:
        optimizer = make()
        updates, state = jax.eval_shape(lambda x: optimizer.update(x, optimizer.init(x), x), params)
        if jax.tree.map(jnp.shape, updates) != jax.tree.map(jnp.shape, params):
            raise ValueError('its updates have other shapes than the gradients of a batch')
        if any(x.size == 0 for x in jax.tree.leaves(state)):
            raise ValueError('its state has empty arrays, which checkpoints cannot hold')
    except Exception as error:  # optimizers check nothing, so that anything may go wrong
        raise UserError(
            f'train.optimizer={config.optimizer!r} with train.optimizer_keywords='
            f'{dict(config.optimizer_keywords or {})} cannot train here: {error}'
        ) from error
    return optimizer


def _by_stream(stateless: optax.GradientTransformation) -> optax.GradientTransformation:
    """A transformation that has no state, of the gradients of each stream of a `Fusion`."""

    def update(updates: dict, _) -> dict:
        return {name: stateless.update(x, optax.EmptyState())[0] for name, x in updates.items()}

    return optax.stateless(update)


def _kernels(params: dict) -> dict:
    return jax.tree_util.tree_map_with_path(lambda path, _: path[-1].key == 'kernel', params)
