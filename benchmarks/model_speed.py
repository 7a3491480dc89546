"""Measures ViViT-B/16x2 beside other implementations of it, in one run.

    python benchmarks/model_speed.py --model=vivit_joint --original=PATH/TO/SCENIC
    python benchmarks/model_speed.py --training --frames=16 --crop_size=112 --batch_size=4

Every implementation has a process of its own, and the processes take turns, so that a busy machine
slows all of them equally. The table has the time, the median over turns of its ratio to vivit_jax,
and the peak memory of each process. The forward pass is measured, or the training step: forward,
backward and an update by SGD with momentum, from a uint8 clip.

huggingface: `VivitForVideoClassification` with scaled-dot-product attention, for `vivit_joint`;
needs torch and transformers; 16-bit types by autocast. original: Scenic's ViViT from a checkout of
its repository, with the parameters of vivit_jax, so that the logits can be compared; forward only.
"""

import argparse
import multiprocessing
import resource
import statistics
import time
from collections.abc import Callable

import numpy as np

LEARNING_RATE, MOMENTUM = 1e-3, 0.9


def main():
    """Prints a line per implementation."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--model', choices=('vivit_joint', 'vivit_fe'), default='vivit_joint')
    parser.add_argument('--original', default='', help="a checkout of Scenic's repository")
    parser.add_argument('--training', action='store_true', help='the training step')
    parser.add_argument('--batch_size', type=int, default=1)
    parser.add_argument('--frames', type=int, default=32)
    parser.add_argument('--crop_size', type=int, default=224)
    parser.add_argument('--dtype', choices=('float32', 'bfloat16', 'float16'), default='float32')
    parser.add_argument('--turns', type=int, default=5)
    args = parser.parse_args()
    if args.original and args.training:
        parser.error('--original has no training step: leave out --original or --training')
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

    program = 'training step' if args.training else 'forward'
    print(f'{args.model}, B/16x2, {program}, {args.dtype}, clip {_shape(args)}, {args.turns} turns')
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


def ours(args: argparse.Namespace) -> Callable[[np.ndarray], np.ndarray]:
    """Makes the function clip -> logits, or, for a training step, clip -> loss."""
    import jax
    import optax

    from vivit_jax import create_model
    from vivit_jax.augment.policy import Augmentation
    from vivit_jax.train.state import start_state
    from vivit_jax.train.step import create_train_step
    from vivit_jax.video.preprocessing import Preprocessing

    model, params = create_model(args.model, dtype=args.dtype), _parameters(args)
    if not args.training:
        forward = jax.jit(lambda params, clip: model.apply({'params': params}, clip).logits)
        return lambda clip: np.asarray(forward(params, clip))

    schedule = optax.constant_schedule(LEARNING_RATE)
    optimizer = optax.sgd(schedule, MOMENTUM)
    step = create_train_step(
        model,
        optimizer,
        schedule,
        Preprocessing(),
        Augmentation(),
        label_smoothing=0.0,
        seed=0,
    )
    step = jax.jit(step, donate_argnums=0)
    state = start_state({'params': params, 'batch_stats': {}}, optimizer)

    def train(clip: np.ndarray) -> np.ndarray:
        nonlocal state
        state, metrics = step(state, {'rgb': clip, 'label': np.zeros(len(clip), np.int32)})
        return np.asarray(jax.block_until_ready((state, metrics))[1]['loss'])

    return train


def original(args: argparse.Namespace) -> Callable[[np.ndarray], np.ndarray]:
    """Makes the function clip -> logits."""
    import jax
    from original_vivit import original_model

    from vivit_jax import create_model

    params = _parameters(args)
    model = original_model(create_model(args.model, dtype=args.dtype), args.original)
    forward = jax.jit(lambda params, clip: model.apply({'params': params}, clip, train=False))
    return lambda clip: np.asarray(forward(params, clip))


def huggingface(args: argparse.Namespace) -> Callable[[np.ndarray], np.ndarray]:
    """Makes the same functions as `ours`, with parameters of its own."""
    import torch
    from transformers import VivitConfig, VivitForVideoClassification

    config = VivitConfig(
        num_labels=400,
        num_frames=args.frames,
        image_size=args.crop_size,
        attn_implementation='sdpa',
    )
    model = VivitForVideoClassification(config).train(args.training)
    optimizer = torch.optim.SGD(model.parameters(), LEARNING_RATE, MOMENTUM)
    dtype = getattr(torch, args.dtype)

    def forward(clip: np.ndarray) -> np.ndarray:
        frames = torch.from_numpy(clip).permute(0, 1, 4, 2, 3)
        with torch.autocast('cpu', dtype, enabled=args.dtype != 'float32'), torch.inference_mode():
            return model(pixel_values=frames).logits.float().numpy()

    def train(clip: np.ndarray) -> np.ndarray:
        frames = torch.from_numpy(clip).permute(0, 1, 4, 2, 3) / 127.5 - 1
        with torch.autocast('cpu', dtype, enabled=args.dtype != 'float32'):
            logits = model(pixel_values=frames).logits
        labels = torch.zeros(len(clip), dtype=torch.int64)
        loss = torch.nn.functional.cross_entropy(logits.float(), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss.detach().numpy()

    return train if args.training else forward


def _shape(args: argparse.Namespace) -> tuple[int, ...]:
    return args.batch_size, args.frames, args.crop_size, args.crop_size, 3


def _parameters(args: argparse.Namespace) -> dict:
    """Random parameters under the names of vivit_jax, equal in every process."""
    import jax

    from vivit_jax import create_model

    init = create_model(args.model).init
    clip = jax.ShapeDtypeStruct(_shape(args), np.float32)
    shapes = jax.eval_shape(init, jax.random.key(0), clip)['params']
    rng = np.random.default_rng(0)
    return jax.tree.map(
        lambda x: jax.device_put(0.02 * rng.standard_normal(x.shape, np.float32)), shapes
    )


def _serve(pipe, make: Callable, args: argparse.Namespace):
    rng = np.random.default_rng(1)
    if args.training:
        clip = rng.integers(0, 256, _shape(args), np.uint8)
    else:
        clip = rng.uniform(-1, 1, _shape(args)).astype(np.float32)
    try:
        run = make(args)
        run(clip)  # compiles
    except ImportError as error:
        pipe.send(str(error))
        return
    pipe.send('ready')
    while pipe.recv() == 'go':
        start = time.perf_counter()
        answer = run(clip)
        seconds = time.perf_counter() - start
        pipe.send((seconds, answer, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3))


if __name__ == '__main__':
    main()
