"""Measures the time and the peak memory of conversions, and of a plain copy of the file.

    python benchmarks/convert_memory.py [--size=L/16x2] [--model=vivit_joint]

Makes a file of random weights, and converts it to every format and back. Each conversion runs in a
process of its own; its peak includes Python and all libraries.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

# This process imports no libraries, because the processes that it starts inherit its peak.
_MAKE_SOURCE = """
import sys
from pathlib import Path
import jax
import numpy as np
from vivit_jax.video.preprocessing import Preprocessing
from vivit_jax.heads import numbered_labels
from vivit_jax.model_card import ModelCard
from vivit_jax.models.registry import create_model
from vivit_jax.models.variables import abstract_params
from vivit_jax.weights.vivit_jax_npz import write_npz

model = {'name': sys.argv[1], 'size': sys.argv[2], 'num_classes': 400}
card = ModelCard(model, Preprocessing(), numbered_labels(400))
rng = np.random.default_rng(0)
shapes = abstract_params(create_model(**model), card.preprocessing.clip_shape)
params = jax.tree.map(lambda x: rng.standard_normal(x.shape, np.float32), shapes)
write_npz(card, params, Path(sys.argv[3]))
"""


def _run(*command: str) -> tuple[float, float]:
    """Seconds and peak GB of a Python process."""
    start = time.monotonic()
    process = subprocess.Popen([sys.executable, *command], stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f'{" ".join(command)} failed')
    return time.monotonic() - start, usage.ru_maxrss * 1024 / 1e9


def main():
    """Prints a line for each conversion."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--size', default='B/16x2')
    parser.add_argument('--model', default='vivit_joint')
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        source = folder / 'source.npz'
        _run('-c', _MAKE_SOURCE, args.model, args.size, str(source))
        size = source.stat().st_size / 1e9
        copy, _ = _run('-c', f"import shutil; shutil.copy('{source}', '{folder}/copy')")
        seconds, peak = _run('-c', 'import vivit_jax.convert.__main__')
        print(f'{args.model} {args.size}: a file of {size:.2f} GB, copied in {copy:.1f} s')
        print(f'{"libraries alone":24} {seconds:5.1f} s  {peak:5.2f} GB')
        outputs = {'orbax': 'orbax', 'torch': 'w.safetensors', 'npz': 'w.npz'}
        if args.model == 'vivit_joint':
            outputs['huggingface'] = 'huggingface'
        for form, output in outputs.items():
            for start, target, to in (
                ('source.npz', output, form),
                (output, f'from_{form}.npz', 'npz'),
            ):
                flags = f'--source={folder / start}', f'--output={folder / target}', f'--to={to}'
                seconds, peak = _run('-m', 'vivit_jax.convert', *flags)
                print(
                    f'{start.split(".")[-1]:>11} -> {to:11} {seconds:5.1f} s  {peak:5.2f} GB, '
                    f'{peak / size:.2f} times the file',
                    flush=True,
                )


if __name__ == '__main__':
    main()
