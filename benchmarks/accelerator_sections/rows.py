"""Rows: the results of measurements, as flat dicts that can be written as JSON.

Every row has `section`, `name` and `status`: `'measured'`; `'failed'`; `'left out'`, if the machine
lacks something that it needs; or `'skipped'`, if time was short. All but measured rows have a
`reason`.
"""

import re
from collections.abc import Callable, Mapping, Sequence


class LeftOut(Exception):
    """The machine lacks something that a measurement needs; the message says what."""


def attempt(labels: Mapping[str, object], measure: Callable[..., Mapping], *args) -> dict:
    """The row that `measure(*args)` returns, or a row with the reason why it failed."""
    try:
        return {**labels, 'status': 'measured', **measure(*args)}
    except LeftOut as error:
        return {**labels, 'status': 'left out', 'reason': str(error)}
    except Exception as error:  # whatever it is, the other rows are still to come
        return {**labels, 'status': 'failed', 'reason': describe(error)}


def describe(error: BaseException) -> str:
    """An exception in one line."""
    text = ' '.join(str(error).split())
    return f'{type(error).__name__}: {text}'[:300].replace('|', '/')


def ran_out_of_memory(error: BaseException) -> bool:
    """Whether an exception of JAX or PyTorch says that memory ran out."""
    return bool(re.search('RESOURCE_EXHAUSTED|out of memory', str(error), re.IGNORECASE))


def with_smaller_batches(batch: int, run: Callable[[int], dict]) -> dict:
    """Calls `run(batch)`; halves the batch as long as memory is short."""
    while True:
        try:
            return run(batch)
        except Exception as error:
            if batch == 1 or not ran_out_of_memory(error):
                raise
        batch //= 2  # outside, where the exception no longer holds the arrays of its frames


def latest(rows: Sequence[Mapping], **values) -> dict | None:
    """The last measured row with these values."""
    for row in reversed(rows):
        if row['status'] == 'measured' and values.items() <= row.items():
            return dict(row)
    return None


def measured_peak(rows: Sequence[Mapping]) -> float | None:
    """TFLOP/s of the fastest bfloat16 matrix product; None before section a."""
    found = [row['tflops'] for row in rows if row['section'] == 'a' and 'tflops' in row]
    return max(found, default=None)


def rates(ms: float, batch: int, gmac: float | None = None, peak: float | None = None) -> dict:
    """Time of a clip, clips a second, TFLOP/s and their share of `peak`, on one device.

    Args:
        ms: milliseconds of a batch.
        batch: clips of one device.
        gmac: 1e9 multiply-adds of a clip, if known, without repeats by rematerialisation.
        peak: TFLOP/s of a matrix product, if known.
    """
    found = {'batch': batch, 'ms_per_clip': ms / batch, 'clips_per_s': 1e3 * batch / ms}
    if gmac:
        found['tflops'] = 2 * gmac * batch / ms
        if peak:
            found['fraction'] = found['tflops'] / peak
    return found
