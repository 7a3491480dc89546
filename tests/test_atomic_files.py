import pytest

from vivit_jax.atomic_files import replace_text, replacing


def test_file_is_old_until_the_whole_new_one_is_there(tmp_path):
    path = tmp_path / 'a.txt'
    replace_text(path, 'old')
    with replacing(path) as unfinished:
        unfinished.write_text('n')
        assert path.read_text() == 'old'
        unfinished.write_text('new')
    assert path.read_text() == 'new'
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize('error', [OSError, KeyboardInterrupt])
def test_error_leaves_the_old_file_and_nothing_else(tmp_path, error):
    path = tmp_path / 'a.txt'
    replace_text(path, 'old')
    with pytest.raises(error), replacing(path) as unfinished:
        unfinished.write_text('half')
        raise error
    assert path.read_text() == 'old'
    assert list(tmp_path.iterdir()) == [path]
