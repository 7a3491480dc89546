import pytest
from small_runs import TWO_LABELS, save_run


@pytest.fixture(scope='session')
def run_folder(tmp_path_factory):
    return save_run(tmp_path_factory.mktemp('run'))


@pytest.fixture(scope='session')
def two_head_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp('two_heads')
    return save_run(folder, label_names=TWO_LABELS, num_classes={'verb': 3, 'noun': 2})
