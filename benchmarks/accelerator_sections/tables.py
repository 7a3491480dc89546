"""Markdown tables of the rows."""

import collections
from collections.abc import Callable, Sequence

from accelerator_sections.rows import latest

_SHOWN_STEPS = (1, 10, 20, 30, 40, 50)

TITLES = {
    'a': 'What the device reaches',
    'b': 'Attention alone, bfloat16, forward and with the gradient of queries, keys and values',
    'c': 'Models, bfloat16, the largest batch that fits',
    'd': 'The same work elsewhere, bfloat16',
    'e': 'Augmentation in the training step',
    'f': 'Losses of 50 steps from one seed, on the same clips',
    'g': 'A training step of every model, bfloat16',
}


def machine_text(machine: dict) -> str:
    """The machine, its libraries and the date."""
    packages = ', '.join(f'{name} {version}' for name, version in machine['packages'].items())
    memory = f', {machine["memory_gib"]} GiB for JAX' if machine['memory_gib'] else ''
    driver = f', driver {machine["driver"]}' if machine['driver'] else ''
    return (
        f'{machine["num_devices"]} x {machine["device_kind"]} ({machine["platform"]}){memory}'
        f'{driver}, {machine["cpus"]} CPUs, Python {machine["python"]}; {packages}; '
        f'{machine["date"]}'
    )


def section_text(section: str, rows: Sequence[dict]) -> str:
    """Title and table of a section, and a list of what is missing; '' if it has no rows.

    Args:
        section: the letter of the section.
        rows: the rows of all sections.
    """
    own = [row for row in rows if row['section'] == section]
    if not own:
        return ''
    keys = ('name', 'model', 'size', 'program')
    newest = {tuple(map(row.get, keys)): row for row in own if row['status'] == 'measured'}
    measured = list(newest.values())
    table = _TABLES[section](measured, rows) if measured else ''
    missing = collections.defaultdict(list)
    for row in own:
        if row['status'] != 'measured':
            missing[f'{row["status"]}: {row["reason"]}'].append(_title(row))
    lines = '\n'.join(f'- {reason}: {"; ".join(names)}' for reason, names in missing.items())
    return '\n\n'.join(filter(None, (f'### {TITLES[section]}', table, lines)))


def row_text(row: dict) -> str:
    """A row in one line."""
    if row['status'] != 'measured':
        return f'{_title(row)}: {row["status"]}: {row["reason"]}'
    parts = [f'{_ms(row)} ms'] if 'ms' in row else []
    parts += [f'{row["tflops"]:.3g} TFLOP/s'] if row.get('tflops') else []
    parts += [f'loss {row["losses"][0]:.3f} to {row["losses"][-1]:.3f}'] if 'losses' in row else []
    return f'{_title(row)}: {", ".join(parts)}'


def _title(row: dict) -> str:
    model = None if row.get('model', '') in row['name'] else row['model']
    return ', '.join(filter(None, (row['name'], model, row.get('program'))))


def _device(rows: list[dict], _) -> str:
    return _table(
        rows,
        ('', lambda row: row['name']),
        ('ms', _ms),
        ('TFLOP/s', _number('tflops', '.3g')),
        ('GB/s, read and written', _number('gb_per_s', '.0f')),
    )


def _attention(rows: list[dict], _) -> str:
    """A line for each length and program, a column for each implementation, in ms."""
    names = list(dict.fromkeys(row['implementation'] for row in rows))
    cases = {(row['program'], row['tokens'], row['batch']) for row in rows}
    lines = []
    for program, tokens, batch in sorted(cases):
        found = [row for row in rows if (row['program'], row['tokens']) == (program, tokens)]
        fastest = min(found, key=lambda row: row['ms'])
        lines.append(
            {
                **{row['implementation']: f'{row["ms"]:.3f}' for row in found},
                'program': program,
                'tokens': tokens,
                'batch': batch,
                'fastest': fastest['implementation'],
                'tflops': fastest['tflops'],
                'difference': max(row.get('difference', 0.0) for row in found),
            }
        )
    return _table(
        lines,
        ('', lambda line: line['program']),
        ('tokens', lambda line: str(line['tokens'])),
        ('sequences', lambda line: str(line['batch'])),
        *((f'{name} ms', lambda line, name=name: line.get(name, '-')) for name in names),
        ('fastest', lambda line: line['fastest']),
        ('its TFLOP/s', _number('tflops', '.3g')),
        ('largest difference to the first', _number('difference', '.1e')),
    )


def _models(rows: list[dict], _) -> str:
    return _table(
        rows,
        ('model', lambda row: f'{row["model"]} {row["size"]}'),
        ('', lambda row: row['program']),
        ('batch', lambda row: str(row['batch'])),
        ('remat', lambda row: row['remat']),
        *_SPEED,
        ('program GiB', _number('program_gib', '.1f')),
        ('peak GiB', _number('peak_gib', '.1f')),
        ('compiled in s', _number('compile_s', '.0f')),
    )


def _peers(rows: list[dict], known: Sequence[dict]) -> str:
    def ratio(row: dict) -> str:
        labels = {name: row[name] for name in ('model', 'size', 'program')}
        ours = latest(known, section='c', **labels)
        return f'{row["ms_per_clip"] / ours["ms_per_clip"]:.2f}' if ours else '-'

    return _table(
        rows,
        ('', lambda row: row['name']),
        ('model', lambda row: f'{row["model"]} {row["size"]}'),
        ('', lambda row: row['program']),
        ('batch', lambda row: str(row['batch'])),
        *_SPEED,
        ('peak GiB', _number('peak_gib', '.1f')),
        ('time / ours', ratio),
    )


def _augmentation(rows: list[dict], _) -> str:
    return _table(
        rows,
        ('recipe', lambda row: row['recipe']),
        ('batch', lambda row: str(row['batch'])),
        ('ms', _ms),
        ('clips/s', _number('clips_per_s', '.1f')),
        ('share of the step', _number('share', '.1%')),
    )


def _losses(rows: list[dict], _) -> str:
    steps = (
        (f'step {step}', lambda row, step=step: f'{row["losses"][step - 1]:.4f}')
        for step in _SHOWN_STEPS
    )
    difference = ('largest relative difference', _number('difference', '.2%'))
    return _table(rows, ('', lambda row: row['dtype']), *steps, difference)


def _every_model(rows: list[dict], _) -> str:
    return _table(
        rows,
        ('model', lambda row: row['model']),
        ('clip', lambda row: 'x'.join(map(str, row['clip']))),
        ('batch', lambda row: str(row['batch'])),
        ('compiled in s', _number('compile_s', '.0f')),
        *_SPEED,
        ('loss', _number('loss', '.3f')),
    )


def _table(rows: Sequence[dict], *columns: tuple[str, Callable[[dict], str]]) -> str:
    lines = [[title for title, _ in columns], ['---'] * len(columns)]
    lines += [[text(row) for _, text in columns] for row in rows]
    return '\n'.join(f'| {" | ".join(line)} |' for line in lines)


def _number(key: str, form: str) -> Callable[[dict], str]:
    return lambda row: '-' if row.get(key) is None else format(row[key], form)


def _ms(row: dict) -> str:
    """The median in ms, and the distance between the extremes."""
    spread = (row['ms_max'] - row['ms_min']) / row['ms']
    return f'{row["ms"]:.4g} (± {spread / 2:.1%})'


_SPEED = (
    ('ms', _ms),
    ('clips/s', _number('clips_per_s', '.1f')),
    ('TFLOP/s', _number('tflops', '.3g')),
    ('of the measured peak', _number('fraction', '.1%')),
)

_TABLES = {
    'a': _device,
    'b': _attention,
    'c': _models,
    'd': _peers,
    'e': _augmentation,
    'f': _losses,
    'g': _every_model,
}
