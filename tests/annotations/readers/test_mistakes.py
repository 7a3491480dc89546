"""The messages about wrong and missing entries in the files of a dataset."""

import pytest

from vivit_jax.annotations.annotation import AnnotationError
from vivit_jax.annotations.check import check_annotations

KINETICS = 'label,youtube_id,time_start,time_end,split\n'
EPIC = 'participant_id,video_id,start_timestamp,stop_timestamp,verb_class,noun_class\n'
UCF = {'classInd.txt': '1 Archery\r\n2 Biking\r\n'}
V1 = {'something-something-v1-labels.csv': 'Holding something\n'}
V2 = {'labels.json': '{"Holding something": "0"}'}
VOCAB = {'Diving48_vocab.json': '[["Back", "15som"], ["Inward", "15som"]]'}
MOMENTS = {'moments_categories.txt': 'clapping,0\nburying,1\n'}


@pytest.mark.parametrize(
    ('dataset', 'files', 'parts'),
    [
        (
            'kinetics400',
            {'train.csv': f'{KINETICS}run,---QUuC4vJs,1:30,2,train\n'},
            ['train.csv, line 2', "time_start='1:30'", 'should be seconds'],
        ),
        (
            'kinetics400',
            {'val.csv': 'label,id\nrun,a\n'},
            ['val.csv: no column', "['label', 'id']"],
        ),
        ('kinetics400', {'train.csv': f'{KINETICS}run,,1,2,train\n'}, ['line 2: no youtube_id']),
        (
            'ssv1',
            V1 | {'something-something-v1-train.csv': '1;Holding something\n2;Throwing\n'},
            ['something-something-v1-train.csv, line 2', "'Throwing' is not in the file of labels"],
        ),
        (
            'ssv2',
            V2 | {'train.json': '[{"id": "1", "template": "Throwing [something]"}]'},
            ['train.json, entry 1', "'Throwing something' is not in"],
        ),
        ('ssv2', V2 | {'train.json': '[{"template": "x"}]'}, ['entry 1: has no "id"']),
        ('ssv2', {'labels.json': '{"a": "1", "b": "2"}'}, ['numbered 0, 1, …']),
        (
            'epic_kitchens100',
            {'EPIC_100_train.csv': f'{EPIC}P01,P01_1,00:00:01.00,00:00:02.00,97,0\n'},
            ['EPIC_100_train.csv, line 2', "label '97' is none of 0 … 96"],
        ),
        (
            'epic_kitchens100',
            {'EPIC_100_train.csv': f'{EPIC}P01,P01_1,1.5,00:00:02.00,0,0\n'},
            ["line 2: '1.5' is no time such as"],
        ),
        (
            'ucf101',
            UCF | {'trainlist01.txt': 'Diving/a.avi 1\r\n'},
            ["line 1: the folder 'Diving'"],
        ),
        (
            'ucf101',
            UCF | {'trainlist01.txt': 'Biking/a.avi 2\r\nBiking/b.avi 3\r\n'},
            ['trainlist01.txt, line 2', "label '3' is none of 1 … 2"],
        ),
        ('ucf101', {'classInd.txt': '1 Archery\n3 Biking\n'}, ['classInd.txt', 'numbered 1, 2, …']),
        ('ucf101', {'classInd.txt': '1 Archery\n1 Biking\n'}, ['line 2', 'stands twice']),
        ('ucf101', UCF, ['looked for trainlist01.txt, testlist01.txt', 'ucfTrainTestlist/']),
        ('hmdb51', {'wave_test_split1.txt': 'a.avi 3 \n'}, ['line 1: should end in 0, 1 or 2']),
        ('hmdb51', {'wave_test_split2.txt': 'a.avi 1 \n'}, ['looked for <class>_test_split1.txt']),
        (
            'diving48',
            VOCAB | {'Diving48_V2_train.json': '[{"vid_name": "a", "label": 2}]'},
            ['entry 1: label 2 is none of 0 … 1'],
        ),
        ('diving48', VOCAB | {'Diving48_V2_train.json': '[{"label": 2}]'}, ['have "vid_name"']),
        (
            'moments_in_time',
            MOMENTS | {'trainingSet.csv': 'x/a.mp4,clapping,1,0\nx/b.mp4,running,1,0\n'},
            ['trainingSet.csv, line 2', "'running' is not in moments_categories.txt"],
        ),
        (
            'isogd',
            {'train_list.txt': 'train/001/M_00001.avi train/001/K_00001.avi 250\n'},
            ['train_list.txt, line 1', "label '250' is none of 1 … 249"],
        ),
        ('isogd', {'train.txt': 'train/001/M_00001 55 249\n'}, ["'249' is none of 0 … 248"]),
        ('isogd', {'train.txt': 'train/001/M_00001\n'}, ['"folder num_frames label"']),
    ],
)
def test_unusable_file_raises_place_and_reason(read_example, dataset, files, parts):
    with pytest.raises(AnnotationError) as caught:
        read_example(dataset, files)
    for part in parts:
        assert part in str(caught.value)


def test_split_without_labels_is_left_out_and_logged(read_example, caplog):
    files = {'labels.json': '{"a": "0"}', 'train.json': '[{"id": 1, "template": "[a]"}]'}
    with caplog.at_level('INFO'):
        listing = read_example('ssv2', files | {'test.json': '[{"id": "2"}]'})
    assert list(listing.splits) == ['train']
    assert 'ssv2: the split test is left out' in caplog.text


def test_kinetics_without_train_split_has_classes_where_all_occur(read_example):
    names = [f'class {number:03d}' for number in range(400)]
    lines = [f'{name},{name[6:]}________,0,10,val\n' for name in reversed(names)]
    listing = read_example('kinetics400', {'val.csv': KINETICS + ''.join(lines)})
    assert listing.label_names == {'label': tuple(names)}
    some = read_example('kinetics400', {'val.csv': KINETICS + lines[0]})
    assert some.label_names == {}


def test_epic_without_class_files_has_numbers(read_example):
    lines = f'{EPIC}P01,P01_1,00:00:01.00,00:00:02.00,96,299\n'
    listing = read_example('epic_kitchens100', {'EPIC_100_train.csv': lines})
    heads = {'verb': 'verb', 'noun': 'noun'}
    data = check_annotations(listing, label_columns=heads, max_bad_fraction=1.0)
    assert data.splits['train'][0].label == {'verb': 96, 'noun': 299}
    assert {head: len(names) for head, names in data.label_names.items()} == {
        'verb': 97,
        'noun': 300,
    }
