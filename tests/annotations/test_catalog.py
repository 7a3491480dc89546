import logging

import pytest

from vivit_jax.annotations.annotation import AnnotationError
from vivit_jax.annotations.catalog import DATASETS, find_dataset, read_dataset
from vivit_jax.annotations.check import check_annotations
from vivit_jax.errors import UserError
from vivit_jax.heads import by_head
from vivit_jax.video.preprocessing import Preprocessing


@pytest.mark.parametrize('dataset', DATASETS.values(), ids=lambda dataset: dataset.name)
def test_entry_is_consistent(dataset):
    Preprocessing(**dataset.sampling)  # raises where a keyword or value is unknown
    assert dataset.protocols
    assert all(sizes.keys() <= {'train', 'val', 'test'} for sizes in dataset.splits.values())
    assert bool(dataset.source) == any(dataset.splits.values())
    if dataset.num_classes is not None and len(dataset.label_columns) > 1:
        assert by_head(dataset.num_classes).keys() == set(dataset.label_columns)
    assert all(count > 0 for count in dataset.views.split('x') for count in [int(count)])


# Classes and sizes as the datasets publish them.
@pytest.mark.parametrize(
    ('name', 'protocol', 'num_classes', 'sizes'),
    [
        ('kinetics400', '', 400, [246_534, 19_906, 39_805]),
        ('ssv2', '', 174, [168_913, 24_777, 27_157]),
        ('epic_kitchens100', '', {'verb': 97, 'noun': 300}, [67_217, 9_668, 13_092]),
        ('ucf101', '2', 101, [9_586, 3_734]),
        ('ucf101', '3', 101, [9_624, 3_696]),
        ('hmdb51', '1', 51, [51 * 70, 51 * 30]),
        ('ntu60', 'cross_subject', 60, [40_320, 16_560]),
        ('isogd', '', 249, [35_878, 5_784, 6_271]),
    ],
)
def test_sizes_are_the_published_ones(name, protocol, num_classes, sizes):
    dataset = find_dataset(name)
    assert dataset.num_classes == num_classes
    assert list(dataset.splits[protocol].values()) == sizes


def test_classes_with_a_direction_are_not_mirrored():
    directed = {'ssv1', 'ssv2', 'jester', 'diving48', 'isogd'}
    known = {name for name, dataset in DATASETS.items() if dataset.num_classes is not None}
    assert {name for name in known if not DATASETS[name].flip} == directed
    assert DATASETS['ssv2'].flip_swaps == (('left', 'right'),)


def test_protocols_start_with_the_default():
    assert find_dataset('ucf101').protocols == ('1', '2', '3')
    assert find_dataset('ntu120').protocols == ('cross_subject', 'cross_setup')


def test_unknown_name_offers_near_ones():
    with pytest.raises(UserError, match=r"unknown dataset 'kinetics_400'.*'kinetics400'"):
        find_dataset('kinetics_400')


@pytest.mark.parametrize(
    ('name', 'protocol', 'message'),
    [
        ('ucf101', '4', "ucf101 has no protocol '4'; known: 1, 2, 3"),
        ('ntu60', 'cross_setup', 'known: cross_subject, cross_view'),
        ('ssv2', '1', 'known: no other than the default'),
    ],
)
def test_unknown_protocol_offers_the_known(tmp_path, name, protocol, message):
    with pytest.raises(UserError, match=message):
        read_dataset(find_dataset(name), tmp_path, protocol=protocol)


def test_missing_folder_raises_its_path(tmp_path):
    with pytest.raises(AnnotationError, match=r'there is no folder .*nowhere'):
        read_dataset(find_dataset('ucf101'), tmp_path, annotations=tmp_path / 'nowhere')


def test_sizes_of_splits_are_logged(tmp_path, caplog):
    (tmp_path / 'lists').mkdir()
    (tmp_path / 'videos' / 'wave').mkdir(parents=True)
    (tmp_path / 'videos' / 'wave' / 'a.avi').touch()
    (tmp_path / 'lists' / 'wave_test_split3.txt').write_text('a.avi 1 \nb.avi 2 \nc.avi 2 \n')
    listing = read_dataset(
        find_dataset('hmdb51'), tmp_path / 'videos', annotations=tmp_path / 'lists', protocol='3'
    )
    with caplog.at_level(logging.INFO):
        check_annotations(listing, max_bad_fraction=1.0)
    assert 'train: 1 videos listed, 1 found (70 and 30 of each class: 3,570)' in caplog.text
    assert 'test: 2 videos listed, 0 found (70 and 30 of each class: 1,530)' in caplog.text
