"""The state before the first step: of fresh parameters, or of weights that a config names."""

import functools
import logging

import jax

from vivit_jax.model_card import ModelCard
from vivit_jax.models.variables import init_variables
from vivit_jax.parallel.to_device import put_whole
from vivit_jax.train.programs import Programs
from vivit_jax.train.state import TrainState, start_state
from vivit_jax.weights.batch_statistics import fit_statistics
from vivit_jax.weights.classes import match_classes
from vivit_jax.weights.init_from import describe_differences, init_from
from vivit_jax.weights.load import read_weights
from vivit_jax.weights.report import Report

_log = logging.getLogger(__name__)


def read_start_variables(programs: Programs, card: ModelCard) -> tuple[dict, Report]:
    """Variables that start from `init_from`, on this host, and what became of each.

    Args:
        programs: of the config.
        card: of the model that is to be trained.

    Raises:
        UserError: the weights cannot be read, or do not fit the model.
    """
    config, model, spec = programs.config, programs.model, programs.spec
    weights = read_weights(config.init_from)
    _log.info('Starting from %s: %s', config.init_from, weights.kind)
    for line in describe_differences(card, weights):
        _log.warning('%s', line)
    if 'head' not in config.init.reinit:
        weights = match_classes(weights, card.label_names)
    key = jax.random.key(config.seed)
    fresh = jax.jit(lambda: init_variables(key, model, spec.clip_shape))()
    params, report = init_from(
        model,
        fresh['params'],
        weights,
        clip_shape=spec.clip_shape,
        reinit=config.init.reinit,
        tubelet_init=config.init.tubelet,
        temporal_attention_init=config.init.temporal_attention,
    )
    _log.info('%s', report)
    statistics = fit_statistics(fresh['batch_stats'], weights.batch_stats)
    return jax.device_get({'params': params, 'batch_stats': statistics}), report


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
