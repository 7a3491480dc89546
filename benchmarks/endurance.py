"""Disturbs trainings, videos and files of weights in every way, and counts what comes of it.

    python benchmarks/endurance.py --output=runs/endurance --kills=100 --disks=15 \
        --videos=10000 --images=1000 --weights=1000

Trainings are killed and resumed until they end, and must give what a training gives that nobody
disturbed, bit for bit; so must trainings whose disk was full, read-only or gone (`--disks`, which
needs root). Videos, images of frame folders and files of weights are changed at random, and must be
refused in one line, or be read. Cases have numbers, which are their seeds: the same command goes on
where it was interrupted. Prints a table in Markdown; the cases stand in `cases.jsonl` of the output
folder.
"""

import argparse
import collections
import json
from pathlib import Path

from endurance_parts import disks, files, kills

PARTS = {'kills': kills.run, 'disks': disks.run, **files.PARTS}


def main():
    """Runs the cases that were not run yet, and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument('--output', type=Path, required=True)
    for part in PARTS:
        parser.add_argument(f'--{part}', type=int, default=0, help='number of cases')
    args = parser.parse_args()

    args.output.mkdir(parents=True, exist_ok=True)
    path = args.output / 'cases.jsonl'
    cases = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    with path.open('a', encoding='utf-8') as file:
        for part, run in PARTS.items():
            done = sum(case['part'] == part for case in cases)
            folder = args.output / part
            folder.mkdir(exist_ok=True)
            for kind, outcome, seconds in run(folder, getattr(args, part) - done, done):
                case = {'part': part, 'kind': kind, 'outcome': outcome, 'sec': round(seconds, 2)}
                cases.append(case)
                print(json.dumps(case), file=file, flush=True)
    _print_table(cases)


def _print_table(cases: list[dict]):
    groups = collections.defaultdict(list)
    for case in cases:
        groups[case['part'], case['kind']].append(case)
    print('| part | kind | cases | outcomes | longest |')
    print('|---|---|---|---|---|')
    for (part, kind), group in sorted(groups.items()):
        outcomes = collections.Counter(case['outcome'].splitlines()[0] for case in group)
        words = '; '.join(f'{number} {outcome}' for outcome, number in outcomes.most_common())
        longest = max(case['sec'] for case in group)
        print(f'| {part} | {kind} | {len(group)} | {words} | {longest:.1f} s |')


if __name__ == '__main__':
    main()
