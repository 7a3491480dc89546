import csv

import pytest

from vivit_jax.config.schema import default_config
from vivit_jax.data.sources import load_videos
from vivit_jax.data.synthetic import MOTIONS, SHAPES
from vivit_jax.errors import UserError


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
    videos = load_videos(data)
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
    videos = load_videos(data)
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
    assert load_videos(data).label_names == classes


def test_embedded_videos_have_no_third_head(data):
    data.label_columns = ('verb', 'noun', 'tool')
    with pytest.raises(UserError, match=r"'tool'\): the embedded videos have labels for 2 heads"):
        load_videos(data)


@pytest.mark.parametrize('heads', [(), ('verb', 'verb'), ('verb/noun',), ('',), (3,)])
def test_unusable_heads_are_an_error(data, heads):
    data.label_columns = heads
    with pytest.raises(UserError, match=r'data\.label_columns=.* must be different columns'):
        load_videos(data)


def test_label_maps_of_heads_share_a_pattern(data, tmp_path):
    data.label_columns = ('verb', 'noun')
    (tmp_path / 'verb names.txt').write_text('\n'.join(reversed(MOTIONS)))
    (tmp_path / 'noun names.txt').write_text('\n'.join(SHAPES))
    data.label_map = str(tmp_path / '{head} names.txt')
    assert load_videos(data).label_names == {'verb': MOTIONS[::-1], 'noun': SHAPES}
    data.label_map = str(tmp_path / 'verb names.txt')
    with pytest.raises(UserError, match=r'must contain \{head\}, which stands for verb, noun'):
        load_videos(data)
    data.label_columns = ('verb',)
    assert load_videos(data).label_names == MOTIONS[::-1]
