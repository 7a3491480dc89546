"""Every model and every config, lowered for GPUs and TPUs without having one.

Sequences are as long as in real models, or have an odd length that is too long for einsum. If a
kernel refuses such a sequence, or has no gradient for it, lowering fails.
"""

import importlib.util
import re
from pathlib import Path

import jax
import jax.numpy as jnp
import optax
import pytest
from tiny_models import known_keywords

from vivit_jax.config.load import guess_classes
from vivit_jax.layers.attention_kernels import record_choices
from vivit_jax.models.registry import list_models, model_keywords
from vivit_jax.parallel.mesh import create_mesh
from vivit_jax.train.freezing import Hold
from vivit_jax.train.programs import Programs
from vivit_jax.train.recipe import complete

POOLS = {'vivit_joint': ('cls', 'mean'), 'vivit_fe': ('cls', 'mean')}
# Heads of 8 channels: cuDNN takes them, in 16 bits, but with neither relative positions nor k-NN
# attention.
WITH_KERNEL = [
    name
    for name in list_models()
    if 'attention_implementation' in model_keywords(name) and name not in ('rpe_stdt', 'mfst')
]
CASES = [
    (name, pool, dtype)
    for name in list_models()
    for pool in POOLS.get(name, (None,))
    for dtype in ('bfloat16', 'float32')
    if name in WITH_KERNEL or dtype == 'bfloat16'
]


def _count(kernel, traced, platform):
    program = traced.lower(lowering_platforms=(platform,)).as_text()
    return len(re.findall(f'custom_call @{kernel}', program))


@pytest.mark.parametrize(('name', 'pool', 'dtype'), CASES)
def test_model_is_lowered_for_gpus_and_tpus(any_gpu, create_tiny, name, pool, dtype):
    keywords = {'pool': pool} if pool else {}
    model = create_tiny(name, dtype=dtype, **keywords)
    clip = jax.ShapeDtypeStruct((1, 8, 80, 80, 3), jnp.float32)  # 100 tokens of 4 frames
    variables = jax.eval_shape(model.init, jax.random.key(0), clip)

    def loss(params, others, clip):
        output, _ = model.apply(
            {'params': params, **others},
            clip,
            train=True,
            rngs={'dropout': jax.random.key(0)},
            mutable='batch_stats',
        )
        return output.logits.sum()

    others = {name: x for name, x in variables.items() if name != 'params'}
    training = jax.jit(jax.grad(loss)).trace(variables['params'], others, clip)
    with record_choices('cuda') as taken:
        inference = jax.jit(model.apply).trace(variables, clip)
    layers = sum(implementation == 'cudnn' for implementation in taken.values())
    has_attention = 'attention_implementation' in model_keywords(name)
    assert bool(layers) == (name in WITH_KERNEL and dtype == 'bfloat16')
    for traced, number in ((training, 2), (inference, 1)):
        found = _count('__cudnn', traced, 'cuda')
        assert found % number == 0 and bool(found) == bool(layers)
        kernels = _count('tpu_custom_call', traced, 'tpu')
        assert bool(kernels) == (max(taken, default=0) > 256)
    # The layout of the tokens is pinned in the training step for GPUs, where XLA errs.
    assert bool(_count('LayoutConstraint', training, 'cuda')) == has_attention
    assert _count('LayoutConstraint', training, 'tpu') == 0


def _types(tree):
    return jax.tree.map(lambda x: (x.shape, x.dtype), tree)


def _module(path):
    spec = importlib.util.spec_from_file_location(f'config_{path.stem}', path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _find_configs():
    """A config for each model and shape of clips; other configs differ from it in their data."""
    configs = {}
    for path in sorted((Path(__file__).parents[2] / 'configs').glob('*.py')):
        config = _module(path).get_config()
        if config.recipe:
            config.model.size, config.train.hold_fraction = 'B/16x2', 0.1
            complete(config, num_videos=300)
        model = {**config.model.to_dict(), 'num_classes': None}
        clip = config.preprocessing
        shape = clip.num_units, clip.num_frames, clip.crop_size
        configs.setdefault(str((model, shape)), (path.stem, config))
    return configs.values()


@pytest.mark.parametrize('config', [pytest.param(x, id=name) for name, x in _find_configs()])
def test_steps_of_a_config_are_lowered_for_gpus_and_tpus(any_gpu, config):
    # Whole width and whole clips, but few layers.
    layers = {'num_layers': 1, 'temporal_num_layers': 1, 'subsample_layers': (0,)}
    config.model.update(known_keywords(config.model.name, **layers))
    mesh = create_mesh()
    schedule = optax.constant_schedule(config.train.learning_rate)
    hold = Hold(config.train.hold, steps=10, rise=5) if config.train.hold else Hold()
    programs = Programs(config, mesh, guess_classes(config), schedule, hold=hold, platform='cuda')
    assert programs.model.spec.dtype == (config.model.dtype or 'float32')
    state = programs.abstract_state
    with jax.set_mesh(mesh), record_choices('cuda') as taken:
        steps = (
            programs.train_step().trace(state, programs.abstract_batch(2)),
            programs.eval_step().trace(state.eval_variables, programs.abstract_views(2)),
        )
    new_state, metrics = steps[0].out_info
    assert _types(new_state) == _types(state)
    assert metrics['loss'].shape == ()
    for traced, number in zip(steps, (2, 1), strict=True):
        kernels = _count('__cudnn', traced, 'cuda')
        assert kernels == number * sum(x == 'cudnn' for x in taken.values())
        traced.lower(lowering_platforms=('tpu',))
