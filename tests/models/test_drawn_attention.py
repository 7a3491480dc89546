"""The picture of the four models agrees with what the models attend to."""

import runpy
from pathlib import Path

import jax
import numpy as np
import pytest

_SCRIPT = runpy.run_path(str(Path(__file__).parents[2] / 'docs/draw_attention.py'))
GRID, QUERY, PANELS = (_SCRIPT[name] for name in ('GRID', 'QUERY', 'PANELS'))

pytestmark = pytest.mark.usefixtures('exact_matmuls')


@pytest.fixture
def seen(create_tiny, random_params, random_clip):
    """The places of a clip, bool [t h w], on which one token of an encoder depends."""

    def find(model_name, encoder, token, silence=lambda block: None):
        model = create_tiny(model_name, num_layers=1, pool='mean')  # no class tokens
        clip = random_clip((1, 2 * GRID[0], 8 * GRID[1], 8 * GRID[2], 3))
        params = random_params(model, clip)
        silence(params[encoder]['encoderblock_0'])

        def token_value(clip):
            _, state = model.apply(
                {'params': params},
                clip,
                capture_intermediates=lambda module, _: module.name == encoder,
            )
            tokens = state['intermediates'][encoder]['__call__'][0][0]
            width = tokens.shape[-1]
            return tokens.reshape(-1, width)[token] @ np.linspace(-1, 2, width)

        gradient = np.abs(jax.grad(token_value)(clip))
        time, height, width = GRID
        return gradient.reshape(time, 2, height, 8, width, 8, 3).max((1, 3, 5, 6)) > 0

    return find


def _silence(attention):
    """Makes an attention of a block add nothing; takes the name of its axis, or a head."""

    def silence(block):
        if isinstance(attention, str):
            block[f'MultiHeadDotProductAttention_{attention}']['out']['kernel'][:] = 0
        else:
            block['MultiHeadDotProductAttention_0']['out']['kernel'][attention] = 0

    return silence


@pytest.mark.parametrize(
    ('model', 'step', 'encoder', 'silent'),
    [
        ('vivit_joint', 0, 'Transformer', None),
        ('vivit_fe', 0, 'SpatialTransformer', None),
        ('vivit_fsa', 0, 'Transformer', 'time'),
        ('vivit_fsa', 1, 'Transformer', 'space'),
        ('vivit_fdp', 0, 'Transformer', 1),
        ('vivit_fdp', 1, 'Transformer', 0),
    ],
)
def test_drawn_tokens_are_those_that_a_token_depends_on(seen, model, step, encoder, silent):
    silence = _silence(silent) if silent is not None else lambda block: None
    token = np.ravel_multi_index(QUERY, GRID)
    drawn = PANELS[model][1][step].mask
    np.testing.assert_array_equal(seen(model, encoder, token, silence), drawn)


def test_second_encoder_sees_every_summary(seen):
    places = seen('vivit_fe', 'TemporalTransformer', QUERY[0])
    np.testing.assert_array_equal(places.any((1, 2)), PANELS['vivit_fe'][1][1].mask)


def test_no_other_attention_is_drawn():
    assert {model: len(steps) for model, (_, steps) in PANELS.items()} == {
        'vivit_joint': 1,
        'vivit_fe': 2,
        'vivit_fsa': 2,
        'vivit_fdp': 2,
    }
