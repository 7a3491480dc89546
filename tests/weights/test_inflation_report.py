import re

import flax.traverse_util
import jax.numpy as jnp
import numpy as np
import pytest

from vivit_jax.errors import UserError
from vivit_jax.weights.inflation import init_from_image_vit
from vivit_jax.weights.report import Entry

WIDTH = 16
GRID = (2, 3)
TABLE = 'Transformer/posembed_input/pos_embedding'
ATTENTION = 'MultiHeadDotProductAttention'

# A module of a video block -> the module of an image ViT's block whose weights it starts from.
PLAIN = {x: x for x in ('LayerNorm_0', f'{ATTENTION}_0', 'LayerNorm_1', 'MlpBlock_0')}
SPLIT = dict(
    zip(('LayerNorm_space', f'{ATTENTION}_space', 'LayerNorm_mlp', 'MlpBlock'), PLAIN, strict=True)
)
BLOCKS = {'vivit_joint': PLAIN, 'vivit_fe': PLAIN, 'vivit_fsa': SPLIT, 'vivit_fdp': PLAIN}


def _statuses(fresh, vit, report):
    """The statuses of the target's parameters, and the unused parameters of the source."""
    entries = {entry.name: entry for entry in report.entries if entry.status != 'unused'}
    unused = {entry.name for entry in report.entries if entry.status == 'unused'}
    assert entries.keys() == fresh.keys()
    assert len(report.entries) == len(entries) + len(unused)
    assert unused | {entry.source for entry in entries.values()} - {''} == vit.keys()
    return {name: (e.status, e.source, e.detail) for name, e in entries.items()}, unused


def _message(start, *args, **kwargs):
    with pytest.raises(UserError) as error:
        start(*args, **kwargs)
    return str(error.value)


@pytest.mark.parametrize(
    ('name', 'keywords', 'has_class_token', 'table', 'tokens'),
    [
        ('vivit_joint', {}, True, ('inflated', 'grid 2x3 -> 2x2x3'), {'cls': 'copied'}),
        (
            'vivit_joint',
            {},
            False,
            ('inflated', 'grid 2x3 -> 2x2x3, row of the class token new'),
            {'cls': 'new'},
        ),
        ('vivit_joint', {'pool': 'mean'}, False, ('inflated', 'grid 2x3 -> 2x2x3'), {}),
        (
            'vivit_fe',
            {},
            True,
            ('copied', ''),
            {'cls_SpatialTransformer': 'copied', 'cls_TemporalTransformer': 'new'},
        ),
        ('vivit_fe', {'pool': 'mean'}, True, ('copied', 'row of the class token left out'), {}),
        (
            'vivit_fe',
            {'temporal_num_layers': 0},
            False,
            ('copied', 'row of the class token new'),
            {'cls_SpatialTransformer': 'new'},
        ),
        (
            'vivit_fsa',
            {},
            True,
            ('inflated', 'grid 2x3 -> 2x2x3, row of the class token left out'),
            {},
        ),
        (
            'vivit_fdp',
            {'num_classes': {'noun': 3, 'verb': 2}},
            False,
            ('inflated', 'grid 2x3 -> 2x2x3'),
            {},
        ),
        ('vivit_fdp', {'position': 'sincos3d'}, True, None, {}),
        (
            'vivit_fe',
            {'position': 'none'},
            True,
            None,
            {'cls_SpatialTransformer': 'copied', 'cls_TemporalTransformer': 'new'},
        ),
    ],
    ids=str,
)
def test_report_says_what_became_of_every_parameter(
    name, keywords, has_class_token, table, tokens, image_vit, video_model, start
):
    model, vit = video_model(name, **keywords), image_vit(has_class_token)
    vit |= {'head/kernel': np.zeros((WIDTH, 9)), 'pre_logits/bias': np.zeros(WIDTH)}
    fresh, params, report = start(model, vit)
    statuses, unused = _statuses(fresh, vit, report)

    encoder = 'SpatialTransformer' if name == 'vivit_fe' else 'Transformer'
    expected = {
        'embedding/kernel': ('inflated', 'embedding/kernel', 'central frame of 3'),
        'embedding/bias': ('copied', 'embedding/bias', ''),
    }
    for path in vit:
        if match := re.fullmatch(r'Transformer/(encoderblock_\d|encoder_norm)/(.+)', path):
            inside = match[2]
            for module, origin in BLOCKS[name].items():
                if match[2].startswith(f'{origin}/'):
                    inside = match[2].replace(origin, module)
            expected[f'{encoder}/{match[1]}/{inside}'] = ('copied', path, '')
    if table:
        expected[f'{encoder}/posembed_input/pos_embedding'] = (table[0], TABLE, table[1])
    for token, status in tokens.items():
        expected[token] = (status, 'cls' if status == 'copied' else '', '')
    for path in statuses:  # the other parameters are new, and no others may be
        if re.match('TemporalTransformer/|output_projection|.*_time/', path):
            expected[path] = ('new', '', 'zero' if '_time/out/' in path else '')
    assert statuses == expected

    heads = {'output_projection/kernel', 'output_projection/bias', 'head/kernel', 'pre_logits/bias'}
    inherits = 'copied' in tokens.values()
    assert unused == (
        heads
        | ({TABLE} if not table else set())
        | ({'cls'} if has_class_token and not inherits else set())
    )

    for path, (status, source, detail) in statuses.items():
        expected = fresh[path] if status == 'new' else vit[source]
        if detail == 'zero':
            expected = np.zeros_like(expected)
        elif source == TABLE:
            places = vit[TABLE][:, has_class_token:]
            rows = [places] if name == 'vivit_fe' else [places, places]
            if fresh[path].shape[1] % 2:  # a class token and an even number of places
                rows.insert(0, (vit[TABLE] if has_class_token else fresh[path])[:, :1])
            expected = np.concatenate(rows, 1)
        elif source == 'embedding/kernel':
            expected = np.stack([0 * expected, expected, 0 * expected])
        assert params[path].dtype == jnp.float32
        np.testing.assert_array_equal(params[path], expected, err_msg=path)


def test_report_of_random_tubelets_and_pretrained_temporal_attention(image_vit, video_model, start):
    vit = image_vit(False)
    fresh, _, report = start(
        video_model('vivit_fsa'), vit, tubelet_init='random', temporal_attention_init='pretrained'
    )
    statuses, unused = _statuses(fresh, vit, report)
    assert statuses['embedding/kernel'] == ('new', '', '')
    assert 'embedding/kernel' in unused
    for path in (path for path in statuses if '_time/' in path):
        is_attention = ATTENTION in path
        source = path.replace('_time', '_0') if is_attention else ''
        assert statuses[path] == ('copied' if is_attention else 'new', source, '')


def test_report_of_fresh_temporal_attention(image_vit, video_model, start):
    _, _, report = start(
        video_model('vivit_fsa'), image_vit(False), temporal_attention_init='fresh'
    )
    temporal = [entry for entry in report.entries if '_time/' in entry.name]
    assert {(entry.status, entry.source, entry.detail) for entry in temporal} == {('new', '', '')}


def test_report_of_single_frames_copies_the_kernel(image_vit, video_model, start):
    _, _, report = start(video_model('vivit_fe', tokenizer='uniform_frames'), image_vit(True))
    assert Entry('copied', 'embedding/kernel', 'embedding/kernel') in report.entries


@pytest.mark.parametrize(
    ('sizes', 'lines'),
    [
        (
            {'layers': 4},
            [
                ('unused', r'Transformer/encoderblock_\{2…3\}/LayerNorm_0/scale', '2'),
                ('unused', r'Transformer/encoderblock_\{2…3\}/MlpBlock_0/Dense_1/kernel', '2'),
            ],
        ),
        (
            {'layers': 1},
            [('new', 'Transformer/encoderblock_1/MlpBlock_0/Dense_0/bias', '1')],
        ),
        (
            {'p': 8},
            [('misfit', 'embedding/kernel', r'1 .*\(3, 8, 8, 3, 16\), needed \(3, 4, 4, 3, 16\)')],
        ),
        (
            {'d': 32, 'layers': 3},
            [
                ('misfit', 'cls', r'1 .*\(1, 1, 32\), needed \(1, 1, 16\)'),
                ('misfit', TABLE, r'1 .*\(1, 7, 32\), needed \(1, 13, 16\)'),
                (
                    'misfit',
                    r'Transformer/encoderblock_\{0…1\}/LayerNorm_0/bias',
                    r'2 .*\(32,\), needed \(16,\)',
                ),
                ('misfit', 'embedding/kernel', r'1 .*'),
                ('unused', 'Transformer/encoderblock_2/LayerNorm_0/bias', '1'),
            ],
        ),
    ],
    ids=str,
)
def test_error_lists_all_that_does_not_fit(sizes, lines, image_vit, video_model, start):
    message = _message(start, video_model('vivit_joint'), image_vit(True, **sizes))
    for line in lines:
        assert re.search('^' + ' +'.join(line), message, re.MULTILINE), message
    assert 'output_projection' not in message
    assert {line.split()[0] for line in message.splitlines()[2:-1] if ':' not in line} == {
        status for status, *_ in lines
    }


def test_missing_and_unknown_weights_are_errors(image_vit, video_model, start):
    vit = image_vit(True)
    vit['unknown/kernel'] = vit.pop('embedding/kernel')
    message = _message(start, video_model('vivit_fe'), vit)
    assert re.search(r'^new +embedding/kernel +1$', message, re.MULTILINE)
    assert re.search(r'^unused +unknown/kernel +1$', message, re.MULTILINE)
    assert len(message.splitlines()) == 6

    vit = image_vit(True)
    del vit[TABLE]
    assert re.search(
        f'^new +Spatial{TABLE}', _message(start, video_model('vivit_fe'), vit), re.MULTILINE
    )


@pytest.mark.parametrize('keyword', ['tubelet_init', 'temporal_attention_init'])
def test_unknown_choice_is_an_error(keyword, image_vit, video_model, start):
    message = _message(start, video_model('vivit_fsa'), image_vit(True), **{keyword: 'zeros'})
    assert re.match(rf"{keyword}='zeros' must be one of \('", message)


@pytest.mark.parametrize(('image_grid', 'shown'), [(None, '2x2'), ((3, 3), '3x3')])
def test_grid_that_is_not_the_table_s_is_an_error(image_grid, shown, image_vit, video_model, start):
    message = _message(start, video_model('vivit_fe'), image_vit(True), image_grid=image_grid)
    assert re.match(f'image_grid={shown} does not have the 6 places .* give', message)


def test_clips_of_another_shape_than_the_parameters_are_an_error(
    image_vit, video_model, fresh_params
):
    model = video_model('vivit_joint')
    params, vit = fresh_params(model), flax.traverse_util.unflatten_dict(image_vit(True), sep='/')
    with pytest.raises(ValueError, match=r'has 13 rows, but a clip of \(9, 8, 12\) needs 19: init'):
        init_from_image_vit(model, params, vit, clip_shape=(9, 8, 12), image_grid=GRID)
    with pytest.raises(ValueError, match='height=10 does not divide'):
        init_from_image_vit(model, params, vit, clip_shape=(6, 10, 12), image_grid=GRID)
