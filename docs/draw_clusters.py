"""Draws which patches share a cluster of relative positions, as seen from a patch in the middle.

python docs/draw_clusters.py > docs/clusters.svg
"""

import argparse

from vivit_jax.models.rpe_stdt.clusters import count_clusters, pair_clusters
from vivit_jax.models.rpe_stdt.specification import RpeStdt

_CELL = 26  # pixels


def main():
    """Prints an SVG."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--side', type=int, default=14, help='patches along each axis')
    parser.add_argument('--ratio', type=float, default=1.5)
    choices = RpeStdt.choices()
    parser.add_argument('--function', choices=choices['rpe_function'], default='sectioned')
    parser.add_argument('--method', choices=choices['rpe_method'], default='product')
    args = parser.parse_args()
    side, grid = args.side, (args.side, args.side)
    center = side // 2 * (side + 1)
    clusters = pair_clusters(grid, args.ratio, args.function, args.method)[1 + center, 1:]
    count = count_clusters(grid, args.ratio, args.method) - 1  # without the class token's

    size = side * _CELL + 2
    print(f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="-1 -1 {size} {size}" width="{size}"')
    print(' font-family="sans-serif" font-size="11" text-anchor="middle" stroke="white">')
    for place, cluster in enumerate(clusters):
        row, column = divmod(place, side)
        # Neighboring numbers get hues far apart.
        color = f'hsl({cluster * 137.5 % 360:.0f},55%,{72 + 12 * cluster / count:.0f}%)'
        print(
            f'<rect x="{column * _CELL}" y="{row * _CELL}" width="{_CELL}" height="{_CELL}" '
            f'fill="{color}"/><text x="{(column + 0.5) * _CELL:g}" y="{(row + 0.65) * _CELL:g}" '
            f'fill="black" stroke="none">{cluster}</text>'
        )
    corner = side // 2 * _CELL
    print(
        f'<rect x="{corner}" y="{corner}" width="{_CELL}" height="{_CELL}" fill="none" '
        'stroke="black" stroke-width="2"/></svg>'
    )


if __name__ == '__main__':
    main()
