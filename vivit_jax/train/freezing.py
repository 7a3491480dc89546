"""Frozen parameters: no gradient, no state of the optimizer, no update.

Held parameters are frozen at first: no gradient and no update, until they are let go.
"""

import operator
import re
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from vivit_jax.errors import UserError
from vivit_jax.parameter_names import parameter_names


class Hold(NamedTuple):
    """Which parameters do not change at first.

    Attributes:
        patterns: see `find_frozen`.
        steps: for how many steps they do not change.
        rise: steps after that, in which their updates rise linearly to what they are otherwise.
    """

    patterns: Sequence[str] = ()
    steps: int = 0
    rise: int = 0

    def scale_updates(self) -> optax.GradientTransformation:
        """The transformation of updates that does this."""
        scale = optax.join_schedules(
            [optax.constant_schedule(0.0), optax.linear_schedule(0.0, 1.0, max(1, self.rise))],
            [self.steps],
        )
        return optax.masked(
            optax.scale_by_schedule(scale),
            lambda updates: find_frozen(updates, self.patterns, 'train.hold'),
        )


def find_frozen(params: dict, patterns: Sequence[str], key: str = 'train.freeze') -> dict:
    """A tree of bool: whether a regular expression is found in the parameter's name.

    Args:
        params: the parameters.
        patterns: regular expressions.
        key: of the config that has the patterns, for messages.

    Raises:
        UserError: a pattern is none, or is found nowhere; nothing is left to train.
    """
    names = parameter_names(params)
    flat = jax.tree.leaves(names)
    for pattern in patterns:
        try:
            found = any(re.search(pattern, name) for name in flat)
        except (re.error, TypeError) as error:
            raise UserError(f'{key}: {pattern!r} is no regular expression: {error}') from error
        if not found:
            raise UserError(
                f'{key}: {pattern!r} is found in no name of a parameter, such as '
                f'{flat[0]} or {flat[-1]}'
            )
    frozen = jax.tree.map(lambda name: any(re.search(p, name) for p in patterns), names)
    if all(jax.tree.leaves(frozen)):
        raise UserError(f'{key}={tuple(patterns)} leaves nothing to train')
    return frozen


def stop_frozen(params: dict, patterns: Sequence[str]) -> dict:
    """The parameters for a loss: frozen ones get no gradient, and none is computed for them."""
    return jax.tree.map(
        lambda x, is_frozen: jax.lax.stop_gradient(x) if is_frozen else x,
        params,
        find_frozen(params, patterns),
    )


def leave_frozen(
    optimizer: optax.GradientTransformation, patterns: Sequence[str]
) -> optax.GradientTransformation:
    """The optimizer of the other parameters; the updates of frozen ones are 0."""
    masked = optax.masked(
        optimizer, lambda params: jax.tree.map(operator.not_, find_frozen(params, patterns))
    )

    def update(
        gradients: dict, state: optax.OptState, params: dict | None = None
    ) -> tuple[dict, optax.OptState]:
        updates, state = masked.update(gradients, state, params)
        frozen = find_frozen(updates, patterns)
        return jax.tree.map(lambda x, f: jnp.zeros_like(x) if f else x, updates, frozen), state

    return optax.GradientTransformation(masked.init, update)
