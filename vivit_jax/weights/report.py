"""What became of every parameter when weights were taken from elsewhere."""

import collections
import dataclasses
import fnmatch
import re

from vivit_jax.errors import UserError

# 'unused' is said of parameters of the source, every other status of parameters of the target.
# `Report.check` always refuses 'misfit'.
STATUSES = ('copied', 'resized', 'inflated', 'new', 'unused', 'misfit')

_ADVICE = {
    'new': (
        'new: the source lacks it. Take weights that have it, or lower num_layers; code that '
        'wants it fresh names it in check(new=...)'
    ),
    'head': (
        'the classifier was made for other classes: ask for a new one with '
        '--config.init.reinit=head, or --reinit=head of vivit_jax.convert'
    ),
    'unused': (
        'unused: the model has no such parameter. Check that it is the model these weights were '
        'made for, or raise num_layers; code that leaves it out on purpose names it in '
        'check(unused=...)'
    ),
    'misfit': (
        'misfit: the shapes differ. Set hidden_size, mlp_dim, num_heads, tubelet_size and '
        "depth_channels to the source's, or take weights of these sizes"
    ),
}

_LAYER = re.compile(r'(?<=encoderblock_)\d+')


@dataclasses.dataclass(frozen=True)
class Entry:
    """What became of one parameter.

    Attributes:
        status: one of `STATUSES`.
        name: path with slashes in the target, or in the source if the status is `'unused'`.
        source: path in the source; empty if the parameter does not come from there.
        detail: a few words more, such as `'grid 14x14 -> 16x16'`.
    """

    status: str
    name: str
    source: str = ''
    detail: str = ''


@dataclasses.dataclass(frozen=True)
class Report:
    """An entry for every parameter of the target, and for every unused parameter of the source.

    `str(report)` is a table in which layers with the same entries share a line.
    """

    entries: tuple[Entry, ...]

    def __str__(self) -> str:
        counts = collections.Counter(entry.status for entry in self.entries)
        totals = ', '.join(f'{counts[status]} {status}' for status in STATUSES if counts[status])
        return f'{_table(self.entries)}\n{totals}'

    def check(self, *, new: tuple[str, ...] = (), unused: tuple[str, ...] = ()):
        """Makes sure that every new or unused parameter was expected.

        Args:
            new: shell-style patterns of target parameters that may be new, such as
                `'output_projection/*'`; a star matches slashes too.
            unused: shell-style patterns of source parameters that may be unused.

        Raises:
            UserError: lists all parameters that are new or unused and match no pattern, and all
                parameters that do not fit.
        """
        allowed = {'new': new, 'unused': unused, 'misfit': ()}
        wrong = [
            entry
            for entry in self.entries
            if entry.status in allowed
            and not any(fnmatch.fnmatchcase(entry.name, x) for x in allowed[entry.status])
        ]
        if wrong:
            statuses = {
                'head' if entry.name.startswith('output_projection') else entry.status
                for entry in wrong
            }
            advice = [text for status, text in _ADVICE.items() if status in statuses]
            raise UserError(
                '\n'.join(['the weights do not fit the model:', _table(wrong), *advice])
            )


def _table(entries) -> str:
    groups = collections.defaultdict(list)
    for entry in entries:
        name, source = (_LAYER.sub('*', x) for x in (entry.name, entry.source))
        groups[entry.status, name, source, entry.detail].append(entry)
    rows = [('status', 'parameter', 'count', 'source', 'detail')]
    for (status, _, _, detail), group in groups.items():
        name = _join_layers([entry.name for entry in group])
        source = _join_layers([entry.source for entry in group])
        rows.append((status, name, str(len(group)), '(same)' if source == name else source, detail))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return '\n'.join(
        '  '.join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    )


def _join_layers(names: list[str]) -> str:
    """Joins names that differ only in the layer into one, such as `encoderblock_{0…11}`."""
    layers = sorted({int(layer) for name in names for layer in _LAYER.findall(name)})
    if len(layers) < 2:
        return names[0]
    is_run = layers[-1] - layers[0] == len(layers) - 1
    text = f'{layers[0]}…{layers[-1]}' if is_run else ','.join(map(str, layers))
    return _LAYER.sub(f'{{{text}}}', names[0])
