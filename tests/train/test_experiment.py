import runpy
from pathlib import Path

import pytest

from vivit_jax.errors import UserError
from vivit_jax.train.experiment import Experiment

ROOT = Path(__file__).parents[2]


def test_a_single_class_is_an_error_before_training(tmp_path):
    (tmp_path / 'a.mp4').touch()
    (tmp_path / 'train.csv').write_text('video_path,label\na.mp4,wave\n')
    config = runpy.run_path(str(ROOT / 'configs/custom.py'))['get_config']()
    config.data.train_csv = str(tmp_path / 'train.csv')
    with pytest.raises(UserError, match=r"only one class, 'wave', and nothing to learn"):
        Experiment(config)
