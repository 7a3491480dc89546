"""Where the time before the first step goes."""

import time


class PartsClock:
    """Measures parts of the time that follow one another.

    Args:
        began: `time.monotonic()` when the first part began; by default now.
    """

    def __init__(self, began: float | None = None):
        self._began = self._last = time.monotonic() if began is None else began
        self._parts: dict[str, float] = {}

    def ends(self, part: str):
        """Says that a part ends now, and the next one begins."""
        now = time.monotonic()
        self._parts[part], self._last = now - self._last, now

    def __str__(self) -> str:
        parts = ', '.join(f'{name} {seconds:.1f}' for name, seconds in self._parts.items())
        return f'{self._last - self._began:.1f} s: {parts}'
