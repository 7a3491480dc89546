"""Checkpoints that commit f8ba488 wrote still load, predict the same, and go on."""

import zipfile
from pathlib import Path

import numpy as np
import pytest

from vivit_jax.weights.load import load_checkpoint

# Tiny models after six steps on the embedded videos: `vivit_fe` as a run folder and, like `ctn`,
# which has batch norms, converted to other formats; and what f8ba488 computed with them.
ARCHIVE = Path(__file__).with_name('checkpoints_of_f8ba488.zip')
NAMES = ['run', 'run_orbax', 'run.npz', 'run.safetensors', 'ctn.npz', 'ctn.safetensors']


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp('old')
    with zipfile.ZipFile(ARCHIVE) as archive:
        archive.extractall(path)
    return path


@pytest.fixture(scope='module')
def expected(folder):
    with np.load(folder / 'expected.npz') as arrays:
        return dict(arrays)


@pytest.fixture
def clip():
    return np.random.default_rng(0).uniform(-1, 1, (2, 4, 16, 16, 3)).astype(np.float32)


@pytest.mark.parametrize('name', NAMES)
def test_old_checkpoint_predicts_what_it_did(folder, expected, clip, name):
    model, variables, *_ = load_checkpoint(folder / name)
    output = model.apply(variables, clip)
    kind = name.split('.')[0].removesuffix('_orbax')
    assert np.abs(expected[kind]).max() > 0.01  # it has learned a little
    np.testing.assert_allclose(output.logits, expected[kind], rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(output.features, expected[f'{kind}_features'], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize('kind', ['run', 'ctn'])
def test_old_pytorch_file_predicts_the_same_in_pytorch(folder, expected, clip, kind):
    torch = pytest.importorskip('torch', reason='needs PyTorch: the extra torch')
    from vivit_jax.torch import load_model

    model, _ = load_model(folder / f'{kind}.safetensors')
    with torch.inference_mode():
        output = model(torch.from_numpy(clip))
    np.testing.assert_allclose(output.logits, expected[kind], rtol=1e-4, atol=1e-6)
