"""The code of docs/library.md runs from top to bottom, and its table lists what is public."""

import ast
import dataclasses
import importlib
import inspect
import re
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest

import vivit_jax
from vivit_jax.models.registry import create_model, find_keywords
from vivit_jax.models.variables import abstract_variables
from vivit_jax.video.preprocessing import Preprocessing
from vivit_jax.video.synthetic import write_video
from vivit_jax.weights.load import read_weights
from vivit_jax.weights.save import save_checkpoint
from vivit_jax.weights.torch_export import export_torch

PAGE = (Path(__file__).parents[1] / 'docs/library.md').read_text('utf-8')
BLOCKS = re.findall(r'^```(\w+)\n(.*?)^```$', PAGE, re.M | re.S)
ROWS = re.findall(r'^\| `(vivit_jax[\w.]*)` \| (.*) \|$', PAGE, re.M)
MODULES = {module: re.findall(r'`(\w+)`', names) for module, names in ROWS}


@pytest.fixture
def folder(tmp_path, synthetic_folder, monkeypatch):
    """The files that the page names."""
    shutil.copytree(synthetic_folder, tmp_path / 'my_videos')
    video = next((tmp_path / 'my_videos').rglob('*.mp4'))
    for name in ('video.mp4', 'a.mp4', 'b.mp4', 'camera'):
        shutil.copy(video, tmp_path / name)
    (tmp_path / 'broken.mp4').write_bytes(b'no video')
    spec = Preprocessing(num_frames=4, short_side=16, crop_size=16)
    model = create_model(
        'vivit_joint',
        num_classes=3,
        hidden_size=8,
        num_layers=1,
        num_heads=2,
        mlp_dim=8,
        tubelet_size=(2, 8, 8),
    )
    rng = np.random.default_rng(0)
    variables = jax.tree.map(
        lambda x: rng.normal(0, 0.3, x.shape).astype(np.float32),
        abstract_variables(model, spec.clip_shape),
    )
    names = ('clap', 'jump', 'run')
    save_checkpoint(tmp_path / 'runs/demo', model, variables, spec, names)
    save_checkpoint(tmp_path / 'runs/labels', model, variables, spec, names, is_multi_label=True)
    spec = dataclasses.replace(spec, depth_range=(4000, 500))
    fused = create_model(**find_keywords(dataclasses.replace(model.spec, modality='rgbd')))
    variables = {name: {'rgb': x, 'depth': x} if x else {} for name, x in variables.items()}
    save_checkpoint(tmp_path / 'runs/rgbd', fused, variables, spec, names)
    for name in ('depth.mkv', 'b_depth.mkv'):
        write_video(tmp_path / name, np.full((10, 32, 40), 1000, np.uint16))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.slow
def test_code_of_the_page_runs_in_order(folder):
    names, batches = {}, None
    for language, code in BLOCKS:
        if language == 'python':
            code = code.replace('/dev/video0', 'camera')
            exec(compile(code, 'docs/library.md', 'exec'), names)
        elif '--source=runs/own --to=torch --output=own.safetensors' in code:
            weights = read_weights('runs/own')  # as the command does, in a process of its own
            export_torch(weights.card, weights.params, folder / 'own.safetensors')
        if names.get('batches') is not batches:
            batches = names['batches']
            rgb, labels = map(np.asarray, next(iter(batches)))
            assert rgb.shape == (4, 8, 64, 64, 3) and rgb.dtype == np.uint8
            assert set(labels) <= set(range(8))
    assert 0 < names['loss'] < 10
    assert names['report'].entries
    assert names['params']['output_projection']['bias'].shape == (3,)
    assert names['features'].shape == (3, 192)
    heat = names['of_class_token']
    assert heat.shape == (1, 4, 4, 4) and (heat > 0).all() and (heat.sum((2, 3)) < 1).all()
    assert names['output'].logits.shape == (1, 8)  # of PyTorch


def test_table_lists_every_public_name():
    assert set(vivit_jax.__all__) - {'__version__'} == set(MODULES['vivit_jax'])
    for name, listed in MODULES.items():
        public = [x for x in importlib.import_module(name).__all__ if x != '__version__']
        assert sorted(public) == public == listed, name


def test_code_of_the_page_imports_only_public_names():
    for language, code in BLOCKS:
        if language == 'python':
            for node in ast.walk(ast.parse(code)):
                if isinstance(node, ast.ImportFrom) and node.module.startswith('vivit_jax'):
                    assert {alias.name for alias in node.names} <= set(MODULES[node.module])


def functions_of(value):
    """A function, or the public methods of a class that are written in this package."""
    if not inspect.isclass(value):
        return [value]
    found = [getattr(x, 'fget', None) or getattr(x, '__func__', x) for x in vars(value).values()]
    return [
        x
        for x in found
        if inspect.isfunction(x)
        and (not x.__name__.startswith('_') or x.__name__ in ('__init__', '__call__'))
    ]


@pytest.mark.parametrize(
    ('module', 'name'), [(module, name) for module, names in MODULES.items() for name in names]
)
def test_public_names_have_a_docstring_and_type_hints(module, name):
    value = getattr(importlib.import_module(module), name)
    assert inspect.getdoc(value)
    for function in functions_of(value):
        bare = [
            name
            for name, parameter in inspect.signature(function).parameters.items()
            if parameter.annotation is parameter.empty and name not in ('self', 'cls', 'keywords')
        ]
        assert not bare, f'{function.__qualname__}: {bare}'
