import json
import shutil

import numpy as np
import pytest
from small_runs import LABELS, TWO_LABELS, brute_force_top, predict, write_noise

from vivit_jax.predictor import Predictor


@pytest.mark.slow
def test_command_shows_actions_and_heads(tmp_path, two_head_folder):
    video = write_noise(tmp_path / 'video.mp4', 14)
    prediction = Predictor(two_head_folder)(video)
    done = predict(two_head_folder, '--json', '--top_k=2', video)
    assert done.returncode == 0, done.stderr
    line = json.loads(done.stdout)
    actions = brute_force_top(prediction.probabilities)
    assert [entry['label'] for entry in line['top']] == [label for label, _ in actions[:2]]
    assert list(line['heads']) == ['verb', 'noun']
    assert {len(entries) for entries in line['heads'].values()} == {2}
    assert [window['heads'].keys() for window in line['windows']] == [{'verb', 'noun'}] * 2
    first = brute_force_top(prediction.windows[0].probabilities)[0]
    assert line['windows'][0]['top'][0]['label'] == first[0]
    assert line['windows'][0]['top'][0]['score'] == pytest.approx(first[1], rel=1e-4)

    title, action, verb, best_verb, noun, best_noun, *windows = predict(
        two_head_folder, '--top_k=1', video
    ).stdout.splitlines()
    assert title.endswith('video.mp4')
    assert action.endswith(actions[0][0])
    assert (verb, noun) == ('  verb', '  noun')
    assert best_verb.split()[-1] in TWO_LABELS['verb']
    assert best_noun.split()[-1] in TWO_LABELS['noun']
    assert len(windows) == 2


@pytest.mark.slow
def test_bad_videos_are_reported_and_the_others_go_on(tmp_path, run_folder):
    good = write_noise(tmp_path / 'good.mp4', 8)
    empty = tmp_path / 'empty.mp4'
    empty.touch()
    cut = tmp_path / 'cut.mp4'
    cut.write_bytes(good.read_bytes()[:700])
    last = shutil.copy(good, tmp_path / 'last one.mp4')
    features = tmp_path / 'features.npz'
    done = predict(
        run_folder, '--json', '--top_k=2', f'--features={features}', good, empty, cut, last
    )
    assert done.returncode == 1
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert [line['video'] for line in lines] == [str(p) for p in (good, empty, cut, last)]
    assert 'empty' in lines[1]['error'] and str(empty) in lines[1]['error']
    assert str(cut) in lines[2]['error']
    assert lines[0]['top'] == lines[3]['top'] and len(lines[0]['top']) == 2
    assert len(lines[0]['windows']) == 2
    assert lines[0].keys() == {
        'video',
        'top',
        'windows',
    }  # with a single head, the output does not mention heads
    saved = np.load(features)
    assert saved['videos'].tolist() == [str(good), str(last)]
    assert saved['features'].shape == (2, 8)


@pytest.mark.slow
def test_readable_output_names_labels_and_times(tmp_path, run_folder):
    done = predict(run_folder, '--top_k=1', write_noise(tmp_path / 'long.mp4', 20))
    assert done.returncode == 0, done.stderr
    title, best, *windows = done.stdout.splitlines()
    assert title.endswith('long.mp4')
    assert best.split()[-1] in LABELS
    assert [line.split()[0] for line in windows] == ['0.00', '0.70', '1.30']


@pytest.mark.parametrize('arguments', [['video.mp4'], []], ids=['no checkpoint', 'no video'])
def test_wrong_use_is_one_line(tmp_path, run_folder, arguments):
    folder = run_folder if not arguments else tmp_path / 'nothing'
    done = predict(folder, *arguments)
    assert done.returncode == 2
    assert done.stderr.startswith('Error: ') and len(done.stderr.splitlines()) == 1
