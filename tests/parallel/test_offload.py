"""The optimizer's state in the memory of the host."""

import types

import jax
import numpy as np
import optax
import pytest

from vivit_jax.config.load import model_config
from vivit_jax.errors import UserError
from vivit_jax.model_card import ModelCard
from vivit_jax.parallel.memory import count_bytes
from vivit_jax.parallel.mesh import create_mesh
from vivit_jax.parallel.offload import keep_on_host
from vivit_jax.train.checkpoints import Checkpoints
from vivit_jax.train.first_state import create_first_state
from vivit_jax.train.programs import Programs


def _programs(offload):
    config = model_config(
        'vivit_joint', 'hidden_size=8', 'num_layers=1', 'num_heads=2', 'mlp_dim=16',
        'tubelet_size=(2, 4, 4)',
    )  # fmt: skip
    config.preprocessing.update(num_frames=4, short_side=8, crop_size=8)
    config.train.update(optimizer='adamw', offload_optimizer=offload)
    mesh = create_mesh(devices=jax.devices()[:1])
    return Programs(config, mesh, 4, optax.constant_schedule(3e-3))


def _kinds(state):
    """Where the arrays of a state are: of all but the optimizer, and of its moments."""
    moments = [x for x in jax.tree.leaves(state.opt_state) if x.ndim]
    others = [x for x in jax.tree.leaves(state) if not any(x is y for y in moments)]
    return [{x.sharding.memory_kind for x in arrays} for arrays in (others, moments)]


def test_steps_equal_those_with_the_state_on_the_device_and_checkpoints_fit_both(tmp_path):
    rng = np.random.default_rng(0)
    batch = {
        'rgb': rng.integers(0, 256, (2, 4, 8, 8, 3), np.uint8),
        'label': np.arange(2, dtype=np.int32),
    }
    states = []
    for offload in (False, True):
        programs = _programs(offload)
        state, step = create_first_state(programs), programs.train_step()
        for _ in range(2):
            state, _ = step(state, jax.device_put(batch))
        states.append(state)
    on_device, on_host = states
    jax.tree.map(np.testing.assert_array_equal, on_device, on_host)
    usual = {jax.devices()[0].default_memory().kind}
    assert _kinds(on_device) == [usual, usual]
    assert _kinds(on_host) == [usual, {'pinned_host'}]

    checkpoints = Checkpoints(tmp_path, keep_last=1, keep_best=0)
    checkpoints.save(on_device, ModelCard({'name': 'x'}, programs.spec, ('a', 'b')), {})
    checkpoints.wait()
    restored = checkpoints.restore(2, programs.abstract_state)
    checkpoints.close()
    assert _kinds(restored) == [usual, {'pinned_host'}]
    jax.tree.map(np.testing.assert_array_equal, restored, on_device)


@pytest.mark.parametrize('platform', ['cuda', 'tpu'])
def test_state_is_copied_within_the_step_and_not_counted_on_the_device(platform):
    programs = _programs(True)
    batch = programs.abstract_batch(2)
    traced = programs.train_step().trace(programs.abstract_state, batch)
    text = traced.lower(lowering_platforms=(platform,)).as_text()
    moments = [x for x in jax.tree.leaves(programs.abstract_state.opt_state) if x.ndim]
    assert text.count('_xla_buffer_placement = "device"') >= len(moments)
    assert text.count('_xla_buffer_placement = "pinned_host"') >= len(moments)
    memory = programs.plan_training(None, batch)
    assert memory.on_host == count_bytes(moments)
    assert memory.optimizer < memory.on_host / 100  # counters


def test_device_without_such_memory_is_an_error():
    memory = types.SimpleNamespace(kind='device')
    device = types.SimpleNamespace(device_kind='Chip 1', addressable_memories=lambda: [memory])
    mesh = types.SimpleNamespace(devices=np.array([device]))
    with pytest.raises(UserError, match=r'Chip 1 cannot keep arrays .* has device'):
        keep_on_host({}, {}, mesh)
