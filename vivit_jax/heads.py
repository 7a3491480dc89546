"""One classification head, or several with names.

A value of a head (a label, class names, logits) is plain if there is one head. If there are
several, it is a dict head -> value in the order of `data.label_columns`.
"""

from collections.abc import Callable
from typing import TypeVar

_T = TypeVar('_T')
_R = TypeVar('_R')

PerHead = _T | dict[str, _T]

LabelNames = PerHead[tuple[str, ...]]  # classes in the order of the logits


def map_heads(function: Callable[..., _R], value: PerHead, *others: PerHead) -> PerHead[_R]:
    """Calls `function(value, *others)` for the one head, or for each in the order of `value`.

    Unlike `jax.tree.map` it keeps that order, and it needs no JAX.
    """
    if isinstance(value, dict):
        return {head: function(value[head], *(x[head] for x in others)) for head in value}
    return function(value, *others)


def by_head(value: PerHead[_T]) -> dict[str, _T]:
    """Values by the names of the heads; the name of the only head is ''."""
    return value if isinstance(value, dict) else {'': value}


def head_names(value: PerHead) -> tuple[str, ...]:
    """The names of several heads; empty where there is one, which needs none."""
    return tuple(value) if isinstance(value, dict) else ()


def name_heads(name: str, value: PerHead[_T]) -> dict[str, _T]:
    """`{'<head>/<name>': …}` for each of several heads, or `{name: value}` for the only one."""
    return {f'{head}/{name}' if head else name: x for head, x in by_head(value).items()}


def numbered_labels(num_classes: PerHead[int]) -> LabelNames:
    """`('0', '1', …)`: names for classes if only their number is known."""
    return map_heads(lambda count: tuple(map(str, range(count))), num_classes)
