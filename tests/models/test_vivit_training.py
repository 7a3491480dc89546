"""Dropout and stochastic depth of the four models."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vivit_jax.models.registry import list_models

VIVITS = [name for name in list_models() if name.startswith('vivit')]

pytestmark = pytest.mark.usefixtures('exact_matmuls')


def _still_clips(random_clip, batch, num_frames):
    """Equal clips of equal frames."""
    return jnp.broadcast_to(random_clip((1, 1, 16, 16, 3)), (batch, num_frames, 16, 16, 3))


@pytest.mark.parametrize('name', VIVITS)
def test_training_without_rates_equals_evaluation(create_tiny, random_clip, random_params, name):
    model, clip = create_tiny(name, num_layers=1), random_clip()
    variables = {'params': random_params(model, clip)}
    np.testing.assert_array_equal(
        model.apply(variables, clip, train=True).logits, model.apply(variables, clip).logits
    )


@pytest.mark.parametrize('name', VIVITS)
def test_dropout_rate_reaches_every_dropout(create_tiny, random_clip, name):
    rates = []

    def watch(next_call, args, kwargs, context):
        if isinstance(context.module, nn.Dropout):
            rates.append(context.module.rate)
        return next_call(*args, **kwargs)

    model = create_tiny(name, dropout_rate=0.5)
    with nn.intercept_methods(watch):
        jax.eval_shape(model.init, jax.random.key(0), random_clip())
    assert set(rates) == {0.5}


@pytest.mark.parametrize(
    ('keyword', 'implementation'),
    [
        ('dropout_rate', 'einsum'),
        ('attention_dropout_rate', 'einsum'),
        ('attention_dropout_rate', 'chunked'),
    ],
)
@pytest.mark.parametrize('name', ['vivit_fe', 'vivit_fsa', 'vivit_fdp'])
def test_dropout_masks_differ_between_frames_and_examples(
    create_tiny,
    random_clip,
    random_params,
    encoder_tokens,
    dropout_key,
    name,
    keyword,
    implementation,
):
    model = create_tiny(
        name,
        tokenizer='uniform_frames',
        num_layers=1,
        position='none',
        attention_implementation=implementation,
        **{keyword: 0.5},
    )
    clip = _still_clips(random_clip, 3, 4)
    params = random_params(model, clip)
    for key, num_different in ((None, 1), (dropout_key(), 12)):
        tokens = np.asarray(encoder_tokens(model, params, clip, key))
        assert len(np.unique(tokens.reshape(12, -1).round(4), axis=0)) == num_different


@pytest.mark.parametrize(
    ('name', 'num_branches', 'scan_layers'),
    [
        ('vivit_joint', 2, False),
        ('vivit_fe', 2, False),
        ('vivit_fsa', 3, False),
        ('vivit_fsa', 3, True),
        ('vivit_fdp', 2, False),
    ],
)
def test_drop_path_drops_each_branch_of_whole_clips(
    create_tiny,
    random_clip,
    random_params,
    encoder_tokens,
    dropout_key,
    name,
    num_branches,
    scan_layers,
):
    model = create_tiny(
        name,
        tokenizer='uniform_frames',
        position='none',
        drop_path_rate=0.5,
        scan_layers=scan_layers,
    )
    clip = _still_clips(random_clip, 64, 3)
    tokens = encoder_tokens(model, random_params(model, clip), clip, dropout_key())
    if name == 'vivit_joint':
        tokens = tokens[:, 1:]
    tokens = tokens.reshape(64, 3, -1)
    np.testing.assert_allclose(tokens, np.broadcast_to(tokens[:, :1], tokens.shape), atol=1e-4)
    # The first block drops nothing; in the second block each branch is either kept or dropped.
    outcomes = np.asarray(tokens).reshape(64, -1).round(3)
    assert len(np.unique(outcomes, axis=0)) == 2**num_branches


@pytest.mark.parametrize('scan_layers', [False, True])
@pytest.mark.parametrize('name', VIVITS)
def test_drop_path_rate_near_one_skips_the_last_block(
    create_tiny, random_clip, random_params, encoder_tokens, dropout_key, name, scan_layers
):
    model = create_tiny(name, drop_path_rate=0.9999, scan_layers=scan_layers)
    clip = random_clip()
    params = random_params(model, clip)
    skipped = encoder_tokens(model, params, clip, dropout_key())
    expected = encoder_tokens(create_tiny(name, num_layers=1), params, clip)
    np.testing.assert_allclose(skipped, expected, rtol=1e-4, atol=1e-5)
    whole = encoder_tokens(model, params, clip)
    assert np.abs(whole - expected).max() > 0.1
