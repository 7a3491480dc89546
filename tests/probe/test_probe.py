"""Heads on features, and models that are made of a frozen model and a head."""

import csv
import itertools
import json

import jax
import numpy as np
import pytest

from vivit_jax.annotations.dataset import LabeledVideo
from vivit_jax.config.presets import runlocal
from vivit_jax.config.schema import default_config
from vivit_jax.errors import UserError
from vivit_jax.evaluation.evaluate_checkpoint import evaluate_checkpoint
from vivit_jax.evaluation.forward import create_forward
from vivit_jax.features.backbone import Backbone, read_backbone
from vivit_jax.model_card import ModelCard
from vivit_jax.models.registry import create_model
from vivit_jax.models.variables import init_variables
from vivit_jax.predictor import Predictor
from vivit_jax.probe.folds import draw_folds
from vivit_jax.probe.heads import AttentiveHead, LinearHead, Ridge, knn_scores
from vivit_jax.probe.model import add_head
from vivit_jax.probe.probe import Probe
from vivit_jax.probe.scale import Scale
from vivit_jax.probe.search import Features, Head, apply_head, inputs_of, try_heads
from vivit_jax.probe.training import Setting, train_heads
from vivit_jax.video.clips import read_view
from vivit_jax.video.open import open_video
from vivit_jax.video.preprocessing import Preprocessing
from vivit_jax.weights.load import load_checkpoint
from vivit_jax.weights.orbax import write_checkpoint

SPEC = Preprocessing(num_frames=4, frame_stride=1, short_side=16, crop_size=16)
SIZES = {
    'hidden_size': 16,
    'num_layers': 1,
    'num_heads': 2,
    'mlp_dim': 16,
    'tubelet_size': (1, 8, 8),
    'num_classes': 3,
}
FRAMES = {'name': 'vivit_fe', 'temporal_num_layers': 0, 'frame_pool': 'concat', 'pool': 'cls_mean'}
VIDEO = {'name': 'vivit_joint', 'position': 'sincos3d'}

pytestmark = pytest.mark.usefixtures('exact_matmuls')


def random_tree(tree, rng):
    return jax.tree.map(lambda x: rng.normal(0, 0.3, x.shape).astype(np.float32), tree)


def one_hot(labels):
    return np.eye(labels.max() + 1, dtype=np.float32)[labels]


def backbone_of(keywords):
    keywords = {**SIZES, **keywords}
    model = create_model(**keywords)
    variables = init_variables(jax.random.key(0), model, SPEC.clip_shape)
    variables = random_tree(variables, np.random.default_rng(0))
    card = ModelCard(keywords, SPEC, ('a', 'b', 'c'), is_multi_label=True)  # of the backbone alone
    return Backbone(model, variables, card, is_of_frames='frame_pool' in keywords)


def features_of(backbone, pixels):
    """Features of pixels [n views t h w 3], as they are kept on disk, without rounding."""
    found = jax.jit(backbone.forward())(backbone.variables, {'rgb': pixels})
    return Features.of(one_hot(np.arange(len(pixels)) % 3), jax.tree.map(np.asarray, found))


def random_head(backbone, features, pool, depth=None):
    inputs = inputs_of(features, pool, depth)
    module = AttentiveHead(backbone.model.spec, 3) if pool == 'attention' else LinearHead(3)
    params = module.init(jax.random.key(1), inputs[:1])['params']
    params = random_tree(params, np.random.default_rng(1))
    if pool == 'attention':
        params = {'attention_pool': params['attention_pool'], **params['linear']}
    return Head(pool, params, depth)


@pytest.mark.parametrize(
    ('keywords', 'pool'),
    [
        (FRAMES, 'mean'),
        (FRAMES, 'concat'),
        ({**FRAMES, 'num_layers': 3}, 'change'),
        (FRAMES, 'attention'),
        ({**FRAMES, 'pool': 'mean'}, 'attention'),
        ({**FRAMES, 'pool': 'mean', 'num_layers': 3, 'pre_norm': True}, 'change'),
        (VIDEO, 'mean'),
        (VIDEO, 'attention'),
        ({'name': 'vivit_fsa'}, 'attention'),
        ({**VIDEO, 'pool': 'cls_attention'}, 'mean'),
    ],
)
def test_model_gives_the_scores_of_its_head(keywords, pool):
    backbone = backbone_of(keywords)
    pixels = np.random.default_rng(2).integers(0, 256, (3, 2, *SPEC.clip_shape, 3), np.uint8)
    features = features_of(backbone, pixels)
    head = random_head(backbone, features, pool, 2 if pool == 'change' else None)
    card, params, _ = add_head(backbone, head, ('x', 'y', 'z'), None, is_multi_label=False)
    assert not card.is_multi_label
    if pool == 'change':
        assert card.model['num_layers'] == 2
        assert 'encoderblock_2' not in params['SpatialTransformer']
    output = create_forward(create_model(**card.model), SPEC)({'params': params}, pixels)
    expected = np.asarray(output.logits).mean(axis=1)
    found = apply_head(head, features, backbone.model.spec)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize('most', [1, 3])
def test_ridge_solves_the_normal_equations(most):
    rng = np.random.default_rng(0)
    for n, d in ((30, 5), (8, 20)):
        x, y = rng.normal(1, 2, (n, d)), one_hot(rng.integers(0, 3, (most, n))).max(axis=0)
        kernel, bias = Ridge(x, y).solve(0.1)
        # The gradient of the objective over W and b is zero.
        rest = x @ kernel + bias - y
        np.testing.assert_allclose(x.T @ rest + 0.1 * n * kernel, 0, atol=1e-9)
        np.testing.assert_allclose(rest.sum(axis=0), 0, atol=1e-9)


def test_neighbours_vote_by_their_cosines():
    train = np.array([[1, 0], [2, 0.1], [0, 1], [-1, 0]], float)
    targets = np.array([[1, 0, 0], [1, 1, 0], [0, 1, 1], [0, 0, 1]], float)
    scores = knn_scores(train, targets, np.array([[3.0, 0.0]]), 2)
    first, second = np.exp(np.array([1, 2 / np.hypot(2, 0.1)]) / 0.07)
    np.testing.assert_allclose(scores, [[1, second / (first + second), 0]])
    assert knn_scores(train, targets, train, 10).shape == (4, 3)


def test_folds_keep_groups_together_and_share_the_classes():
    videos = [
        LabeledVideo(f'{person}_{label}.mp4', label, group=str(person))
        for person, label in itertools.product(range(10), range(4))
    ]
    labels = np.array([video.label for video in videos])
    folds = draw_folds(videos, one_hot(labels), seed=0)
    assert set(folds) == set(range(5))
    for person in range(10):
        assert len(set(folds[person * 4 : person * 4 + 4])) == 1
    assert all((np.bincount(labels[folds == fold]) == 2).all() for fold in range(5))
    with pytest.raises(UserError, match=r'all of one group.*--val_csv'):
        draw_folds(videos[:4], one_hot(labels[:4]), seed=0)


def test_heads_of_one_program_equal_heads_alone():
    rng = np.random.default_rng(0)
    x, labels = rng.normal(size=(20, 6)).astype(np.float32), rng.integers(0, 3, 20)
    scales = Scale.stack([Scale.of(x[:10]), Scale.of(x[10:])])
    weights = np.ones((2, 20), np.float32)
    weights[1, ::3] = 0
    settings = [Setting(0.01, 0.0), Setting(0.03, 0.5)]
    how = {'epochs': 3, 'batch_size': 8}
    params, logits = train_heads(
        LinearHead(3), x, one_hot(labels), weights, settings, scales=scales, **how
    )
    assert logits.shape == (2, 2, 20, 3)
    for fold, setting in itertools.product(range(2), range(2)):
        # What is held out has no influence.
        other = one_hot(np.where(weights[fold] > 0, labels, (labels + 1) % 3))
        scaled = (x - scales.mean[fold]) / scales.deviation[fold]
        alone, of_alone = train_heads(
            LinearHead(3), scaled, other, weights[fold : fold + 1], [settings[setting]], **how
        )
        np.testing.assert_allclose(of_alone[0, 0], logits[fold, setting], rtol=1e-4, atol=1e-5)
        for found, expected in zip(
            *(jax.tree.leaves(tree) for tree in (alone, params)), strict=True
        ):
            np.testing.assert_allclose(found[0, 0], expected[fold, setting], rtol=1e-5, atol=1e-6)


def test_held_out_videos_of_unseen_classes_are_never_right():
    """Where each class has one video, only a scale that knows all videos could help."""
    vectors = np.random.default_rng(0).normal(size=(10, 1, 1, 32)).astype(np.float32)
    features = Features(np.eye(10, dtype=np.float32), vectors)
    held_out = np.arange(10) % 5 == np.arange(5)[:, None]
    found = {x.name: x.metric for x in try_heads(features, held_out)}
    assert found == {'k-NN': 0, 'ridge': 0, 'linear': 0}


def test_attention_finds_what_the_mean_over_time_hides():
    """One token of one frame tells the class, and the order of the frames tells it too."""
    rng = np.random.default_rng(0)
    labels = np.arange(48) % 3
    tokens = rng.normal(0, 0.3, (48, 1, 3, 5, 16)).astype(np.float32)
    tokens[..., 1] += 4  # so that LayerNorm leaves the noise small
    tokens[np.arange(48), 0, labels, 2, 0] += 8  # the class is the frame
    features = Features(one_hot(labels), tokens.mean(axis=3), tokens)
    held_out = np.arange(48)[None] % 4 == np.arange(2)[:, None]
    spec = create_model('vivit_fe', **SIZES).spec
    found = {(x.name, x.pool): x for x in try_heads(features, held_out, spec)}
    assert found['ridge', 'mean'].metric < 0.6
    assert found['attentive', 'attention'].metric > 0.9
    head = found['attentive', 'attention'].train()
    scores = apply_head(head, features, spec)
    assert (scores.argmax(axis=1) == labels).mean() > 0.9


def test_probabilities_of_a_regression_are_as_certain_as_they_are_right():
    rng = np.random.default_rng(0)

    def draw(count):
        labels = rng.integers(0, 3, count)
        vectors = rng.normal(0, 1.0, (count, 1, 1, 8)).astype(np.float32)
        vectors[np.arange(count), 0, 0, labels] += 2
        return Features(one_hot(labels), vectors)

    train, test = draw(200), draw(500)
    held_out = np.arange(200) % 4 == np.arange(4)[:, None]
    ridge = next(x for x in try_heads(train, held_out) if x.name == 'ridge')
    scores = apply_head(ridge.train(), test, None)
    probabilities = np.asarray(jax.nn.softmax(scores))
    accuracy = (scores.argmax(axis=1) == test.targets.argmax(axis=1)).mean()
    assert accuracy > 0.7
    # The scores of a regression themselves, as logits, are at most 1 apart: 58 % for one of three.
    assert abs(probabilities.max(axis=1).mean() - accuracy) < 0.1


@pytest.fixture(scope='module')
def checkpoint(tmp_path_factory):
    backbone = backbone_of({**FRAMES, 'frame_pool': 'mean'})
    folder = tmp_path_factory.mktemp('weights') / 'vit'
    write_checkpoint(backbone.card, backbone.variables['params'], folder)
    return folder


def probe_of(checkpoint, output, folder, **keywords):
    files = {f'{split}_csv': str(folder / f'{split}.csv') for split in ('train', 'test')}
    given = {
        'files': {**files, 'val_csv': ''},
        'folder': '',
        'label_separator': '',
        'views': '1x1',
        'is_attentive': False,
        'num_frames': None,
        'crop_size': None,
        'batch_size': 4,
        'num_workers': 0,
        'seed': 0,
    }
    return Probe(checkpoint=str(checkpoint), output=output, **{**given, **keywords})


def test_probe_writes_a_model_that_predicts(checkpoint, tmp_path, synthetic_folder, capsys):
    probe_of(checkpoint, tmp_path / 'run', synthetic_folder).run()
    text = capsys.readouterr().out
    assert '| ridge | the mean over time |' in text and 'kept' in text and 'Test, 1x1' in text
    summary = json.loads((tmp_path / 'run/probe.json').read_text())
    # The trained model is as good as the table says.
    model, variables, spec, label_names = load_checkpoint(tmp_path / 'run')
    with (synthetic_folder / 'test.csv').open() as file:
        rows = list(csv.DictReader(file))
    right = []
    for row in rows:
        with open_video(synthetic_folder / row['video_path']) as video:
            logits = create_forward(model, spec)(variables, read_view(video, spec)).logits
        right.append(label_names[int(logits.argmax())] == row['label'])
    assert np.mean(right) == pytest.approx(summary['test']['acc1'])
    assert Predictor(tmp_path / 'run')(str(synthetic_folder / rows[0]['video_path'])).top(1)
    with pytest.raises(UserError, match='holds a model already'):
        probe_of(checkpoint, tmp_path / 'run', synthetic_folder).run()


def test_probe_of_many_labels_writes_a_model_of_sigmoids(
    checkpoint, tmp_path, synthetic_folder, capsys
):
    """Motion and shape are labels of one column; every fourth video has none."""
    for split in ('train', 'test'):
        with (synthetic_folder / f'{split}.csv').open() as file:
            rows = list(csv.DictReader(file))
        lines = ['video_path,label']
        for number, row in enumerate(rows):
            label = '' if number % 4 == 3 else f'{row["label"]};{row["sprite"]}'
            lines.append(f'{synthetic_folder / row["video_path"]},{label}')
        lines.append(f'{tmp_path}/{split}.mp4,cross')  # cannot be decoded
        (tmp_path / f'{split}.mp4').write_bytes(b'no video')
        (tmp_path / f'{split}.csv').write_text('\n'.join(lines))
    probe_of(checkpoint, tmp_path / 'run', tmp_path, label_separator=';').run()
    text = capsys.readouterr().out
    assert '| mAP, 5 folds |' in text and 'top-1' not in text and f'{tmp_path}/test.mp4' in text
    summary = json.loads((tmp_path / 'run/probe.json').read_text())
    best = max(x['held_out_map'] for x in summary['candidates'] if x['head'] != 'k-NN')
    assert summary['kept']['held_out_map'] == best
    # The test of the written model finds the same.
    config = runlocal(default_config())
    config.data.update(source='csv', label_separator=';', test_csv=str(tmp_path / 'test.csv'))
    config.data.update(num_workers=0, max_bad_fraction=0.5)
    config.eval.update(views='1x1', batch_size=4)
    _, metrics = evaluate_checkpoint(config, tmp_path / 'tested', tmp_path / 'run')
    assert metrics == pytest.approx(summary['test'], rel=1e-3)
    assert f'mAP {100 * metrics["map"]:.2f} %' in text
    assert Predictor(tmp_path / 'run').is_multi_label


def test_probe_chooses_by_a_validation_split(checkpoint, tmp_path, synthetic_folder, capsys):
    files = {f'{split}_csv': str(synthetic_folder / f'{split}.csv') for split in ('train', 'val')}
    files |= {'test_csv': ''}
    probe_of(checkpoint, tmp_path / 'run', synthetic_folder, files=files).run()
    assert 'validation split' in capsys.readouterr().out
    assert read_backbone(tmp_path / 'run').card.label_names
