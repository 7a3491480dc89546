"""The state before the first step: of fresh parameters, or of weights that a config names."""

import functools
import logging

import jax
from ml_collections import ConfigDict

from vivit_jax.model_card import ModelCard
from vivit_jax.models.variables import init_variables
from vivit_jax.parallel.to_device import put_whole
from vivit_jax.train.programs import Programs
from vivit_jax.train.state import TrainState, start_state
from vivit_jax.weights.init_from import describe_differences
from vivit_jax.weights.load import read_weights
from vivit_jax.weights.report import Report
from vivit_jax.weights.streams import start_variables
from vivit_jax.weights.weights import Weights

_log = logging.getLogger(__name__)


def read_start_variables(programs: Programs, card: ModelCard) -> tuple[dict, Report]:
    """Variables that start from `init_from`, on this host, and what became of each.

    If `init.depth_from` is set, the depth stream of a `Fusion` starts from there.

    Args:
        programs: of the config.
        card: of the model that is to be trained.

    Raises:
        UserError: the weights cannot be read, or do not fit the model.
    """
    config, model, spec = programs.config, programs.model, programs.spec
    weights, depth_weights = (
        _read(path, card, config.init) if path else None
        for path in (config.init_from, config.init.depth_from)
    )
    key = jax.random.key(config.seed)
    fresh = jax.jit(lambda: init_variables(key, model, spec.clip_shape))()
    variables, report = start_variables(
        model,
        fresh,
        weights,
        depth_weights,
        label_names=None if 'head' in config.init.reinit else card.label_names,
        clip_shape=spec.clip_shape,
        reinit=config.init.reinit,
        tubelet_init=config.init.tubelet,
        temporal_attention_init=config.init.temporal_attention,
    )
    _log.info('%s', report)
    return jax.device_get(variables), report


def _read(path: str, card: ModelCard, init: ConfigDict) -> Weights:
    weights = read_weights(
        path,
        grid=tuple(init.grid) or None,
        frames=card.preprocessing.clip_shape[0],
        crop_size=card.preprocessing.crop_size,
        allow_non_finite=init.allow_non_finite,
    )
    _log.info('Starting from %s: %s', path, weights.kind)
    for line in describe_differences(card, weights):
        _log.warning('%s', line)
    return weights


def create_first_state(programs: Programs, variables: dict | None = None) -> TrainState:
    """The state on the devices, with given variables or with fresh ones."""
    sharding = programs.state_sharding
    if variables is None:
        return jax.jit(programs.create_state, out_shardings=sharding)()
    variables = put_whole(
        variables, {'params': sharding.params, 'batch_stats': sharding.batch_stats}
    )
    start = functools.partial(
        start_state,
        optimizer=programs.optimizer,
        has_ema=bool(programs.config.train.ema_decay),
    )
    return jax.jit(start, out_shardings=sharding)(variables)
