"""Times functions on a device that works while Python continues."""

import math
import statistics
import time
from collections.abc import Callable

_MOST_REPEATS = 20


def measure_time(
    run: Callable[[], object], wait: Callable[[object], object], seconds: float
) -> dict[str, float]:
    """Times calls of a function that has been compiled.

    A repeat makes calls without waiting between them, as training does, for at least a twentieth
    of `seconds`; its clock stops when the last call is done.

    Args:
        run: starts the work, and returns what `wait` waits for.
        wait: waits for a result, such as `jax.block_until_ready`.
        seconds: the approximate time to spend.

    Returns:
        Milliseconds of a call: `ms`, the median over `repeats`, and the extremes `ms_min` and
        `ms_max`.
    """

    def timed(calls: int) -> float:
        start = time.perf_counter()
        for _ in range(calls):
            last = run()
        wait(last)
        return (time.perf_counter() - start) / calls

    timed(1)
    single = timed(1)
    calls = max(1, math.ceil(seconds / _MOST_REPEATS / single))
    repeats = min(_MOST_REPEATS, max(3, round(seconds / (calls * single))))
    times = [1e3 * timed(calls) for _ in range(repeats)]
    return {
        'ms': statistics.median(times),
        'ms_min': min(times),
        'ms_max': max(times),
        'repeats': repeats,
    }
