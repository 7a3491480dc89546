"""Single layers in PyTorch, where equality with JAX does not say enough."""

import numpy as np
import pytest

torch = pytest.importorskip('torch', reason='needs PyTorch: the extra torch')

from vivit_jax.layers.torch.tokens import PositionEmbedding  # noqa: E402
from vivit_jax.layers.torch.transformer import DropPath, SelfAttention  # noqa: E402
from vivit_jax.models.rpe_stdt.torch_temporal import select_frames  # noqa: E402
from vivit_jax.torch import create_model  # noqa: E402


def test_drop_path_keeps_whole_examples_and_the_expectation():
    torch.manual_seed(0)
    drop_path, branch = DropPath(0.3).train(), torch.ones(4000, 2, 3)
    dropped = drop_path(branch)
    examples = dropped[:, 0, 0]
    assert torch.equal(dropped, examples[:, None, None].expand_as(dropped))
    torch.testing.assert_close(examples.unique(), torch.tensor([0, 1 / 0.7]))
    assert float(examples.mean()) == pytest.approx(1, abs=0.05)
    assert drop_path.eval()(branch) is branch


def test_drop_path_grows_with_depth_in_each_encoder():
    sizes = {'hidden_size': 8, 'num_heads': 2, 'mlp_dim': 8, 'tubelet_size': (2, 4, 4)}
    layers = {'num_layers': 4, 'temporal_num_layers': 1}
    model = create_model('vivit_fe', clip_shape=(4, 8, 8), **sizes, **layers, drop_path_rate=0.3)
    rates = [block.drop_path.rate for block in model.spatial_encoder.blocks]
    np.testing.assert_allclose(rates, [0, 0.1, 0.2, 0.3], rtol=1e-12)
    assert [block.drop_path.rate for block in model.temporal_encoder.blocks] == [0]


def test_attention_along_an_axis_leaves_the_other_alone():
    tokens = torch.randn(1, 3, 4, 16, generator=torch.Generator().manual_seed(0))
    changed = tokens.clone()
    changed[0, 1, 2] += 1
    for axis, moved in {'space': (slice(1, 2), slice(None)), 'time': (slice(None), 2)}.items():
        attention = SelfAttention(16, 2, (axis,), 0.0)
        difference = (attention(changed) - attention(tokens)).detach().abs().amax(-1)[0]
        expected = torch.zeros(3, 4, dtype=torch.bool)
        expected[moved] = True
        assert torch.equal(difference > 1e-6, expected)


def test_class_token_has_no_place_among_sines():
    position = PositionEmbedding('sincos3d', (2, 3), 16, 1, True)
    table = position(torch.zeros(1, 7, 16))[0]
    assert not table[0].any() and table[1:].any(dim=1).all()
    assert not position.state_dict()


def test_frames_that_attend_most_selectively_stay():
    frames = np.array([[0.2, 0.2, 0.2], [0.6, 0.0, 0.3], [0.1, 0.0, 0.1], [0.5, 0.3, 0.1]])
    # What is left of 1 goes to the class token, and has no part in the spread.
    rows = np.column_stack([1 - frames.sum(axis=1), frames])
    weights = torch.tensor(np.stack([rows, rows])[None])
    tokens, places = torch.arange(8.0).reshape(1, 4, 2), torch.tensor([[0, 2, 5, 7]])
    found = select_frames(tokens, places, weights)
    # Spreads of frames 1, 2, 3: 0.24, 0.05, 0.16.
    assert found[0].tolist() == [[[0, 1], [2, 3], [6, 7]]] and found[1].tolist() == [[0, 2, 7]]
    equal = torch.full((1, 2, 4, 4), 0.25)
    assert select_frames(tokens, places, equal)[1].tolist() == [[0, 2, 5]]
