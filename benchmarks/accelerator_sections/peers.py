"""Section d: the same work in PyTorch, with autocast, clipped gradients, SGD with momentum."""

import gc
import importlib.util
from collections.abc import Callable, Iterator, Sequence

from accelerator_sections.plan import Settings
from accelerator_sections.rows import (
    LeftOut,
    attempt,
    latest,
    measured_peak,
    rates,
    with_smaller_batches,
)
from accelerator_sections.sizes import clip_shape, tiny_keywords
from accelerator_sections.timing import measure_time

_SIZE = 'B/16x2'
_BATCH = 16  # where nothing is known of ours
_GIB = 2**30


def torch_device():
    """The module torch, and the name of its device.

    Raises:
        LeftOut: PyTorch is not installed.
    """
    if not importlib.util.find_spec('torch'):
        raise LeftOut('needs PyTorch: pip install torch transformers')
    import torch

    return torch, 'cuda' if torch.cuda.is_available() else 'cpu'


def synchronize(device: str):
    """Waits for the work that was started on a device of PyTorch."""
    if device == 'cuda':
        import torch

        torch.cuda.synchronize()


def pytorch(
    settings: Settings, rows: Sequence[dict], model: str, source: str, is_compiled: bool
) -> Iterator[dict]:
    """Training step and forward pass with this package's batch, or with as much of it as fits.

    Args:
        settings, rows: as for every section.
        model: the model's name in this package.
        source: `'huggingface'` or `'vivit_jax.torch'`.
        is_compiled: whether to use `torch.compile`.
    """
    known = latest(rows, section='c', model=model, size=_SIZE, program='training step') or {}
    batch = 2 if settings.tiny else known.get('batch', _BATCH)
    gmac, peak = known.get('gmac'), measured_peak(rows)
    mode = 'torch.compile' if is_compiled else 'eager'
    for program, times_forward in (('training step', 3), ('forward', 1)):
        work = gmac and times_forward * gmac

        def run(batch: int, program=program, work=work) -> dict:
            found = _measure(settings, model, source, is_compiled, program, batch)
            return {**found, **rates(found['ms'], batch, work, peak)}

        labels = {'name': f'{source}, {mode}', 'model': model, 'size': _SIZE, 'program': program}
        yield attempt(labels, with_smaller_batches, batch, run)


def _measure(
    settings: Settings, model: str, source: str, is_compiled: bool, program: str, batch: int
) -> dict:
    torch, device = torch_device()
    gc.collect()
    if device == 'cuda':  # nothing of the last model is left
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    torch.manual_seed(0)
    network, classify = _SOURCES[source](settings, model)
    network = network.to(device).train(program == 'training step')
    if is_compiled:
        torch.compiler.reset()
        # A tiny run stops before code is made: compiling that for a CPU takes minutes.
        backend = 'aot_eager' if settings.tiny else 'inductor'
        classify = torch.compile(classify, backend=backend, dynamic=False)
    shape = (batch, *clip_shape(settings, model), 3)
    rgb = torch.randint(0, 256, shape, dtype=torch.uint8, device=device)
    label = torch.arange(batch, device=device) % 8
    optimizer = torch.optim.SGD(network.parameters(), 1e-3, momentum=0.9)

    def logits():
        with torch.autocast(device, torch.bfloat16):
            return classify(rgb).float()

    @torch.no_grad()
    def forward():
        return logits()

    def step():
        loss = torch.nn.functional.cross_entropy(logits(), label)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()

    run = forward if program == 'forward' else step
    times = measure_time(run, lambda _: synchronize(device), settings.seconds)
    peak = torch.cuda.max_memory_allocated() / _GIB if device == 'cuda' else None
    return {**times, 'peak_gib': peak}


def _huggingface(settings: Settings, model: str) -> tuple[object, Callable]:
    """`VivitForVideoClassification`, and the function from uint8 clips to logits."""
    if not importlib.util.find_spec('transformers'):
        raise LeftOut('needs transformers: pip install transformers')
    from transformers import VivitConfig, VivitForVideoClassification

    frames, crop_size, _ = clip_shape(settings, model)
    sizes = {'num_labels': 400}
    if settings.tiny:
        sizes = {
            'num_labels': 8,
            'tubelet_size': [2, 8, 8],
            'hidden_size': 16,
            'num_hidden_layers': 1,
            'num_attention_heads': 2,
            'intermediate_size': 32,
        }
    config = VivitConfig(
        num_frames=frames, image_size=crop_size, attn_implementation='sdpa', **sizes
    )
    network = VivitForVideoClassification(config)

    def classify(rgb):
        return network(pixel_values=rgb.permute(0, 1, 4, 2, 3) / 127.5 - 1).logits

    return network, classify


def _ours(settings: Settings, model: str) -> tuple[object, Callable]:
    """A model of `vivit_jax.torch`, and the function from uint8 clips to logits."""
    from vivit_jax.torch import create_model

    sizes = {'size': _SIZE}
    if settings.tiny:
        sizes = tiny_keywords(model)
    network = create_model(model, clip_shape=clip_shape(settings, model), **sizes)
    return network, lambda rgb: network(rgb / 127.5 - 1).logits


_SOURCES = {'huggingface': _huggingface, 'vivit_jax.torch': _ours}
