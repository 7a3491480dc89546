"""Which class a mirrored clip shows: classes that have a left and a right change places."""

import re
from collections.abc import Sequence

import numpy as np

from vivit_jax.errors import UserError
from vivit_jax.heads import LabelNames, PerHead, by_head, map_heads

_DIRECTIONS = re.compile(
    r'(?<![^\W_])(left|right|(counter|anti)?clockwise)(?![^\W_])', re.IGNORECASE
)


def mirrored_labels(
    label_names: LabelNames, swaps: Sequence[tuple[str, str]]
) -> PerHead[np.ndarray] | None:
    """For every class the class of the mirrored clip: the one with the words of `swaps` exchanged.

    Words are whole, and may be upper case or capitalized: of ('left', 'right'), 'Turning left' and
    'Turning right' are exchanged, and 'leftover' is itself.

    Args:
        label_names: names of the classes, of each head.
        swaps: pairs of words.

    Returns:
        int32 [classes] of each head; None without swaps.

    Raises:
        UserError: a pair is none, a word is in two, no class has any of the words, or the name
            with the words exchanged is no class.
    """
    if not swaps:
        return None
    other = _other_words(swaps)
    longest_first = sorted(map(re.escape, other), key=len, reverse=True)
    # A word ends where letters and digits do.
    pattern = re.compile(rf'(?<![^\W_])({"|".join(longest_first)})(?![^\W_])', re.IGNORECASE)

    def exchange(match: re.Match) -> str:
        word = match[0]
        new = other[word.lower()]
        if word.isupper():
            return new.upper()
        return new.capitalize() if word[0].isupper() else new

    def mirrored(names: Sequence[str]) -> np.ndarray:
        index = {name: number for number, name in enumerate(names)}
        new_names = [pattern.sub(exchange, name) for name in names]
        missing = [
            f'{name!r} (mirrored: {new!r})'
            for name, new in zip(names, new_names, strict=True)
            if new not in index
        ]
        if missing:
            raise UserError(
                f'augment.flip_swaps={swaps}: mirrored, these are no classes: '
                f'{", ".join(missing)}. Change the words, or set augment.flip=0'
            )
        return np.array([index[name] for name in new_names], np.int32)

    if not any(pattern.search(name) for names in by_head(label_names).values() for name in names):
        raise UserError(f'augment.flip_swaps={swaps}: no class has any of these words')
    return map_heads(mirrored, label_names)


def find_directions(label_names: LabelNames) -> list[str]:
    """Classes whose names have words for what a mirror exchanges."""
    names = [name for names in by_head(label_names).values() for name in names]
    return [name for name in names if _DIRECTIONS.search(name)]


def _other_words(swaps: Sequence[tuple[str, str]]) -> dict[str, str]:
    other = {}
    for pair in swaps:
        is_pair = not isinstance(pair, str) and len(pair) == 2
        if not is_pair or not all(isinstance(word, str) and word for word in pair):
            raise UserError(
                f"augment.flip_swaps={swaps} must be pairs of words, as (('left', 'right'),)"
            )
        first, second = (word.lower() for word in pair)
        if first == second or first in other or second in other:
            raise UserError(f'augment.flip_swaps={swaps}: every word may be in one pair only')
        other |= {first: second, second: first}
    return other
