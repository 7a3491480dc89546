import logging
import re
from pathlib import Path

import pytest

from vivit_jax.annotations.annotation import AnnotationError
from vivit_jax.annotations.catalog import DATASETS, find_dataset, read_dataset
from vivit_jax.annotations.check import check_annotations
from vivit_jax.augment.mirrored_labels import find_directions, mirrored_labels
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


# Totals from the papers and pages of the datasets, which are independent of the split sizes.
@pytest.mark.parametrize(
    ('name', 'total'),
    [
        ('kinetics400', 306_245),
        ('ssv1', 108_499),
        ('ssv2', 220_847),
        ('jester', 148_092),
        ('epic_kitchens100', 89_977),
        ('ucf101', 13_320),
        ('hmdb51', 51 * (70 + 30)),
        ('ntu60', 56_880),
        ('isogd', 47_933),
        ('msr_action3d', 556),
    ],
)
def test_splits_of_every_protocol_add_up_to_the_published_total(name, total):
    splits = find_dataset(name).splits
    assert {protocol: sum(sizes.values()) for protocol, sizes in splits.items()} == (
        dict.fromkeys(splits, total)
    )


@pytest.mark.parametrize('name', ['ucf101', 'hmdb51', 'diving48', 'ntu60', 'ntu120'])
def test_number_of_classes_is_the_one_in_the_name(name):
    assert find_dataset(name).num_classes == int(re.search(r'\d+$', name)[0])


@pytest.mark.parametrize('name', ['kinetics400', 'kinetics600', 'kinetics700', 'kinetics700_2020'])
def test_number_of_classes_of_kinetics_is_the_one_in_the_name(name):
    assert find_dataset(name).num_classes == int(name.removeprefix('kinetics')[:3])


@pytest.mark.parametrize(
    ('name', 'pairs'),
    [
        (
            'ssv2',
            {
                'Pulling something from left to right': 'Pulling something from right to left',
                'Pushing something so it spins': 'Pushing something so it spins',
            },
        ),
        (
            'jester',
            {
                'Swiping Left': 'Swiping Right',
                'Turning Hand Clockwise': 'Turning Hand Counterclockwise',
                'Thumb Up': 'Thumb Up',
            },
        ),
    ],
)
def test_classes_with_a_direction_change_places_in_a_mirror(name, pairs):
    names = list(dict.fromkeys([*pairs, *pairs.values()]))
    dataset = find_dataset(name)
    assert find_directions(names)
    assert not dataset.flip
    mirrored = mirrored_labels(names, dataset.flip_swaps)
    for label, other in pairs.items():
        assert names[mirrored[names.index(label)]] == other
        assert names[mirrored[names.index(other)]] == label


def test_first_protocol_is_the_default(tmp_path):
    (tmp_path / 'wave').mkdir()
    for split in ('1', '2', '3'):
        (tmp_path / f'wave_test_split{split}.txt').write_text(f'{split}.avi 1 \n')
    found = read_dataset(find_dataset('hmdb51'), tmp_path)
    assert [Path(x.values['video_path']).name for x in found.splits['train']] == ['1.avi']


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
