"""Draws which tokens one token attends to in each of the four ViViT models.

python docs/draw_attention.py > docs/attention.svg
"""

import argparse
from typing import NamedTuple

import numpy as np

GRID = (3, 3, 4)  # tokens along t, h and w
QUERY = (1, 1, 1)  # the token whose attention is drawn

# Pixels.
_CELL = 14
_FRAME_GAP = 9
_PANEL_GAP = 34
_TITLE_HEIGHT = 38
_STEP_HEIGHT = 78


class Step(NamedTuple):
    """One attention of a model.

    Attributes:
        text: the caption.
        mask: bool [t h w], tokens that `QUERY` attends to; bool [t], where the tokens are one
            summary for each time index.
    """

    text: str
    mask: np.ndarray


def attended_tokens(axis: str) -> np.ndarray:
    """Bool [t h w]: tokens that share a sequence with `QUERY`.

    Args:
        axis: attention runs along `'clip'` (all tokens), `'space'` (the same time index) or
            `'time'` (the same place).
    """
    time, row, column = np.indices(GRID)
    return {
        'clip': np.full(GRID, True),
        'space': time == QUERY[0],
        'time': (row == QUERY[1]) & (column == QUERY[2]),
    }[axis]


# Model to title and attentions. Source: ViViT (arXiv 2103.15691), section 3.3. Class tokens, which
# share a sequence with all its tokens, are left out.
PANELS = {
    'vivit_joint': ('1. Joint', [Step('all tokens of the clip', attended_tokens('clip'))]),
    'vivit_fe': (
        '2. Factorized encoder',
        [
            Step('first encoder: one time index', attended_tokens('space')),
            Step('second: a summary of each', np.full(GRID[0], True)),
        ],
    ),
    'vivit_fsa': (
        '3. Factorized self-attention',
        [
            Step('in each block along space,', attended_tokens('space')),
            Step('then along time', attended_tokens('time')),
        ],
    ),
    'vivit_fdp': (
        '4. Factorized dot-product',
        [
            Step('half of the heads along time,', attended_tokens('time')),
            Step('the other half along space', attended_tokens('space')),
        ],
    ),
}


def draw() -> str:
    """The picture as SVG, in colors that are legible on white and on black."""
    time, _, columns = GRID
    panel_width = time * columns * _CELL + (time - 1) * _FRAME_GAP
    width = len(PANELS) * panel_width + (len(PANELS) - 1) * _PANEL_GAP
    height = _TITLE_HEIGHT + 2 * _STEP_HEIGHT
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="-1 -1 {width + 2} {height + 2}" '
        f'width="{width + 2}" font-family="sans-serif" font-size="11" fill="#768088">',
        '<title>Tokens that one token attends to in the four ViViT models</title>',
        '<style>rect { fill: none; stroke: #768088 } .seen { fill: #3b82f6 } '
        '.query { fill: #f59e0b } .title { font-size: 12px; font-weight: bold }</style>',
    ]
    for index, (name, (title, steps)) in enumerate(PANELS.items()):
        left = index * (panel_width + _PANEL_GAP)
        lines.append(f'<text class="title" x="{left}" y="12">{title}</text>')
        lines.append(f'<text x="{left}" y="27">{name}</text>')
        for number, step in enumerate(steps):
            top = _TITLE_HEIGHT + number * _STEP_HEIGHT
            lines += _draw_step(step, left, top)
    lines += _draw_legend(_TITLE_HEIGHT + _STEP_HEIGHT)  # the first model has no second step
    return '\n'.join([*lines, '</svg>', ''])


def _draw_step(step: Step, left: int, top: int) -> list[str]:
    _, rows, columns = GRID
    is_summary = step.mask.ndim == 1
    query = QUERY[: step.mask.ndim]
    lines = []
    for place, is_seen in np.ndenumerate(step.mask):
        frame_left = left + place[0] * (columns * _CELL + _FRAME_GAP)
        if is_summary:
            x, y = frame_left, top + (rows - 1) * _CELL // 2
            cell_width = columns * _CELL
        else:
            x, y = frame_left + place[2] * _CELL, top + place[1] * _CELL
            cell_width = _CELL
        kind = 'query' if place == query else 'seen' if is_seen else 'unseen'
        lines.append(
            f'<rect class="{kind}" x="{x}" y="{y}" width="{cell_width}" height="{_CELL}"/>'
        )
    lines.append(f'<text x="{left}" y="{top + rows * _CELL + 15}">{step.text}</text>')
    return lines


def _draw_legend(top: int) -> list[str]:
    lines = []
    for number, (kind, text) in enumerate((('query', 'a token'), ('seen', 'what it attends to'))):
        y = top + number * 20
        lines += [
            f'<rect class="{kind}" x="0" y="{y}" width="{_CELL}" height="{_CELL}"/>',
            f'<text x="{_CELL + 8}" y="{y + 11}">{text}</text>',
        ]
    return [*lines, f'<text x="0" y="{top + 57}">a grid for each time index</text>']


def main():
    """Prints an SVG."""
    argparse.ArgumentParser(description=__doc__.splitlines()[0]).parse_args()
    print(draw(), end='')


if __name__ == '__main__':
    main()
