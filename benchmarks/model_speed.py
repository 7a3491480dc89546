"""The forward pass of ViViT-B/16x2 beside other implementations of it, in one run.

    python benchmarks/model_speed.py --model=vivit_joint --original=PATH/TO/SCENIC

Every contestant lives in a process of its own, and they take turns, so that a busy machine slows
them alike. Printed are time, its ratio to ours turn by turn, and each process's peak memory.

huggingface: `VivitForVideoClassification` with scaled-dot-product attention, for `vivit_joint`;
needs torch and transformers. original: Scenic's ViViT from a checkout of its repository, with our
parameters, so that its logits can be compared with ours.
"""

import argparse
import importlib.abc
import importlib.machinery
import multiprocessing
import resource
import statistics
import sys
import time
from collections.abc import Callable
from unittest import mock

import numpy as np

CLIP = (1, 32, 224, 224, 3)


def main():
    """Prints a line per contestant."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--model', choices=('vivit_joint', 'vivit_fe'), default='vivit_joint')
    parser.add_argument('--original', default='', help="a checkout of Scenic's repository")
    parser.add_argument('--turns', type=int, default=5)
    args = parser.parse_args()
    contestants = [ours]
    if args.original:
        contestants.append(original)
    if args.model == 'vivit_joint':
        contestants.append(huggingface)

    context = multiprocessing.get_context('spawn')  # nothing of one library in another's process
    pipes = {}
    for make in contestants:
        pipe, theirs = context.Pipe()
        context.Process(target=_serve, args=(theirs, make, args), daemon=True).start()
        if (answer := pipe.recv()) == 'ready':
            pipes[make.__name__] = pipe
        else:
            print(f'{make.__name__} is left out: {answer}')
    times = {name: [] for name in pipes}
    answers = {}
    for _ in range(args.turns):
        for name, pipe in pipes.items():
            pipe.send('go')
            seconds, answers[name], peak_mb = pipe.recv()
            times[name].append((seconds, peak_mb))
    for pipe in pipes.values():
        pipe.send('end')

    print(f'{args.model}, B/16x2, float32, clip {CLIP}, {args.turns} turns')
    print(f'{"":12} {"median s":>9} {"range s":>14} {"ratio to ours":>14} {"peak MB":>8}')
    for name, measured in times.items():
        seconds = [s for s, _ in measured]
        turns = zip(seconds, times['ours'], strict=True)
        ratio = statistics.median(theirs / ours for theirs, (ours, _) in turns)
        span = f'{min(seconds):.2f} - {max(seconds):.2f}'
        print(
            f'{name:12} {statistics.median(seconds):9.2f} {span:>14} {ratio:14.2f} '
            f'{measured[-1][1]:8.0f}'
        )
    if 'original' in answers:
        difference = np.linalg.norm(answers['original'] - answers['ours'])
        print(f'logits, original to ours: {difference / np.linalg.norm(answers["ours"]):.1e}')


def ours(model_name: str, _) -> Callable[[np.ndarray], np.ndarray]:
    """Makes the function clip -> logits."""
    import jax

    from vivit_jax import create_model

    model, params = create_model(model_name), _parameters(model_name)
    forward = jax.jit(lambda params, clip: model.apply({'params': params}, clip).logits)
    return lambda clip: np.asarray(forward(params, clip))


def original(model_name: str, checkout: str) -> Callable[[np.ndarray], np.ndarray]:
    """Likewise; imports that a forward pass does not need are replaced by dummies."""
    import jax
    from ml_collections import ConfigDict

    params = _parameters(model_name)
    sys.path.insert(0, checkout)
    sys.meta_path.insert(0, _Dummies())
    from scenic.projects.vivit import model as scenic

    encoder = {'num_heads': 12, 'mlp_dim': 3072, 'num_layers': 12}
    common = {
        'num_classes': 400,
        'patches': ConfigDict({'size': (16, 16, 2)}),
        'hidden_size': 768,
        'temporal_encoding_config': ConfigDict(
            {'method': '3d_conv', 'kernel_init_method': 'central_frame_initializer'}
        ),
        'classifier': 'token',
    }
    if model_name == 'vivit_joint':
        kind = ConfigDict({'type': 'spacetime'})
        model = scenic.ViViT(**encoder, attention_config=kind, **common)
    else:
        kind = ConfigDict({'type': 'factorized_encoder'})
        sizes = {f'spatial_{name}': value for name, value in encoder.items()}
        sizes |= {f'temporal_{name}': value for name, value in encoder.items()}
        sizes['temporal_num_layers'] = 4
        model = scenic.SpaceTimeViViT(**sizes, attention_config=kind, **common)
    forward = jax.jit(lambda params, clip: model.apply({'params': params}, clip, train=False))
    return lambda clip: np.asarray(forward(params, clip))


def huggingface(*_) -> Callable[[np.ndarray], np.ndarray]:
    """Likewise, with parameters of its own."""
    import torch
    from transformers import VivitConfig, VivitForVideoClassification

    config = VivitConfig(num_labels=400, attn_implementation='sdpa')
    model = VivitForVideoClassification(config).eval()

    def forward(clip: np.ndarray) -> np.ndarray:
        frames = torch.from_numpy(clip).permute(0, 1, 4, 2, 3)
        with torch.inference_mode():
            return model(pixel_values=frames).logits.numpy()

    return forward


def _parameters(model_name: str) -> dict:
    """Random parameters in our names, equal in every process."""
    import jax

    from vivit_jax import create_model

    init = create_model(model_name).init
    clip = jax.ShapeDtypeStruct(CLIP, np.float32)
    shapes = jax.eval_shape(init, jax.random.key(0), clip)['params']
    rng = np.random.default_rng(0)
    return jax.tree.map(
        lambda x: jax.device_put(0.02 * rng.standard_normal(x.shape, np.float32)), shapes
    )


class _Dummies(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds an object that accepts everything in place of what Scenic imports beside its model."""

    def find_spec(self, name, path, target=None):
        if name.split('.')[0] in ('clu', 'dmvr', 'tensorflow', 'tensorflow_datasets'):
            return importlib.machinery.ModuleSpec(name, self, is_package=True)
        return None

    def create_module(self, spec):
        return mock.MagicMock(name=spec.name, __path__=[], __name__=spec.name, __spec__=spec)

    def exec_module(self, module):
        pass


def _serve(pipe, make: Callable, args: argparse.Namespace):
    clip = np.random.default_rng(1).uniform(-1, 1, CLIP).astype(np.float32)
    try:
        forward = make(args.model, args.original)
        forward(clip)  # compiles
    except ImportError as error:
        pipe.send(str(error))
        return
    pipe.send('ready')
    while pipe.recv() == 'go':
        start = time.perf_counter()
        logits = forward(clip)
        seconds = time.perf_counter() - start
        pipe.send((seconds, logits, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3))


if __name__ == '__main__':
    main()
