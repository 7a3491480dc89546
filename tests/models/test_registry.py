import inspect
from pathlib import Path

import pytest

from vivit_jax.layers.keywords import SIZES
from vivit_jax.models.published import published_models
from vivit_jax.models.registry import (
    MODELS,
    create_model,
    list_models,
    model_keywords,
    specify,
)


@pytest.mark.parametrize('name', list_models())
def test_every_model_has_published_figures_of_its_defaults(name):
    # test_cost.py compares these numbers with the counts.
    defaults = specify(name)
    rows = [row for row in published_models() if row.keywords['name'] == name]
    assert any(specify(**row.keywords) == defaults for row in rows)


@pytest.mark.parametrize('name', list_models())
def test_every_model_has_a_twin_and_keywords_for_tests(name):
    folder = Path(inspect.getfile(MODELS[name])).parent
    files = {path.name for path in folder.iterdir()}
    assert {'specification.py', 'model.py', 'torch.py', 'published.py'} <= files
    assert {*MODELS[name].TINY, *MODELS[name].SMALL} <= model_keywords(name).keys()


@pytest.mark.parametrize('name', ['vivit_ef', 'ViViT_fe', 'vivitfe'])
def test_unknown_model_offers_near_names(name):
    with pytest.raises(ValueError, match=f"unknown model '{name}'; did you mean 'vivit_fe'"):
        create_model(name)


def test_unknown_model_without_near_names_lists_all():
    with pytest.raises(ValueError, match=r"unknown model 'xyz'; known: .*'vivit_fe'"):
        model_keywords('xyz')


@pytest.mark.parametrize(
    ('keyword', 'near'),
    [
        ('num_layer', 'num_layers'),
        ('droppath_rate', 'drop_path_rate'),
        ('tubelet', 'tubelet_size'),
        ('temporal_layers', 'temporal_num_layers'),
    ],
)
def test_unknown_keyword_offers_near_names(keyword, near):
    with pytest.raises(ValueError, match=f"vivit_fe has no keyword '{keyword}'.*'{near}'"):
        create_model('vivit_fe', **{keyword: 1})


def test_size_may_be_a_preset_of_the_model():
    model = create_model('rpe_stdt', size='stdt_l8_full', num_classes=7)
    assert (model.spec.num_layers, model.spec.light, model.spec.num_classes) == (8, False, 7)
    with pytest.raises(ValueError, match=r"size='stdt_l8' is not .*, and none of stdt_l8_full"):
        create_model('rpe_stdt', size='stdt_l8')


def test_flax_fields_are_no_keywords():
    assert not {'parent', 'name'} & set(model_keywords('vivit_fe'))
    with pytest.raises(ValueError, match="no keyword 'parent'"):
        create_model('vivit_fe', parent=None)


@pytest.mark.parametrize(
    ('size', 'hidden_size', 'num_layers', 'num_heads', 'mlp_dim', 'tubelet_size'),
    [
        ('Ti/16x2', 192, 12, 3, 768, (2, 16, 16)),
        ('S/8x4', 384, 12, 6, 1536, (4, 8, 8)),
        ('B/16x2', 768, 12, 12, 3072, (2, 16, 16)),
        ('L/16x1', 1024, 24, 16, 4096, (1, 16, 16)),
        ('H/14x2', 1280, 32, 16, 5120, (2, 14, 14)),
    ],
)
def test_size_sets_the_encoder_and_the_tubelet(
    size, hidden_size, num_layers, num_heads, mlp_dim, tubelet_size
):
    model = create_model('vivit_fe', size=size)
    assert (model.spec.hidden_size, model.spec.num_layers) == (hidden_size, num_layers)
    assert (model.spec.num_heads, model.spec.mlp_dim) == (num_heads, mlp_dim)
    assert model.spec.tubelet_size == tubelet_size


def test_explicit_keywords_win_over_the_size():
    model = create_model('vivit_fe', size='L/16x2', num_layers=2, tubelet_size=[4, 8, 6])
    assert (model.spec.num_layers, model.spec.tubelet_size) == (2, (4, 8, 6))
    assert (model.spec.hidden_size, model.spec.num_heads) == (1024, 16)
    # All models share the table of sizes, which must not change when one model is made.
    assert SIZES['L']['num_layers'] == 24


@pytest.mark.parametrize('size', ['B', 'B/16', 'B/16x', 'b/16x2', 'G/14x2', 'B/16x2 ', '/16x2'])
def test_bad_size_is_an_error_that_names_it(size):
    with pytest.raises(ValueError, match='size=') as error:
        create_model('vivit_fe', size=size)
    assert repr(size) in str(error.value)
    assert 'Ti, S, B, L, H' in str(error.value)


@pytest.mark.parametrize(
    ('keyword', 'value', 'choice'),
    [
        ('tokenizer', 'tubelets', 'uniform_frames'),
        ('pool', 'gap', 'mean'),
        ('position', 'sincos', 'sincos3d'),
        ('attention_order', 'time_then_space', 'time_space'),
        ('attention_implementation', 'flash', 'chunked'),
        ('gelu', 'erf', 'exact'),
        ('remat', 'full', 'dots'),
    ],
)
def test_unknown_choice_is_an_error_that_lists_the_choices(keyword, value, choice):
    with pytest.raises(ValueError, match=f"{keyword}='{value}' must be one of .*'{choice}'"):
        create_model('vivit_fsa', **{keyword: value})


@pytest.mark.parametrize('name', ['vivit_fsa', 'vivit_fdp'])
def test_class_token_of_a_model_without_is_an_error(name):
    assert model_keywords(name)['pool'] == 'mean'
    with pytest.raises(ValueError, match=r"pool='cls' must be one of \('mean', 'attention'\)"):
        create_model(name, pool='cls')


@pytest.mark.parametrize(
    ('name', 'keyword'),
    [
        ('vivit_joint', 'temporal_num_layers'),
        ('vivit_fsa', 'temporal_num_layers'),
        ('vivit_joint', 'attention_order'),
        ('vivit_fdp', 'attention_order'),
    ],
)
def test_keyword_of_another_model_is_an_error(name, keyword):
    with pytest.raises(ValueError, match=f"{name} has no keyword '{keyword}'"):
        create_model(name, **{keyword: 'time_space'})


def test_odd_number_of_heads_that_share_axes_is_an_error():
    with pytest.raises(ValueError, match='num_heads=3 must be even: half of the heads'):
        create_model('vivit_fdp', size='Ti/16x2')
    assert create_model('vivit_fdp', size='Ti/16x2', num_heads=6).spec.num_heads == 6
    assert create_model('vivit_fsa', size='Ti/16x2').spec.num_heads == 3


@pytest.mark.parametrize('num_classes', [0, {}, {'verb': 3, 'noun': 0}])
def test_head_without_classes_is_an_error(num_classes):
    with pytest.raises(ValueError, match=r'num_classes=.* must be at least 1') as error:
        create_model('vivit_joint', num_classes=num_classes)
    assert str(num_classes) in str(error.value)


@pytest.mark.parametrize(
    ('keyword', 'value', 'message'),
    [
        ('mlp_dim', 0, 'mlp_dim=0 must be at least 1'),
        ('num_sampled_frames', 0, 'num_sampled_frames=0 must be at least 1'),
        ('num_layers', -1, 'num_layers=-1 must not be negative'),
        ('temporal_num_layers', -1, 'temporal_num_layers=-1 must not be negative'),
        ('tubelet_size', (2, 16), r'tubelet_size=\(2, 16\) must be \(t, h, w\)'),
        ('tubelet_size', (2, 16, 0), r'tubelet_size=\(2, 16, 0\) must be \(t, h, w\)'),
        ('dtype', 'bf16', "dtype='bf16' must be one of .*'bfloat16'"),
    ],
)
def test_impossible_value_is_an_error(keyword, value, message):
    with pytest.raises(ValueError, match=message):
        create_model('vivit_fe', **{keyword: value})


@pytest.mark.parametrize(
    ('name', 'keyword', 'value', 'message'),
    [
        ('convivit', 'cnn_blocks', 3, r'cnn_blocks=3 must be one of \(0, 1, 2\)'),
        ('convivit', 'cnn_conv5', 'full', "cnn_conv5='full' must be one of .*'dense'"),
        ('convivit', 'cnn_stride', 4, r'cnn_stride=4 must be one of \(1, 2\)'),
        ('convivit', 'cnn_channels', 0, 'cnn_channels=0 must be at least 1'),
        ('convivit', 'factorization', 'heads', "must be one of .*'dot_product'"),
        ('convivit', 'position', 'learned', "convivit has no keyword 'position'"),
        ('convivit', 'pool', 'mean', "convivit has no keyword 'pool'"),
        ('ctn', 'embed', 'stem', "embed='stem' must be one of .*'tubelet'"),
        ('ctn', 'mapping', 'dense', "mapping='dense' must be one of .*'linear'"),
        ('ctn', 'norm', 'rms', "norm='rms' must be one of .*'post'"),
        ('ctn', 'depthwise_init', 'zeros', "must be one of .*'identity'"),
        ('ctn', 'position', 'rpe', "position='rpe' must be one of .*'learned'"),
        ('ctn', 'tokenizer', 'tubelet', "ctn has no keyword 'tokenizer'"),
        ('ctn', 'stem_kernel', 4, 'stem_kernel=4 must be odd'),
        ('ctn', 'mapping_kernel', 0, 'mapping_kernel=0 must be odd'),
        ('ctn', 'stem_stride', 0, 'stem_stride=0 must be at least 1'),
        ('ctn', 'stem_channels', 0, 'stem_channels=0 must be at least 1'),
        ('ctn', 'stem_t_stride', (1,), r'stem_t_stride=\(1,\) must be two strides, of convolution'),
        ('ctn', 'stem_t_stride', [0, 1], r'stem_t_stride=\(0, 1\) must be two strides'),
        ('ctn', 'stem_t_stride', (2, 2), r'must be a multiple of \(4, 4, 4\), by which the stem'),
        ('ctn', 'size', 'H/14x2', r'tubelet_size=\(2, 14, 14\) must be a multiple of \(1, 4, 4\)'),
        ('ctn', 'drop_path_rate', 1, r'drop_path_rate=1 must lie in \[0, 1\)'),
    ],
)
def test_impossible_value_of_a_convolutional_model_is_an_error(name, keyword, value, message):
    with pytest.raises(ValueError, match=message):
        create_model(name, **{keyword: value})


def test_stride_that_does_not_divide_the_patch_is_an_error():
    with pytest.raises(ValueError, match=r'cnn_stride=2 must divide .*\(1, 7, 8\)'):
        create_model('convivit', tubelet_size=(1, 7, 8), cnn_stride=2)


def test_odd_number_of_heads_that_share_axes_is_an_error_of_convivit_too():
    with pytest.raises(ValueError, match='num_heads=3 must be even'):
        create_model('convivit', size='Ti/16x1', factorization='dot_product')


@pytest.mark.parametrize('name', ['convivit', 'ctn'])
def test_size_fills_other_models_as_well(name):
    model = create_model(name, size='S/16x4', num_layers=3)
    assert (model.spec.hidden_size, model.spec.num_heads, model.spec.mlp_dim) == (384, 6, 1536)
    assert (model.spec.num_layers, model.spec.tubelet_size) == (3, (4, 16, 16))


@pytest.mark.parametrize('implementation', ['cudnn', 'pallas'])
def test_attention_dropout_with_a_fused_kernel_is_an_error(implementation):
    keywords = {'attention_implementation': implementation, 'attention_dropout_rate': 0.1}
    with pytest.raises(ValueError, match=f"attention_implementation='{implementation}' has no"):
        create_model('vivit_joint', **keywords)
    create_model('vivit_joint', **{**keywords, 'attention_dropout_rate': 0.0})


def test_heads_that_do_not_divide_the_width_are_an_error():
    with pytest.raises(ValueError, match='num_heads=5 must divide hidden_size=48'):
        create_model('vivit_fe', hidden_size=48, num_heads=5)


def test_uniform_frames_ignores_the_length_in_a_size():
    model = create_model('vivit_fe', size='B/14x4', tokenizer='uniform_frames')
    assert model.spec.tubelet_size == (1, 14, 14)
    assert create_model('vivit_fe', tokenizer='uniform_frames').spec.tubelet_size == (1, 16, 16)


@pytest.mark.parametrize('size', [None, 'B/16x2'])
def test_uniform_frames_with_an_explicit_length_is_an_error(size):
    keywords = {'tokenizer': 'uniform_frames', 'tubelet_size': (2, 8, 8)}
    with pytest.raises(ValueError, match=r'tubelet_size=\(2, 8, 8\) must have t=1'):
        create_model('vivit_fe', size=size, **keywords)


@pytest.mark.parametrize('rate', [-0.1, 1, 1.5])
@pytest.mark.parametrize('keyword', ['dropout_rate', 'attention_dropout_rate', 'drop_path_rate'])
def test_rate_out_of_range_is_an_error(keyword, rate):
    with pytest.raises(ValueError, match=rf'{keyword}={rate} must lie in \[0, 1\)'):
        create_model('vivit_fe', **{keyword: rate})


def test_published_variants_are_sizes_too():
    preset = create_model('rpe_stdt', 'stdt_l8_full', num_classes=7)
    assert (preset.spec.num_layers, preset.spec.light, preset.spec.num_classes) == (8, False, 7)
    assert create_model('rpe_stdt', 'stdt_l8_full', num_layers=2).spec.num_layers == 2
    with pytest.raises(ValueError, match='stdt_l8_full'):
        create_model('ctn', 'stdt_l8_full')
