import csv

import pytest

from vivit_jax.annotations.dataset import LabeledVideo
from vivit_jax.batches.load_dataset import load_dataset
from vivit_jax.batches.sources import VideoFiles
from vivit_jax.config.schema import default_config
from vivit_jax.errors import UserError
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
        assert video.read([0]).shape == (1, 32, 40, 3)
    assert list(load_dataset(data, splits=('val', 'test')).splits) == ['test']


def test_frame_folder_is_opened_at_its_part(tmp_path):
    pillow = pytest.importorskip('PIL.Image')
    for number in range(1, 7):
        pillow.new('RGB', (8, 8), (40 * number,) * 3).save(tmp_path / f'img_{number:05d}.png')
    source = VideoFiles([LabeledVideo(str(tmp_path), 0, start_frame=2, num_frames=3)])
    assert source.name(0) == f'{tmp_path} frames 2 … 4'
    with source.open(0) as video:
        assert video.read(range(3))[:, 0, 0, 0].tolist() == [120, 160, 200]


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
