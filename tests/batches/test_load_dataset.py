import csv
import pickle
import shlex
from pathlib import Path

import pytest

from vivit_jax.annotations.dataset import LabeledVideo
from vivit_jax.annotations.validation_split import drawn_lists
from vivit_jax.batches.load_dataset import load_dataset
from vivit_jax.batches.sources import VideoFiles
from vivit_jax.config.schema import default_config
from vivit_jax.errors import UserError
from vivit_jax.video.frame_reader import VideoError
from vivit_jax.video.synthetic import MOTIONS, SHAPES


@pytest.fixture
def data(cache_dir):
    """The section `data` of the tiny embedded videos of `synthetic_folder`."""
    data = default_config().data
    data.update(source='synthetic', cache_dir=str(cache_dir))
    sizes = {'num_train': 24, 'num_val': 8, 'num_test': 8}
    data.synthetic.update(num_frames=10, height=32, width=40, **sizes)
    return data


def _csv(synthetic_folder, split):
    with (synthetic_folder / f'{split}.csv').open(newline='') as file:
        return list(csv.DictReader(file))


def test_embedded_videos_have_their_motion_as_label(data, synthetic_folder):
    videos = load_dataset(data)
    assert videos.label_names == MOTIONS
    for split, source in videos.splits.items():
        rows = _csv(synthetic_folder, split)
        assert [MOTIONS[source.label(i)] for i in range(len(source))] == [r['label'] for r in rows]


@pytest.mark.parametrize(
    ('heads', 'columns'),
    [
        (('verb', 'noun'), ('label', 'sprite')),
        (('sprite', 'label'), ('sprite', 'label')),
        (('label', 'noun'), ('label', 'sprite')),
    ],
)
def test_embedded_columns_serve_any_two_heads(data, synthetic_folder, heads, columns):
    data.label_columns = heads
    videos = load_dataset(data)
    classes = {'label': MOTIONS, 'sprite': tuple(sorted(SHAPES))}
    expected = dict(zip(heads, (classes[column] for column in columns), strict=True))
    assert list(videos.label_names.items()) == list(expected.items())
    source = videos.splits['val']
    for index, row in enumerate(_csv(synthetic_folder, 'val')):
        label = source.label(index)
        found = [videos.label_names[head][label[head]] for head in heads]
        assert found == [row[column] for column in columns]


@pytest.mark.parametrize(
    ('head', 'classes'), [('action', MOTIONS), ('sprite', tuple(sorted(SHAPES)))]
)
def test_a_single_head_takes_the_column_of_its_name_or_the_first(data, head, classes):
    data.label_columns = (head,)
    assert load_dataset(data).label_names == classes


def test_embedded_videos_have_no_third_head(data):
    data.label_columns = ('verb', 'noun', 'tool')
    with pytest.raises(UserError, match=r"'tool'\): the embedded videos have labels for 2 heads"):
        load_dataset(data)


@pytest.mark.parametrize('heads', [(), ('verb', 'verb'), ('verb/noun',), ('',), (3,)])
def test_unusable_heads_are_an_error(data, heads):
    data.label_columns = heads
    with pytest.raises(UserError, match=r'data\.label_columns=.* must be different columns'):
        load_dataset(data)


def test_label_maps_of_heads_share_a_pattern(data, tmp_path):
    data.label_columns = ('verb', 'noun')
    (tmp_path / 'verb names.txt').write_text('\n'.join(reversed(MOTIONS)))
    (tmp_path / 'noun names.txt').write_text('\n'.join(SHAPES))
    data.label_map = str(tmp_path / '{head} names.txt')
    assert load_dataset(data).label_names == {'verb': MOTIONS[::-1], 'noun': SHAPES}
    data.label_map = str(tmp_path / 'verb names.txt')
    with pytest.raises(UserError, match=r'must contain \{head\}, which stands for verb, noun'):
        load_dataset(data)
    data.label_columns = ('verb',)
    assert load_dataset(data).label_names == MOTIONS[::-1]


def _ucf101(root, synthetic_folder):
    """The embedded videos under names of UCF101, in its layout."""
    lines = {'train': [], 'test': []}
    (root / 'classInd.txt').write_text('1 Zumba\r\n2 Archery\r\n')
    for number, row in enumerate(_csv(synthetic_folder, 'train')[:6]):
        name = ('Zumba', 'Archery')[number % 2]
        (root / name).mkdir(exist_ok=True)
        path = f'{name}/v_{name}_g{number:02d}_c01.avi'
        (root / path).write_bytes((synthetic_folder / row['video_path']).read_bytes())
        lines['train' if number < 4 else 'test'].append(path)
    (root / 'trainlist02.txt').write_text('\r\n'.join(f'{x} 1' for x in lines['train']))
    (root / 'testlist02.txt').write_text('\r\n'.join(lines['test']))


def test_dataset_is_read_in_its_own_layout(tmp_path, synthetic_folder):
    _ucf101(tmp_path, synthetic_folder)
    data = default_config().data
    data.update(source='ucf101', root=str(tmp_path), protocol='2')
    videos = load_dataset(data)
    assert videos.label_names == ('Zumba', 'Archery')  # the order of classInd.txt
    assert [videos.splits['train'].label(i) for i in range(4)] == [0, 1, 0, 1]
    assert videos.expected == {'train': 'official lists: 9,586', 'test': 'official lists: 3,734'}
    with videos.splits['test'].open(0) as video:
        assert video.read([0])['rgb'].shape == (1, 32, 40, 3)
    assert list(load_dataset(data, splits=('val', 'test')).splits) == ['test']


def test_limits_reach_every_video(data):
    data.limits.max_frames = 9
    source = load_dataset(data).splits['test']
    with pytest.raises(VideoError, match=r'it has 10 frames, .* data\.limits\.max_frames allows 9'):
        pickle.loads(pickle.dumps(source)).open(3)


def test_frame_folder_is_opened_at_its_part(tmp_path):
    pillow = pytest.importorskip('PIL.Image')
    for number in range(1, 7):
        pillow.new('RGB', (8, 8), (40 * number,) * 3).save(tmp_path / f'img_{number:05d}.png')
    source = VideoFiles([LabeledVideo(str(tmp_path), 0, start_frame=2, num_frames=3)])
    assert source.name(0) == f'{tmp_path} frames 2 … 4'
    with source.open(0) as video:
        assert video.read(range(3))['rgb'][:, 0, 0, 0].tolist() == [120, 160, 200]


@pytest.mark.parametrize(
    ('settings', 'message'),
    [
        ({'source': 'kinetics'}, "no data.source='kinetics'; known: csv, .*, kinetics400, "),
        (
            {'source': 'epic_kitchens100', 'root': '.'},
            'labels for verb and noun, not for label: give --config.data.label_columns=verb',
        ),
        ({'source': 'ssv2'}, 'set data.root to the folder of the videos of ssv2'),
        ({'source': 'ucf101', 'root': 'lost'}, 'ucf101: there is no folder .*/lost'),
        ({'source': 'ucf101', 'root': '.', 'protocol': '4'}, "no protocol '4'; known: 1, 2, 3"),
        ({'source': 'csv'}, 'no videos: set data.train_csv or data.val_csv or data.test_csv'),
        ({'source': 'csv', 'root': 'lost'}, 'there is no folder .*/lost'),
        ({'train_csv': '.'}, r'data.train_csv=\. is a folder: .* give --config.data.root=\. and'),
        ({'val_csv': 'a.csv', 'separator': ';;'}, r"data.separator=';;' must be one character"),
        ({'root': '.', 'val_fraction': 1.0}, r'data.val_fraction=1.0 must be less than 1'),
        ({'root': '.', 'val_fraction': -0.1}, r'data.val_fraction=-0.1 must be less than 1'),
        ({'source': 'records', 'val_fraction': 0.1}, 'give it to vivit_jax.prepare records'),
        ({'source': 'records', 'root': '.'}, r"data.root='.' holds no train.csv or val.csv"),
        ({'source': 'tfrecords', 'train_csv': 'x@2'}, "'tfrecords' needs data.label_map"),
    ],
)
def test_unusable_source_says_what_to_set(tmp_path, monkeypatch, settings, message):
    monkeypatch.chdir(tmp_path)
    data = default_config().data
    data.update(settings)
    with pytest.raises(UserError, match=message):
        load_dataset(data)


def test_impossible_embedded_videos_are_the_users_mistake(data):
    data.synthetic.difficulty = 7
    with pytest.raises(UserError, match=r'data\.synthetic\.difficulty=7 must be 0, 1, 2 or 3'):
        load_dataset(data)


@pytest.fixture
def class_folders(tmp_path):
    """The section `data` of a folder with ten empty videos for each of three classes."""
    for label in ('jump', 'run', 'sit'):
        (tmp_path / label).mkdir()
        for number in range(10):
            (tmp_path / label / f'{number}.mp4').touch()
    data = default_config().data
    data.root = str(tmp_path)
    return data


def _paths(dataset, split):
    return [video.video_path for video in dataset.splits[split].videos]


@pytest.mark.parametrize(('fraction', 'num_val'), [(None, 6), (0.1, 3), (0.5, 15)])
def test_folder_for_each_class_needs_no_csv(class_folders, fraction, num_val):
    class_folders.val_fraction = fraction
    dataset = load_dataset(class_folders)
    assert dataset.label_names == ('jump', 'run', 'sit')
    assert dataset.val_is_drawn
    assert len(_paths(dataset, 'train')) == 30 - num_val
    assert len({*_paths(dataset, 'train'), *_paths(dataset, 'val')}) == 30
    for split in ('train', 'val'):
        names = [dataset.label_names[video.label] for video in dataset.splits[split].videos]
        assert names == [Path(path).parent.name for path in _paths(dataset, split)]


def test_folders_whose_names_differ_in_case_only_are_no_two_classes(class_folders, tmp_path):
    (tmp_path / 'Sit').mkdir()
    (tmp_path / 'Sit' / '1.mp4').touch()
    with pytest.raises(UserError, match=r"sit/0\.mp4: label 'sit' and 'Sit' differ in case"):
        load_dataset(class_folders)


def test_validation_reads_the_videos_that_training_left_out(class_folders):
    trained = load_dataset(class_folders, seed=5)
    tested = load_dataset(
        class_folders, seed=5, label_names=trained.label_names, splits=('val', 'test')
    )
    assert list(tested.splits) == ['val']
    assert _paths(tested, 'val') == _paths(trained, 'val')


def test_no_split_is_drawn_from_a_folder_on_request(class_folders):
    class_folders.val_fraction = 0
    dataset = load_dataset(class_folders)
    assert list(dataset.splits) == ['train'] and not dataset.val_is_drawn
    with pytest.raises(UserError, match='has the split train, but not val or test'):
        load_dataset(class_folders, splits=('val', 'test'))


def test_split_of_a_csv_is_drawn_by_its_groups(class_folders, tmp_path):
    lines = [f'{x}/{i}.mp4;{x};person {i}\n' for x in ('jump', 'run', 'sit') for i in range(10)]
    (tmp_path / 'all.csv').write_text('video_path;label;subject\n' + ''.join(lines))
    class_folders.update(train_csv=str(tmp_path / 'all.csv'), separator=';', val_fraction=0.2)
    dataset = load_dataset(class_folders)
    people = {
        split: {Path(path).stem for path in _paths(dataset, split)} for split in dataset.splits
    }
    assert len(people['val']) == 2 and len(people['train']) == 8
    class_folders.val_csv = class_folders.train_csv
    with pytest.raises(UserError, match=r'data.val_fraction=0.2 draws a validation split, but'):
        load_dataset(class_folders, splits=('val', 'test'))


def test_lists_that_a_run_saves_are_lists_to_train_with(class_folders, tmp_path):
    drawn = load_dataset(class_folders)
    for name, text in drawn_lists(drawn, ('label',)).items():
        (tmp_path / name).write_text(text)
    class_folders.update({f'{x}_csv': f'{tmp_path}/{x}_videos.csv' for x in ('train', 'val')})
    again = load_dataset(class_folders)
    assert again.label_names == drawn.label_names
    for split in ('train', 'val'):
        assert again.splits[split].videos == drawn.splits[split].videos


@pytest.mark.parametrize(('separator', 'names'), [(';', [';']), ('\t', ['tab', r'\t', '\t'])])
def test_separator_is_named_on_the_command_line(class_folders, tmp_path, separator, names):
    (tmp_path / 'a.csv').write_text('video_path,label\njump/1.mp4,x\n'.replace(',', separator))
    class_folders.train_csv = str(tmp_path / 'a.csv')
    with pytest.raises(UserError, match=r'line 1: .* give --config\.data\.separator=') as caught:
        load_dataset(class_folders)
    advice = shlex.split(str(caught.value).partition('give ')[2])[0].partition('=')[2]
    for name in [advice, *names]:
        class_folders.separator = name
        assert len(load_dataset(class_folders).splits['train']) == 1


@pytest.mark.parametrize('line', ['a b.mp4,3', 'x/a.MP4 3', '/data/b.avi\twalk', 'a.mkv'])
def test_list_without_header_is_told_apart(class_folders, tmp_path, line):
    (tmp_path / 'a.csv').write_text(f'{line}\n')
    class_folders.train_csv = str(tmp_path / 'a.csv')
    with pytest.raises(UserError, match=r"a.csv, line 1: .* write 'video_path,label' as the first"):
        load_dataset(class_folders)
