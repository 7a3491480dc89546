"""Training, testing and predicting with any number of labels for each video."""

import csv
import dataclasses
import json
import logging

import numpy as np
import pytest
from small_runs import predict, save_run, write_noise

from vivit_jax.config.presets import runlocal, small
from vivit_jax.errors import UserError
from vivit_jax.evaluation.evaluate_checkpoint import evaluate_checkpoint
from vivit_jax.evaluation.metrics import average_precisions
from vivit_jax.predictor import Predictor
from vivit_jax.train import loop, programs
from vivit_jax.train.experiment import Experiment
from vivit_jax.train.loop import Trainer
from vivit_jax.video.synthetic import MOTIONS, SHAPES
from vivit_jax.weights.load import read_weights
from vivit_jax.weights.streams import fuse_weights

NAMES = tuple('abcdef')


@pytest.fixture(scope='module')
def config(synthetic_folder, tmp_path_factory):
    """Motion and shape are labels of one column; every fourth video has none."""
    folder = tmp_path_factory.mktemp('lists')
    config = runlocal(small('vivit_fe'))
    for split in ('train', 'val', 'test'):
        with (synthetic_folder / f'{split}.csv').open(newline='') as file:
            rows = [
                (f'{synthetic_folder}/{row["video_path"]}', f'{row["label"]};{row["sprite"]}')
                for row in csv.DictReader(file)
            ]
        lines = [f'{path},{"" if i % 4 == 3 else label}\n' for i, (path, label) in enumerate(rows)]
        (folder / f'{split}.csv').write_text('video_path,label\n' + ''.join(lines))
        config.data[f'{split}_csv'] = str(folder / f'{split}.csv')
    (folder / 'classes.txt').write_text('\n'.join([*MOTIONS, *SHAPES]))
    config.data.update(source='csv', label_separator=';', label_map=str(folder / 'classes.txt'))
    config.data.update(num_workers=0, balance=0.5)
    config.preprocessing.update(short_side=24, crop_size=16)
    config.augment.mixup_alpha = 0.5
    config.train.update(num_steps=4, batch_size=4, checkpoint_every_steps=2, keep_best=2)
    config.train.update(label_smoothing=0.1, focal_gamma=2.0, class_weight_beta=0.9)
    config.eval.update(every_steps=2, batch_size=4, views='2x3', merge='probabilities')
    return config


@pytest.fixture(scope='module')
def run(config, tmp_path_factory):
    folder = tmp_path_factory.mktemp('run') / 'run'
    logger = logging.getLogger()
    level = logger.level
    logger.setLevel(logging.INFO)
    assert Trainer(config, folder).run() == 0
    logger.setLevel(level)
    return folder


def test_mean_average_precision_chooses_the_best_checkpoint(run):
    lines = [json.loads(line) for line in (run / 'metrics.jsonl').read_text().splitlines()]
    assert all(0 < line['train/loss'] < 2 for line in lines)
    found = {line['step']: line['val/map'] for line in lines if 'val/map' in line}
    assert found.keys() == {2, 4} and not any('acc1' in key for line in lines for key in line)
    best = max(found, key=lambda step: (found[step], step))
    assert read_weights(run).step == best
    text = (run / 'log.txt').read_text()
    assert f'mAP: val {100 * found[best]:.2f} % of 1x1 views' in text


def test_a_test_saves_the_precision_of_every_class(config, run):
    split, metrics = evaluate_checkpoint(config, run, run / 'last')
    [path] = (run / 'evaluation').glob('test_2x3_step4.npz')
    saved, summary = np.load(path), json.loads(path.with_suffix('.json').read_text())
    assert (split, summary['test/map@2x3']) == ('test', metrics['map'])
    assert saved['labels'].sum(1).tolist() == [2, 2, 2, 0] * 2
    scores = (1 / (1 + np.exp(-np.float64(saved['logits'])))).mean(1)
    expected = average_precisions(scores, saved['labels'], np.zeros(8, bool))
    known = {
        name: x
        for name, x in zip(saved['label_names'].tolist(), expected.tolist(), strict=True)
        if not np.isnan(x)
    }
    found = {name: x for name, x in summary['average_precision'].items() if x is not None}
    assert found == pytest.approx(known) and len(found) < len(summary['average_precision'])
    assert metrics['map'] == pytest.approx(np.mean(list(known.values())))


def test_keys_of_the_config_reach_the_loader_and_the_loss(config, tmp_path, monkeypatch):
    seen = {}

    def look(*args, **options):
        seen.update(options)
        raise InterruptedError

    monkeypatch.setattr(loop, 'train_batches', look)
    monkeypatch.setattr(programs, 'create_train_step', look)
    with pytest.raises(InterruptedError):
        Trainer(config, tmp_path / 'run').run()
    with pytest.raises(InterruptedError):
        Experiment(config).programs.train_step()
    assert (seen['balance'], seen['focal_gamma']) == (0.5, 2.0)
    with open(config.data.train_csv, newline='') as file:
        labels = [x for row in csv.DictReader(file) for x in row['label'].split(';') if x]
    counts = np.array([labels.count(name) for name in (*MOTIONS, *SHAPES)])
    weights = 0.1 / (1 - 0.9 ** np.maximum(counts, 1))
    weights *= len(labels) / (weights * counts).sum()
    np.testing.assert_allclose(seen['class_weights'], weights, rtol=1e-5)


@pytest.mark.parametrize('metric', ['map', 'loss', 'acc1'])
def test_an_early_stop_compares_what_validations_have(config, metric):
    other = config.copy_and_resolve_references()
    other.train.update(early_stop_validations=1, early_stop_metric=metric)
    if metric == 'acc1':
        with pytest.raises(UserError, match=r"early_stop_metric='acc1' must be 'map' or 'loss'"):
            Experiment(other)
    else:
        Experiment(other)


def test_one_class_is_enough(config, tmp_path):
    other = config.copy_and_resolve_references()
    other.data.update(label_map='', val_csv='', test_csv='', train_csv=str(tmp_path / 'list.csv'))
    with open(config.data.train_csv, newline='') as file:
        rows = [(row['video_path'], 'cross' in row['label']) for row in csv.DictReader(file)]
    lines = [f'{path},{"cross" if is_cross else ""}\n' for path, is_cross in rows]
    (tmp_path / 'list.csv').write_text('video_path,label\n' + ''.join(lines))
    assert Experiment(other).dataset.label_names == ('cross',)


def test_checkpoint_and_lists_must_agree(config, run, tmp_path):
    other = config.copy_and_resolve_references()
    other.data.label_separator = ''
    with pytest.raises(UserError, match='trained on videos with any number of labels'):
        evaluate_checkpoint(other, run, run / 'last')
    single = save_run(tmp_path / 'single')
    with pytest.raises(UserError, match='chooses one class for each video'):
        evaluate_checkpoint(config, tmp_path, single)


def test_fusion_must_average_logits(config):
    other = config.copy_and_resolve_references()
    other.data.update(source='synthetic', label_map='')
    other.data.synthetic.update(num_train=4, num_val=2, num_test=2, num_frames=10)
    other.model.modality = 'rgbd'
    with pytest.raises(UserError, match=r'set model\.fusion=logit_mean'):
        Experiment(other)
    other.model.fusion = 'logit_mean'
    Experiment(other)


def test_joined_weights_average_logits(run):
    rgb = read_weights(run)
    depth = dataclasses.replace(
        rgb, card=dataclasses.replace(rgb.card, model={**rgb.card.model, 'modality': 'depth'})
    )
    card = fuse_weights(rgb, depth).card
    assert card.is_multi_label and card.model['fusion'] == 'logit_mean'
    single = dataclasses.replace(depth, card=dataclasses.replace(depth.card, is_multi_label=False))
    with pytest.raises(UserError, match='is_multi_label: True of RGB, False of depth'):
        fuse_weights(rgb, single)


@pytest.fixture(scope='module')
def predicted(tmp_path_factory):
    folder = tmp_path_factory.mktemp('predicted')
    run = save_run(
        folder / 'run', label_names=NAMES, is_multi_label=True, num_classes=6, hidden_size=24
    )
    return run, write_noise(folder / 'a.mp4', 20)


def test_python_gives_sigmoids_and_all_labels_above_one_half(predicted):
    run, video = predicted
    found = Predictor(run)(video)
    assert found.is_multi_label
    logits = np.log(found.windows[0].probabilities / (1 - found.windows[0].probabilities))
    expected = np.exp(logits) / np.exp(logits).sum()
    softmax = Predictor(run)
    softmax.is_multi_label = False
    np.testing.assert_allclose(softmax(video).windows[0].probabilities, expected, rtol=1e-4)
    for window, scores in [(None, found.probabilities), (0, found.windows[0].probabilities)]:
        wanted = {x: p for x, p in zip(NAMES, scores, strict=True) if p > 0.5}
        labels = found.labels(window)
        assert dict(labels) == pytest.approx(wanted)
        assert [p for _, p in labels] == sorted(wanted.values(), reverse=True)
    assert softmax(video).labels() == softmax(video).top(1)


@pytest.mark.slow
def test_the_command_prints_all_labels(predicted, tmp_path):
    run, video = predicted
    found = Predictor(run)(video)
    labels = [label for label, _ in found.labels()]
    assert 1 < len(labels) < 6  # so that the others are told from them
    text = predict(run, video).stdout.splitlines()
    title = '  labels above 50 %, each with a probability of its own: '
    assert text[1] == title + ', '.join(labels)
    assert [line.split()[-1] for line in text[2:5]] == [label for label, _ in found.top(3)]
    entry = json.loads(predict(run, '--json', video).stdout)
    assert entry['labels'] == labels
    assert [x['score'] for x in entry['top']] == pytest.approx([p for _, p in found.top(5)])
    assert entry['windows'][0]['labels'] == [label for label, _ in found.labels(0)]
    output = tmp_path / 'out.csv'
    assert predict(run, f'--output={output}', video).returncode == 0
    rows = list(csv.DictReader(output.open()))
    assert rows[0]['labels'] == ';'.join(labels) and rows[0]['label_1'] == found.top(1)[0][0]
    assert rows[1]['labels'] == ';'.join(label for label, _ in found.labels(0))
