"""Weights exported to PyTorch and read back."""

import dataclasses
import json
import re
import sys
import tracemalloc

import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy
from tiny_models import tiny_keywords

from vivit_jax.errors import UserError
from vivit_jax.heads import by_head, numbered_labels
from vivit_jax.model_card import ModelCard
from vivit_jax.models.registry import MODELS, create_model, list_models, specify
from vivit_jax.models.variables import abstract_params, abstract_variables
from vivit_jax.video.preprocessing import Preprocessing
from vivit_jax.weights.tensor_files import Tensors, open_tensors
from vivit_jax.weights.torch_export import (
    export_torch,
    matches,
    read_torch,
    rules_of,
)
from vivit_jax.weights.torch_layout import to_torch

SPEC = Preprocessing(num_frames=4, crop_size=8, short_side=12, value_range=(0, 1))
FRAMES = {'tokenizer': 'uniform_frames', 'num_sampled_frames': 3, 'tubelet_size': (1, 4, 4)}
# Every model as it comes, and with switches that change its parameters.
SWITCHES = {
    'vivit_joint': {
        'frames': {'pool': 'mean', **FRAMES},
        'attentive': {'pool': 'cls_attention', 'pre_norm': True},
    },
    'vivit_fe': {
        'average': {'temporal_num_layers': 0, 'position': 'none'},
        'pre_norm': {'pre_norm': True},
    },
    'vivit_fsa': {'heads': {'num_classes': {'verb': 3, 'noun': 4}}},
    'vivit_fdp': {'scanned': {'position': 'sincos3d', 'scan_layers': True}},
    'ctn': {
        'scanned': {'scan_layers': True},
        'without_norms': {'stem_bn': False, 'mapping_bn': False},
    },
    'rpe_stdt': {
        'unshared': {'shared_heads': False, 'subsample': 'conv'},
        'absolute': {'size': 'stdt_l8_full', 'pos_embed': 'absolute'},
    },
    'mfst': {'projected': {'stage_residual': 'proj', 'weight_shared': False}},
    'f4d': {'compared': {'attention': ('se', 'cbam'), 'blocks': ('conv1', 'conv2.0')}},
}
GRIDS = {'vivit_joint_frames': (3, 2, 2), 'mfst': (4, 1, 1), 'mfst_projected': (4, 1, 1)}
CASES = {
    f'{name}_{switch}' if switch else name: {**tiny_keywords(name, 4, **keywords), 'name': name}
    for name in list_models()
    for switch, keywords in {'': {}, **SWITCHES.get(name, {})}.items()
}


def make(case, **keywords):
    """A card and random parameters."""
    keywords = {**CASES[case], **keywords}
    card = ModelCard(keywords, SPEC, numbered_labels(keywords['num_classes']))
    rng = np.random.default_rng(0)
    shapes = abstract_params(create_model(**card.model), card.preprocessing.clip_shape)
    params = jax.tree.map(lambda x: rng.normal(0, 0.4, x.shape).astype(np.float32), shapes)
    return card, params


def random_statistics(card):
    rng = np.random.default_rng(1)
    shapes = abstract_variables(create_model(**card.model), card.preprocessing.clip_shape)[
        'batch_stats'
    ]
    return jax.tree.map(lambda x: rng.uniform(0.5, 1.5, x.shape).astype(np.float32), shapes)


def export(folder, case='vivit_joint', **keywords):
    card, params = make(case, **keywords)
    path = folder / 'model.safetensors'
    export_torch(card, params, path, random_statistics(card))
    return card, params, path


def read(path):
    tensors = open_tensors(path)
    assert matches(tensors)
    return read_torch(tensors, path)


def assert_equal_trees(found, expected):
    found, expected = (flax.traverse_util.flatten_dict(x, sep='/') for x in (found, expected))
    assert found.keys() == expected.keys()
    for name, value in found.items():
        assert value.dtype == np.float32 and value.flags.c_contiguous, name
        np.testing.assert_array_equal(value, expected[name], strict=True)


def needs_torch():
    return pytest.importorskip('torch', reason='needs PyTorch: the extra torch')


@pytest.mark.parametrize('case', CASES)
def test_export_is_read_back_bit_for_bit_without_pytorch(case, tmp_path, monkeypatch):
    # Before: where einops meets a new type of array, the name alone makes it import PyTorch.
    card, params = make(case)
    monkeypatch.setitem(sys.modules, 'torch', None)
    path = tmp_path / 'model.safetensors'
    export_torch(card, params, path, random_statistics(card))
    weights = read(path)
    assert weights.card == ModelCard.from_json(card.to_json())
    length, *_ = CASES[case].get('tubelet_size', (1,))
    is_of_tubelets = 'tubelet_size' in CASES[case] and 'mfst' not in case
    grid = (4 // length, 2, 2) if is_of_tubelets else (4, 1, 1)
    assert weights.grid == ((3, 2, 2) if case == 'vivit_joint_frames' else grid)
    assert weights.has_head and not weights.unused
    assert_equal_trees(weights.params, params)
    assert_equal_trees(weights.batch_stats, random_statistics(card))


def test_parameters_on_a_device_are_exported(tmp_path):
    card, params, path = export(tmp_path)
    export_torch(card, jax.tree.map(jnp.asarray, params), path.with_name('other.safetensors'))
    expected, found = open_tensors(path), open_tensors(path.with_name('other.safetensors'))
    assert found.metadata == expected.metadata and found.keys() == expected.keys()
    for name, value in found.items():
        np.testing.assert_array_equal(value, expected[name], strict=True)


def test_metadata_tells_other_readers_format_clip_and_grid(tmp_path):
    card, _, path = export(tmp_path)
    with safetensors.safe_open(path, 'np') as file:
        metadata = file.metadata()
    assert metadata['format'] == 'pt'
    content = json.loads(metadata['vivit_jax'])
    assert content == {'card': card.to_json(), 'clip_shape': [4, 8, 8], 'grid': [2, 2, 2]}


@pytest.mark.parametrize('case', CASES)
def test_names_and_shapes_are_those_of_the_pytorch_model(case):
    needs_torch()
    import vivit_jax.torch

    card, params = make(case)
    model = vivit_jax.torch.create_model(**card.model, clip_shape=SPEC.clip_shape)
    found = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    statistics = random_statistics(card)
    renamed = to_torch(params, rules_of(specify(**card.model)), statistics)
    assert found == {name: value.shape for name, value in renamed.items()}
    assert len(renamed) == len(jax.tree.leaves((params, statistics)))  # all names differ


def test_every_rule_is_used():
    names = set()
    for case in CASES:
        card, params = make(case)
        for tree in (params, random_statistics(card)):
            names |= flax.traverse_util.flatten_dict(tree, sep='/').keys()
    rules = {pattern for spec in MODELS.values() for pattern, _, _ in rules_of(spec)}
    unused = [
        pattern for pattern in rules if not any(re.fullmatch(pattern, name) for name in names)
    ]
    # The encoders share their rules, but no block of these has several attentions, and those of
    # MFST have neither positions, a final norm nor biases.
    has_no_such = (
        r'(Spatial|Temporal).*_\(\?P<axis>|stage_.*Transformer.*(_norm|_embedding|/bias|<axis>)'
    )
    assert not [pattern for pattern in unused if not re.match(has_no_such, pattern)]


@pytest.mark.parametrize('case', CASES)
def test_loaded_and_saved_by_pytorch_is_equal_bit_for_bit(case, tmp_path):
    needs_torch()
    import vivit_jax.torch

    card, params, path = export(tmp_path, case)
    model, found = vivit_jax.torch.load_model(path)
    assert found == ModelCard.from_json(card.to_json())
    assert not model.training and all(x.requires_grad for x in model.parameters())
    vivit_jax.torch.save_model(model, tmp_path / 'saved.safetensors', found)
    weights = read(tmp_path / 'saved.safetensors')
    assert weights.card == found
    assert_equal_trees(weights.params, params)
    assert_equal_trees(weights.batch_stats, random_statistics(card))


def test_file_is_read_by_the_library_of_pytorch(tmp_path):
    torch = needs_torch()
    import safetensors.torch

    import vivit_jax.torch

    card, _, path = export(tmp_path, 'vivit_fe')
    model = vivit_jax.torch.create_model(**card.model, clip_shape=SPEC.clip_shape).eval()
    model.load_state_dict(safetensors.torch.load_file(path))
    clip = torch.rand(1, *SPEC.clip_shape, 3)
    expected = vivit_jax.torch.load_model(path)[0](clip).logits
    assert torch.equal(model(clip).logits, expected)


@pytest.mark.usefixtures('exact_matmuls')
@pytest.mark.parametrize('case', ['vivit_joint', 'vivit_fsa_heads', 'convivit', 'ctn_scanned'])
def test_trained_by_pytorch_and_run_by_jax_is_equal(case, tmp_path):
    torch = needs_torch()
    import vivit_jax.torch

    _, params, path = export(tmp_path, case)
    model, card = vivit_jax.torch.load_model(path)
    model.train()
    optimizer = torch.optim.SGD(model.parameters(), 0.01)
    clip = np.random.default_rng(1).uniform(0, 1, (2, 4, 8, 8, 3)).astype(np.float32)
    for _ in range(2):
        optimizer.zero_grad()
        model(torch.tensor(clip)).features.square().sum().backward()
        optimizer.step()
    vivit_jax.torch.save_model(model, path, card)
    weights = read(path)
    assert not np.array_equal(weights.params['embedding']['kernel'], params['embedding']['kernel'])
    ours = create_model(**weights.card.model)
    output = jax.jit(ours.apply)(
        {'params': weights.params, 'batch_stats': weights.batch_stats}, clip
    )
    with torch.inference_mode():
        expected = model.eval()(torch.tensor(clip))
    wanted = {'features': expected.features, **by_head(expected.logits)}
    found = {'features': output.features, **by_head(output.logits)}
    for name, value in wanted.items():
        assert np.linalg.norm(found[name] - value.numpy()) <= 1e-5 * np.linalg.norm(value), name


def test_new_classifier_is_saved_with_a_card_that_tells_it(tmp_path):
    torch = needs_torch()
    import vivit_jax.torch

    _, _, path = export(tmp_path)
    model, card = vivit_jax.torch.load_model(path)
    model.head = torch.nn.Linear(16, 2).to(torch.bfloat16)
    saved = tmp_path / 'saved.safetensors'
    with pytest.raises(UserError, match=r'(?s)not of one model.*head\.weight'):
        vivit_jax.torch.save_model(model, saved, card)
    assert not saved.exists()
    card = dataclasses.replace(
        card, model={**card.model, 'num_classes': 2}, label_names=('push', 'pull')
    )
    vivit_jax.torch.save_model(model, saved, card)
    weights = read(saved)
    assert weights.card.label_names == ('push', 'pull')
    expected = model.head.weight.detach().float().numpy().T
    np.testing.assert_array_equal(weights.params['output_projection']['kernel'], expected)


def test_save_model_wants_the_suffix(tmp_path):
    needs_torch()
    import vivit_jax.torch

    card, _, path = export(tmp_path)
    model, card = vivit_jax.torch.load_model(path)
    with pytest.raises(UserError, match=r'must end in \.safetensors'):
        vivit_jax.torch.save_model(model, tmp_path / 'model.pth', card)


def altered(path, change):
    """The tensors of a file after a change, in memory."""
    tensors = open_tensors(path)
    arrays = dict(tensors)
    change(arrays)
    return Tensors({k: lambda x=x: x for k, x in arrays.items()}, tensors.metadata)


def test_what_is_missing_unknown_or_misshapen_is_listed(tmp_path):
    *_, path = export(tmp_path)

    def change(arrays):
        del arrays['encoder.norm.bias']
        arrays['encoder.class_token'] = arrays['encoder.class_token'][..., :8]
        arrays['head.weight'] = arrays['head.weight'].T
        arrays['encoder.blocks.2.mlp.fc1.bias'] = np.zeros(24, np.float32)

    with pytest.raises(UserError) as caught:
        read_torch(altered(path, change), path)
    lines = str(caught.value).splitlines()
    assert lines[0] == f'{path} does not fit vivit_joint:'
    assert sorted(line.strip() for line in lines[1:]) == [
        'encoder.blocks.2.mlp.fc1.bias: the model has no such tensor',
        'encoder.class_token: (1, 1, 8), needed (1, 1, 16)',
        'encoder.norm.bias: missing, needed (16,)',
        'head.weight: (16, 5), needed (5, 16)',
    ]


def test_pytorch_lists_them_too(tmp_path):
    needs_torch()
    import vivit_jax.torch

    card, params, path = export(tmp_path)
    wrong = dataclasses.replace(card, model={**card.model, 'num_layers': 1, 'mlp_dim': 20})
    export_torch(wrong, params, path)
    with pytest.raises(UserError, match=r'(?s)blocks\.1\.mlp.*blocks\.0\.mlp\.fc1\.weight'):
        vivit_jax.torch.load_model(path)


def test_parameters_without_a_rule_are_listed(tmp_path):
    card, params = make('vivit_joint')
    params = {**params, 'adapter': {'kernel': np.zeros(3)}, 'cls2': np.zeros(3)}
    with pytest.raises(UserError, match='adapter/kernel, cls2'):
        export_torch(card, params, tmp_path / 'x.safetensors')


@pytest.mark.parametrize('suffix', ['pth', 'safetensors'])
def test_file_without_metadata_is_known_and_asks_for_save_model(suffix, tmp_path):
    torch = needs_torch()
    import safetensors.torch

    import vivit_jax.torch

    card, _ = make('vivit_joint')
    model = vivit_jax.torch.create_model(**card.model, clip_shape=SPEC.clip_shape)
    path = tmp_path / f'model.{suffix}'
    save = torch.save if suffix == 'pth' else safetensors.torch.save_file
    save(model.state_dict(), path)
    for reader in (read, vivit_jax.torch.load_model):
        with pytest.raises(UserError, match=r'save_model\(model, path, card\)'):
            reader(path)


@pytest.mark.parametrize(
    ('metadata', 'message'),
    [
        ('{', 'damaged'),
        ('{"card": {}}', 'damaged'),
        ({'name': 'vivit_jint'}, "damaged metadata: unknown model 'vivit_jint'"),
        ({'name': 'vivit_joint', 'num_heads': 5}, 'damaged metadata: num_heads=5 must divide'),
    ],
)
def test_damaged_metadata_is_an_error(metadata, message, tmp_path):
    card, _ = make('vivit_joint')
    if isinstance(metadata, dict):
        card = dataclasses.replace(card, model=metadata)
        metadata = json.dumps({'card': card.to_json()})
    with pytest.raises(UserError, match=message):
        read_torch(Tensors({}, {'vivit_jax': metadata}), tmp_path / 'x.safetensors')


def test_files_of_others_do_not_match():
    assert not matches(Tensors({'blocks.0.attn.qkv.weight': lambda: None}, {'format': 'pt'}))


def test_at_most_one_copy_is_held_beside_the_source(tmp_path):
    card, params = make('vivit_joint', hidden_size=256, mlp_dim=1024)
    size = sum(x.nbytes for x in jax.tree.leaves(params))
    path = tmp_path / 'model.safetensors'
    export_torch(card, params, path)  # memory for imports and compilation does not count
    read(path)
    for step in (lambda: export_torch(card, params, path), lambda: read(path)):
        tracemalloc.start()
        result = step()
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert size * 0.9 < peak < 1.5 * size
        del result
