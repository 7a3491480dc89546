"""The error of a mistake that a user can mend."""

import difflib
from collections.abc import Iterable


class UserError(ValueError):
    """Input, configuration or files cannot be used; the message says what to do.

    The commands print it without a traceback.
    """


def near_words(word: str, known: Iterable[str]) -> str:
    """`"; did you mean 'vivit_fe'?"`, or all known words."""
    near = difflib.get_close_matches(word, known, n=3, cutoff=0.5)
    return f'; did you mean {" or ".join(map(repr, near))}?' if near else f'; known: {list(known)}'
