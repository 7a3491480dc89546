"""Puts the outputs of a trained classifier in the order of other classes."""

import dataclasses
from collections.abc import Sequence

from vivit_jax.errors import UserError
from vivit_jax.heads import LabelNames, by_head, numbered_labels, plain_name
from vivit_jax.weights.weights import Weights


def match_classes(weights: Weights, label_names: LabelNames) -> Weights:
    """Weights whose classifiers have their outputs in the order of `label_names`.

    Names are the same if they differ only in case, blanks and underscores. Weights without a
    classifier, classes of which only numbers are known, and another number of classes or other
    heads are left alone: nothing of them can be matched.

    Raises:
        UserError: there are as many classes, but not the same.
    """
    params = dict(weights.params)
    trained, wanted = by_head(weights.card.label_names), by_head(label_names)
    for head in trained.keys() & wanted.keys():
        name = f'output_projection_{head}' if head else 'output_projection'
        if name not in params or len(trained[head]) != len(wanted[head]):
            continue
        if numbered_labels(len(wanted[head])) in (trained[head], wanted[head]):
            continue
        places = {plain_name(x): place for place, x in enumerate(trained[head])}
        if places.keys() != set(map(plain_name, wanted[head])):
            raise UserError(
                f'init_from: the classifier of these weights was trained for other classes: '
                f'{_shorten(trained[head])}, and this training has {_shorten(wanted[head])}. '
                'Ask for a new classifier with --config.init.reinit=head, or give the same names'
            )
        order = [places[plain_name(x)] for x in wanted[head]]
        params[name] = {key: x[..., order] for key, x in params[name].items()}
    return dataclasses.replace(weights, params=params)


def _shorten(names: Sequence[str], most: int = 8) -> str:
    more = f', … ({len(names)} in all)' if len(names) > most else ''
    return ', '.join(map(repr, names[:most])) + more
