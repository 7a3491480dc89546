import json

import numpy as np
import pytest

from vivit_jax.annotations.dataset import LabeledVideo
from vivit_jax.batches.sources import VideoFiles
from vivit_jax.errors import UserError
from vivit_jax.evaluation.results import (
    Results,
    check_results_folder,
    describe_results,
    find_saved_metrics,
    hash_videos,
    save_results,
)

LOGITS = np.log(np.float32([[[0.7, 0.2, 0.1]], [[0.3, 0.6, 0.1]]]))  # one view
ONE = Results(LOGITS, np.array([0, 0]), {})
TWO = Results(
    {'noun': LOGITS[..., :2], 'verb': LOGITS},  # sorted, as JAX returns it
    {'verb': np.array([0, 0]), 'noun': np.array([0, 1])},
    {1: 'b.mp4: damaged'},
)


def test_one_head_is_described_in_a_line():
    text = describe_results(ONE, 'val', '1x1', ONE.metrics('logits'))
    assert text == 'val, 1x1, 2 videos: top-1 50.00 %, mean class 50.00 %, loss 0.7803'


@pytest.mark.parametrize(('num_classes', 'has_top5'), [(5, False), (6, True)])
def test_there_is_no_top_5_of_five_classes(num_classes, has_top5):
    results = Results(np.zeros((2, 1, num_classes), np.float32), np.array([0, 1]), {})
    assert ('acc5' in results.metrics('logits')) == has_top5


def test_several_heads_have_a_line_each_after_that_of_the_action():
    metrics = TWO.metrics('logits')
    action, verb, noun, failures = describe_results(TWO, 'test', '1x1', metrics).splitlines()
    # The second video failed; of the first verb and noun are right.
    assert action.startswith('test, 1x1, 2 videos: action top-1 50.00 %, top-5 50.00 %, loss ')
    assert verb.startswith('  verb top-1 50.00 %') and 'mean class 50.00 %' in verb
    assert verb.endswith(f'loss {-np.log(0.7):.4f}')
    assert noun.startswith('  noun top-1 50.00 %')
    assert 'b.mp4: damaged' in failures


@pytest.mark.parametrize(
    ('results', 'label_names', 'arrays'),
    [
        (ONE, ('a', 'b', 'c'), {'logits': LOGITS, 'labels': [0, 0], 'label_names': [*'abc']}),
        (
            TWO,
            {'verb': ('a', 'b', 'c'), 'noun': ('x', 'y')},
            {
                'verb/logits': LOGITS,
                'noun/logits': LOGITS[..., :2],
                'verb/labels': [0, 0],
                'noun/labels': [0, 1],
                'verb/label_names': [*'abc'],
                'noun/label_names': [*'xy'],
            },
        ),
    ],
    ids=['one head', 'two heads'],
)
def test_saved_files_hold_everything(tmp_path, results, label_names, arrays):
    source = VideoFiles([LabeledVideo('a.mp4', 0), LabeledVideo('b.mp4', 0)])
    summary = {'split': 'test', 'views': '1x1', 'step': 3, 'test/acc1@1x1': 0.5}
    folder = tmp_path / 'run' / 'evaluation'
    check_results_folder(folder, is_new_run=True)
    path = save_results(folder, 'step7', results, source, label_names, summary)
    assert sorted(folder.iterdir()) == [path.with_suffix('.json'), path]
    saved = np.load(path)
    assert set(saved) == {*arrays, 'videos', 'failed'}
    for name, expected in arrays.items():
        np.testing.assert_array_equal(saved[name], expected)
    assert saved['videos'].tolist() == ['a.mp4', 'b.mp4']
    assert saved['failed'].tolist() == list(results.failures)
    assert json.loads(path.with_suffix('.json').read_text())['test/acc1@1x1'] == 0.5


def test_a_folder_that_cannot_be_written_is_found_before_and_after_the_test(tmp_path):
    (tmp_path / 'run').touch()
    with pytest.raises(UserError, match=r'run/evaluation cannot be written \(Not a directory\)'):
        check_results_folder(tmp_path / 'run' / 'evaluation', is_new_run=True)
    with pytest.raises(UserError, match=r'deleted/evaluation cannot be written \(No such file'):
        check_results_folder(tmp_path / 'deleted' / 'evaluation')
    source = VideoFiles([LabeledVideo('a.mp4', 0), LabeledVideo('b.mp4', 0)])
    summary = {'split': 'test', 'views': '1x1'}
    with pytest.raises(UserError, match=r'gone/test_1x1_last.npz cannot be written \(No such file'):
        save_results(tmp_path / 'gone', 'last', ONE, source, ('a', 'b', 'c'), summary)
    assert [path.name for path in tmp_path.iterdir()] == ['run']


def test_loss_of_equal_probabilities_is_warned_of():
    constant = Results(np.zeros((2, 1, 4), np.float32), np.array([0, 3]), {})
    text = describe_results(constant, 'val', '1x1', constant.metrics('logits'))
    assert 'Warning: the loss is ln(4)' in text.splitlines()[-1]
    assert 'Warning' not in describe_results(ONE, 'val', '1x1', ONE.metrics('logits'))


def test_the_head_that_answers_all_alike_is_named():
    logits = {'verb': LOGITS, 'noun': np.full((2, 1, 5), 3.0, np.float32)}
    results = Results(logits, {'verb': np.array([0, 0]), 'noun': np.array([0, 1])}, {})
    text = describe_results(results, 'val', '1x1', results.metrics('logits'))
    assert [line for line in text.splitlines() if 'Warning' in line] == [
        line for line in text.splitlines() if 'of noun is ln(5)' in line
    ]
    assert 'of noun is ln(5)' in text


def test_saved_metrics_are_found_of_the_same_test_alone(tmp_path):
    source = VideoFiles([LabeledVideo('a.mp4', 0), LabeledVideo('b.mp4', 0)])
    test = {'split': 'test', 'views': '1x1', 'step': 3, 'sha': hash_videos(source)}
    metrics = {'acc1': 0.5, 'verb/acc1': 0.75}
    summary = {**test, **{f'test/{name}@1x1': x for name, x in metrics.items()}}
    assert find_saved_metrics(tmp_path, 'step3', test) is None
    path = save_results(tmp_path, 'step3', ONE, source, ('a', 'b', 'c'), summary)
    assert find_saved_metrics(tmp_path, 'step3', test) == metrics
    others = [LabeledVideo('a.mp4', 0), LabeledVideo('b.mp4', 1)]
    for change in ({'views': '2x1'}, {'step': 4}, {'sha': hash_videos(VideoFiles(others))}):
        assert find_saved_metrics(tmp_path, 'step3', test | change) is None
    assert find_saved_metrics(tmp_path, 'step4', test) is None
    # Videos that failed may have been mended since.
    save_results(tmp_path, 'failed', TWO, source, {'verb': ('a',), 'noun': ('x',)}, summary)
    assert find_saved_metrics(tmp_path, 'failed', test) is None
    path.with_suffix('.json').write_text('{"split": ')
    assert find_saved_metrics(tmp_path, 'step3', test) is None
