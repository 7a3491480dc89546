"""Values of one classification head, or of several heads with names.

With one head, its value (a label, class names, logits) stands alone. With several heads there is a
dict head -> value, in the order of `data.label_columns`.
"""

from collections.abc import Callable
from typing import TypeAlias, TypeVar

_T = TypeVar('_T')
_R = TypeVar('_R')

PerHead: TypeAlias = _T | dict[str, _T]

LabelNames: TypeAlias = PerHead[tuple[str, ...]]  # classes in the order of the logits


def map_heads(function: Callable[..., _R], value: PerHead, *others: PerHead) -> PerHead[_R]:
    """Calls `function(value, *others)` for the only head, or for each head in the order of `value`.

    Unlike `jax.tree.map`, this function keeps the order of the heads, and needs no JAX.
    """
    if isinstance(value, dict):
        return {head: function(value[head], *(x[head] for x in others)) for head in value}
    return function(value, *others)


def by_head(value: PerHead[_T]) -> dict[str, _T]:
    """Values by the names of the heads; the name of the only head is ''."""
    return value if isinstance(value, dict) else {'': value}


def head_names(value: PerHead) -> tuple[str, ...]:
    """The names of several heads; empty if there is only one, which has no name."""
    return tuple(value) if isinstance(value, dict) else ()


def name_heads(name: str, value: PerHead[_T]) -> dict[str, _T]:
    """`{'<head>/<name>': …}` for each of several heads, or `{name: value}` for the only one."""
    return {f'{head}/{name}' if head else name: x for head, x in by_head(value).items()}


def numbered_labels(num_classes: PerHead[int]) -> LabelNames:
    """Names for classes of which only the number is known: `('0', '1', …)`."""
    return map_heads(lambda count: tuple(map(str, range(count))), num_classes)


def plain_name(name: str) -> str:
    """A class name by which to compare: in lower case, with single blanks for `_` and blanks."""
    return ' '.join(name.replace('_', ' ').casefold().split())
