import csv
import http.server
import json
import shutil
import signal
import subprocess
import sys
import threading

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


@pytest.mark.slow
def test_limits_of_a_video_are_flags(tmp_path, run_folder):
    good, long = write_noise(tmp_path / 'good.mp4', 8), write_noise(tmp_path / 'long.mp4', 20)
    done = predict(run_folder, '--max_frames=10', good, long)
    assert done.returncode == 1
    assert str(good) in done.stdout and str(long) not in done.stdout
    assert 'but data.limits.max_frames allows 10: raise it' in done.stderr


@pytest.mark.parametrize('arguments', [['video.mp4'], []], ids=['no checkpoint', 'no video'])
def test_wrong_use_is_one_line(tmp_path, run_folder, arguments):
    folder = run_folder if not arguments else tmp_path / 'nothing'
    done = predict(folder, *arguments)
    assert done.returncode == 2
    assert done.stderr.startswith('Error: ') and len(done.stderr.splitlines()) == 1


@pytest.mark.slow
def test_folder_list_and_csv(tmp_path, run_folder):
    (tmp_path / 'videos' / 'more').mkdir(parents=True)
    one = write_noise(tmp_path / 'videos' / 'one.mp4', 7)
    two = write_noise(tmp_path / 'videos' / 'more' / 'two.mp4', 20)
    (tmp_path / 'list.csv').write_text('label,video_path\nx,videos/one.mp4\ny,missing.mp4\n')
    output, features = tmp_path / 'out.csv', tmp_path / 'features.npz'
    done = predict(
        run_folder,
        f'--input_list={tmp_path / "list.csv"}',
        f'--output={output}',
        f'--features={features}',
        '--window_sec=1',
        tmp_path / 'videos',
        'http://localhost/a.mp4',
        tmp_path / 'missing folder',
    )
    assert done.returncode == 1 and done.stdout == ''
    assert 'is an address, which only --stream=http://localhost/a.mp4 opens' in done.stderr
    rows = list(csv.DictReader(output.open()))
    missing = str(tmp_path / 'missing.mp4'), str(tmp_path / 'missing folder')
    videos = [str(two), str(one), missing[1], str(one), missing[0]]
    assert [row['video'] for row in rows if not row['start_sec']] == videos
    assert [row['video'] for row in rows if row['error']] == [missing[1], missing[0]]
    predictor = Predictor(run_folder)
    prediction = predictor(two, window_sec=1)
    assert rows[0]['label_1'] == prediction.top(1)[0][0]
    scores = [float(rows[0][f'score_{rank}']) for rank in (1, 2, 3)]  # as many as there are classes
    assert scores == [score for _, score in prediction.top(5)]
    assert 'score_4' not in rows[0]
    windows = [row for row in rows if row['start_sec']]
    assert [(row['start_sec'], row['end_sec']) for row in windows] == [
        ('0.0', '1.0'),
        ('1.0', '2.0'),
    ]
    assert windows[1]['label_1'] == prediction.top(1, window=1)[0][0]
    saved = np.load(features)
    assert saved['videos'].tolist() == [str(two), str(one), str(one)]
    np.testing.assert_allclose(saved['features'][0], prediction.features)


@pytest.mark.slow
def test_stream_prints_the_windows_of_the_file(tmp_path, run_folder):
    video = write_noise(tmp_path / 'a.mp4', 25)
    windows = Predictor(run_folder)(video, window_sec=1).windows
    done = predict(run_folder, f'--stream={video}', '--window_sec=1', '--json', '--top_k=2')
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert [line['start_sec'] for line in lines] == [
        round(window.start_sec, 6) for window in windows
    ]
    for line, window in zip(lines, windows, strict=True):
        scores = [entry['score'] for entry in line['top']]
        assert scores == sorted(map(float, window.probabilities))[:0:-1]
    text = predict(run_folder, f'--stream={video}', '--window_sec=1').stdout.splitlines()
    assert [line.split()[0] for line in text] == ['0.00', '1.00', '1.50']
    done = predict(run_folder, '--stream=missing.mp4', '--window_sec=1')
    assert (done.returncode, done.stdout) == (1, '')
    assert 'missing.mp4: no such file' in done.stderr


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (['--stream=a.mp4'], '--stream needs --window_sec'),
        (['--stream=a.mp4', '--window_sec=1', 'b.mp4'], '--stream is alone'),
        (['--output=a.txt', 'b.mp4'], '--output=a.txt must end in .csv'),
        (['--output=a.csv', '--json', 'b.mp4'], 'be without --json'),
        (['--output=missing/a.csv', 'b.mp4'], 'no folder missing that can be written'),
        (['--features=missing/a.npz', 'b.mp4'], 'no folder missing that can be written'),
        (['--window_sec=0', 'b.mp4'], 'window_sec=0.0 must be a positive number'),
        (['--stride_sec=1', 'b.mp4'], 'stride_sec=1.0 needs window_sec'),
        (['--input_list=missing.txt'], 'missing.txt: No such file'),
    ],
)
def test_wrong_flags_are_one_line(run_folder, arguments, message):
    done = predict(run_folder, *arguments)
    assert done.returncode == 2
    *log, line = done.stderr.splitlines()
    assert line.startswith('Error: ') and message in line and len(log) <= 1


@pytest.mark.slow
def test_interrupted_stream_ends_with_130(tmp_path, run_folder):
    """A server sends the start of a video at once, and then about a frame a second."""
    video = write_noise(tmp_path / 'a.mkv', 60).read_bytes()
    halted = threading.Event()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.end_headers()
            half = len(video) // 2
            self.wfile.write(video[:half])
            for start in range(half, len(video), half // 30):
                if halted.wait(1):
                    break
                self.wfile.write(video[start : start + half // 30])

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(('127.0.0.1', 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        process = subprocess.Popen(
            [
                *(sys.executable, '-m', 'vivit_jax.predict', f'--checkpoint={run_folder}'),
                *('--window_sec=0.5', f'--stream=http://127.0.0.1:{server.server_port}/a.mkv'),
            ],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        first = process.stdout.readline()
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
        halted.set()
        server.shutdown()
    assert first.split()[:3] == ['0.00', '-', '0.50']
    assert process.returncode == 130
    assert 'Traceback' not in errors and errors.splitlines()[-1] == 'Stopped'
