"""Datasets with annotation files, by a few lines in the exact format of each."""

import json

import pytest

from vivit_jax.annotations.dataset import LabeledVideo

# The last row of every example, or of one of its splits, is missing on disk.
EXAMPLES = [
    dict(
        dataset='kinetics400',
        files={
            'annotations/train.csv': 'label,youtube_id,time_start,time_end,split,is_cc\n'
            'testifying,---QUuC4vJs,84,94,train,0\n'
            '"air drumming",_dbcJuKJQNs,40.0,50.0,train,0\n'
            '"hurling (sport)",0wR5jVB-WPk,417,427,train,0\n',
            'annotations/val.csv': 'label,youtube_id,time_start,time_end,split\n'
            'air drumming,AAAAAAAAAAA,0,10,validate\n'
            'testifying,BBBBBBBBBBB,1,11,validate\n',
            'annotations/test.csv': 'youtube_id,time_start,time_end,split\nCCCCCCCCCCC,0,10,test\n',
        },
        videos='train/---QUuC4vJs_000084_000094.mp4\n'
        'train/0wR5jVB-WPk_000417_000427.mp4\n'
        'replacement/replacement_for_corrupted_k400/---QUuC4vJs_000084_000094.mp4\n'
        'train/_dbcJuKJQNs.webm\n'
        'val/BBBBBBBBBBB_000001_000012.mp4',
        rows={
            'train': [
                LabeledVideo(
                    'replacement/replacement_for_corrupted_k400/---QUuC4vJs_000084_000094.mp4', 2
                ),
                LabeledVideo('train/_dbcJuKJQNs.webm', 0),
                LabeledVideo('train/0wR5jVB-WPk_000417_000427.mp4', 1),
            ],
            'val': [
                LabeledVideo('val/AAAAAAAAAAA_000000_000010.mp4', 0),
                LabeledVideo('val/BBBBBBBBBBB_000001_000011.mp4', 2),
            ],
        },
        classes=('air drumming', 'hurling (sport)', 'testifying'),
        says='2 of 2 videos of the val split do not exist',
    ),
    dict(
        dataset='kinetics600',
        files={
            # The CSV is incomplete, the text file is not.
            'train.csv': 'label,youtube_id,time_start,time_end,split\n',
            'train.txt': 'label,youtube_id,time_start,time_end,split\n'
            "massaging person's head,AAAAAAAAAAA,1,11,train\n"
            'air drumming,BBBBBBBBBBB,2,12,train\n'
            'air drumming,CCCCCCCCCCC,3,13,train\n'
            'zumba,DDDDDDDDDDD,4,14,train\n'
            'zumba,EEEEEEEEEEE,5,15,train\n',
        },
        videos="videos_train/massaging_person's_head/AAAAAAAAAAA_000001_000011.mp4\n"
        'videos_train/air drumming/BBBBBBBBBBB.mkv\n'
        'videos_train/air_drumming/BBBBBBBBBBB_000002_000012.mp4\n'
        'videos_train/air_drumming/CCCCCCCCCCC.avi\n'
        'videos/vol_00/DDDDDDDDDDD_000004_000014.mp4',
        rows={
            'train': [
                LabeledVideo(
                    "videos_train/massaging_person's_head/AAAAAAAAAAA_000001_000011.mp4", 1
                ),
                LabeledVideo('videos_train/air drumming/BBBBBBBBBBB.mkv', 0),
                LabeledVideo('videos_train/air_drumming/CCCCCCCCCCC.avi', 0),
                LabeledVideo('videos/vol_00/DDDDDDDDDDD_000004_000014.mp4', 2),
                LabeledVideo('videos/vol_00/EEEEEEEEEEE_000005_000015.mp4', 2),
            ],
        },
        classes=('air drumming', "massaging person's head", 'zumba'),
        says='1 of 5 videos of the train split',
    ),
    dict(
        dataset='ssv1',
        files={
            'something-something-v1-labels.csv': 'Something falling like a rock\nHolding something',
            'something-something-v1-train.csv': '100218;Something falling like a rock\n'
            '24413;Holding something\n',
            'something-something-v1-test.csv': '4711\n',
        },
        videos='20bn-something-something-v1/100218/',
        rows={
            'train': [
                LabeledVideo('20bn-something-something-v1/100218', 0),
                LabeledVideo('20bn-something-something-v1/24413', 1),
            ]
        },
        classes=('Something falling like a rock', 'Holding something'),
        says='Holding something 1',
    ),
    dict(
        dataset='jester',
        files={
            'labels/jester-v1-labels.csv': 'Swiping Left\nSwiping Right\nDrumming Fingers\n',
            'labels/train.csv': '34870;Drumming Fingers\n1;Swiping Left\n',
            'labels/test-answers.csv': '2;Swiping Right\n',
        },
        videos='34870/\n2.mp4',
        rows={
            'train': [LabeledVideo('34870', 2), LabeledVideo('1', 0)],
            'test': [LabeledVideo('2.mp4', 1)],
        },
        classes=('Swiping Left', 'Swiping Right', 'Drumming Fingers'),
        says='1 of 2 videos of the train split',
    ),
    dict(
        dataset='ssv2',
        files={
            'something-something-v2-labels.json': json.dumps(
                {'Moving part of something': '1', 'Approaching something with your camera': '0'}
            ),
            'something-something-v2-train.json': json.dumps(
                [
                    {
                        'id': '41775',
                        'label': 'Moving part of drawer',
                        'template': 'Moving part of [something]',
                        'placeholders': ['drawer'],
                    },
                    {'id': '7', 'template': 'Approaching [something] with your camera'},
                ]
            ),
            'something-something-v2-validation.json': json.dumps(
                [{'id': '8', 'template': 'Moving part of [something]'}]
            ),
            'something-something-v2-test.json': '[{"id": "1420"}]',
        },
        videos='41775.webm\n8.mp4',
        rows={
            'train': [LabeledVideo('41775.webm', 1), LabeledVideo('7.webm', 0)],
            'val': [LabeledVideo('8.mp4', 1)],
        },
        classes=('Approaching something with your camera', 'Moving part of something'),
        says='Approaching something with your camera 1',
    ),
    dict(
        dataset='epic_kitchens100',
        files={
            'EPIC_100_train.csv': 'narration_id,participant_id,video_id,narration_timestamp,'
            'start_timestamp,stop_timestamp,start_frame,stop_frame,narration,verb,verb_class,noun,'
            'noun_class,all_nouns,all_noun_classes\n'
            'P01_11_0,P01,P01_11,00:00:00.560,00:00:00.00,00:00:01.89,1,113,take plate,take,0,'
            "plate,2,['plate'],[2]\n"
            'P01_11_12,P01,P01_11,00:00:52.620,01:00:51.98,01:01:53.03,3118,3181,'
            'throw paper into bin,throw-into,1,paper,0,"[\'paper\', \'bin\']","[0, 1]"\n'
            'P02_1_0,P02,P02_1,00:00:00.5,00:00:01,00:00:02.5,60,150,take pan,take,0,pan,3,[],[]',
            'EPIC_100_validation.csv': 'video_id,participant_id,start_timestamp,stop_timestamp,'
            'verb_class,noun_class\nP03_1,P03,00:00:00.00,00:00:01.00,1,1\n',
            'EPIC_100_test_timestamps.csv': 'narration_id,participant_id,video_id,'
            'narration_timestamp,start_timestamp,stop_timestamp,start_frame,stop_frame\n'
            'P01_101_0,P01,P01_101,00:00:00.000,00:00:00.00,00:00:01.00,1,60\n',
            'EPIC_100_verb_classes.csv': 'id,key,instances,category\n'
            "0,take,\"['take', 'get']\",retrieve\n1,throw-into,[],leave\n",
            'EPIC_100_noun_classes.csv': 'id,key,instances,category\n'
            '0,paper,[],x\n1,bin,[],x\n2,plate,[],x\n3,board:chopping,[],x\n',
        },
        videos='EPIC-KITCHENS/P01/videos/P01_11.MP4\nEPIC-KITCHENS/P03/videos/P03_1.mp4',
        rows={
            'train': [
                LabeledVideo(
                    'EPIC-KITCHENS/P01/videos/P01_11.MP4', {'verb': 0, 'noun': 2}, 0.0, 1.89
                ),
                LabeledVideo(
                    'EPIC-KITCHENS/P01/videos/P01_11.MP4', {'verb': 1, 'noun': 0}, 3651.98, 3713.03
                ),
                LabeledVideo('EPIC-KITCHENS/P02_1.MP4', {'verb': 0, 'noun': 3}, 1.0, 2.5),
            ],
            'val': [
                LabeledVideo('EPIC-KITCHENS/P03/videos/P03_1.mp4', {'verb': 1, 'noun': 1}, 0.0, 1.0)
            ],
        },
        classes={
            'verb': ('take', 'throw-into'),
            'noun': ('paper', 'bin', 'plate', 'board:chopping'),
        },
        says='by verb: take 1 of 2; by noun: board:chopping 1 of 1',
    ),
    dict(
        dataset='ucf101',
        files={
            'classInd.txt': '1 ApplyEyeMakeup\r\n2 Hammering\r\n3 HammerThrow\r\n'
            '4 HandstandPushups\r\n',
            'trainlist02.txt': 'ApplyEyeMakeup/v_ApplyEyeMakeup_g08_c01.avi 1\r\n'
            'HammerThrow/v_HammerThrow_g01_c01.avi 3\r\n'
            'HandStandPushups/v_HandStandPushups_g08_c01.avi 4 \r\n',
            'trainlist01.txt': 'Hammering/v_Hammering_g01_c01.avi 2\r\n',
            'testlist02.txt': 'Hammering/v_Hammering_g02_c01.avi\r\n'
            'HammerThrow/v_HammerThrow_g02_c01.avi 2\r\n',
        },
        videos='UCF-101/ApplyEyeMakeup/v_ApplyEyeMakeup_g08_c01.avi\n'
        'UCF-101/HammerThrow/v_HammerThrow_g01_c01.mp4\n'
        'UCF-101/HandstandPushups/v_HandstandPushups_g08_c01.avi\n'
        'UCF-101/Hammering/v_Hammering_g02_c01.avi',
        rows={
            'train': [
                LabeledVideo('UCF-101/ApplyEyeMakeup/v_ApplyEyeMakeup_g08_c01.avi', 0),
                LabeledVideo('UCF-101/HammerThrow/v_HammerThrow_g01_c01.mp4', 2),
                LabeledVideo('UCF-101/HandstandPushups/v_HandstandPushups_g08_c01.avi', 3),
            ],
            'test': [
                LabeledVideo('UCF-101/Hammering/v_Hammering_g02_c01.avi', 1),
                LabeledVideo('UCF-101/HammerThrow/v_HammerThrow_g02_c01.avi', 2),
            ],
        },
        classes=('ApplyEyeMakeup', 'Hammering', 'HammerThrow', 'HandstandPushups'),
        protocol='2',
        says='1 of 2 videos of the test split',
    ),
    dict(
        dataset='hmdb51',
        files={
            'testTrainMulti_7030_splits/wave_test_split1.txt': 'a & b #1!.avi 2 \n',
            'testTrainMulti_7030_splits/brush_hair_test_split1.txt': 'a b_c.avi 0 \n'
            'April_09_brush_hair_u_nm_np1_ba_goo_0.avi 1 \n'
            'Lost.avi 2 \n',
            'testTrainMulti_7030_splits/brush_hair_test_split2.txt': 'x.avi 1 \n',
        },
        videos='brush_hair/April_09_brush_hair_u_nm_np1_ba_goo_0.avi\nwave/a & b #1!.avi',
        rows={
            'train': [LabeledVideo('brush_hair/April_09_brush_hair_u_nm_np1_ba_goo_0.avi', 0)],
            'test': [LabeledVideo('brush_hair/Lost.avi', 0), LabeledVideo('wave/a & b #1!.avi', 1)],
        },
        classes=('brush_hair', 'wave'),
        says='brush_hair 1',
    ),
    dict(
        dataset='diving48',
        files={
            'Diving48_vocab.json': '[["Inward", "25som", "NoTwis", "PIKE"], '
            '["Back", "15som", "05Twis", "FREE"]]',
            'Diving48_V2_train.json': '[{"vid_name": "-mmq0PT-u8k_00155", "label": 0, '
            '"start_frame": 0, "end_frame": 48}, {"vid_name": "b", "label": 1, "end_frame": 9}]',
            'Diving48_V2_test.json': '[{"vid_name": "c", "label": 1}]',
        },
        videos='rgb/-mmq0PT-u8k_00155.mp4\nrgb/b.mp4',
        rows={
            'train': [LabeledVideo('rgb/-mmq0PT-u8k_00155.mp4', 0), LabeledVideo('rgb/b.mp4', 1)],
            'test': [LabeledVideo('rgb/c.mp4', 1)],
        },
        classes=('Inward+25som+NoTwis+PIKE', 'Back+15som+05Twis+FREE'),
        says='1 of 1 videos of the test split',
    ),
    dict(
        dataset='moments_in_time',
        files={
            'moments_categories.txt': 'clapping,0\nadult+female+singing,2\nburying,1\n',
            'trainingSet.csv': 'adult+female+singing/0P3XG_vf91c_35.mp4,adult+female+singing,3,0\n'
            '"clapping/a, b.mp4",clapping,3,0\n',
            'validationSet.csv': 'burying/x.mp4,burying,3,0\n',
        },
        videos='training/adult+female+singing/0P3XG_vf91c_35.mp4\ntraining/clapping/a, b.mp4',
        rows={
            'train': [
                LabeledVideo('training/adult+female+singing/0P3XG_vf91c_35.mp4', 2),
                LabeledVideo('training/clapping/a, b.mp4', 0),
            ],
            'val': [LabeledVideo('validation/burying/x.mp4', 1)],
        },
        classes=('clapping', 'burying', 'adult+female+singing'),
        says='burying 1',
    ),
    dict(
        dataset='isogd',
        files={
            'train_list.txt': 'train/001/M_00001.avi train/001/K_00001.avi 26\n'
            'train/001/M_00002.avi train/001/K_00002.avi 249\n',
            'valid_list.txt': 'valid/001/M_00001.avi valid/001/K_00001.avi 1\n',
            'test_list.txt': 'test/001/M_00001.avi test/001/K_00001.avi\n',
        },
        videos='train/001/M_00001.avi\ntrain/001/K_00001.avi\ntrain/001/M_00002.mp4',
        rows={
            'train': [
                LabeledVideo('train/001/M_00001.avi', 25),
                LabeledVideo('train/001/M_00002.mp4', 248),
            ],
            'val': [LabeledVideo('valid/001/M_00001.avi', 0)],
        },
        classes=249,
        says='1 of 1 videos of the val split',
    ),
    dict(
        dataset='isogd',
        files={
            'IsoGD/rgb/train.txt': 'train/001/M_00001 55 25\ntrain/001/M_00002 40 248\n',
            'IsoGD/rgb/test.txt': 'test/001/M_00001 30 0\n',
            'IsoGD/depth/train.txt': 'train/001/K_00001 55 25\n',
        },
        videos='train/001/M_00001/\ntrain/001/M_00002.avi',
        rows={
            'train': [
                LabeledVideo('train/001/M_00001', 25, num_frames=55),
                LabeledVideo('train/001/M_00002.avi', 248),
            ],
            'test': [LabeledVideo('test/001/M_00001', 0, num_frames=30)],
        },
        classes=249,
        says='1 of 1 videos of the test split',
    ),
]


@pytest.mark.parametrize('example', EXAMPLES, ids=lambda x: x['dataset'])
def test_rows_and_classes_are_those_of_the_files(check_example, example):
    check_example(**example)


def test_result_does_not_depend_on_the_process(check_processes):
    check_processes(EXAMPLES)
