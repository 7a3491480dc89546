import pytest

from vivit_jax.errors import UserError
from vivit_jax.weights.report import Entry, Report

BLOCK = 'Transformer/encoderblock_{}/Dense_{}/kernel'


def _layers(status, layers, dense=0):
    return [Entry(status, *2 * (BLOCK.format(layer, dense),)) for layer in layers]


def test_table_joins_equal_layers_and_counts_them():
    report = Report(
        (
            Entry('inflated', 'embedding/kernel', 'stem/kernel', 'central frame of 2'),
            *_layers('copied', range(12)),
            *_layers('copied', (1, 10, 4), dense=1),
            *_layers('copied', (3,), dense=2),
            Entry('new', 'head/bias'),
            Entry('unused', 'pre_logits/bias'),
        )
    )
    lines = [line.split() for line in str(report).splitlines()]
    assert lines == [
        ['status', 'parameter', 'count', 'source', 'detail'],
        ['inflated', 'embedding/kernel', '1', 'stem/kernel', 'central', 'frame', 'of', '2'],
        ['copied', BLOCK.format('{0…11}', 0), '12', '(same)'],
        ['copied', BLOCK.format('{1,4,10}', 1), '3', '(same)'],
        ['copied', BLOCK.format(3, 2), '1', '(same)'],
        ['new', 'head/bias', '1'],
        ['unused', 'pre_logits/bias', '1'],
        ['16', 'copied,', '1', 'inflated,', '1', 'new,', '1', 'unused'],
    ]
    columns = [line.index(line.split()[1]) for line in str(report).splitlines()[:-1]]
    assert len(set(columns)) == 1


def test_table_keeps_layers_apart_that_differ():
    name = 'Transformer/encoderblock_{}/kernel'
    report = Report(
        (
            Entry('copied', name.format(0), name.format(0)),
            Entry('copied', name.format(1), name.format(1), 'transposed'),
            Entry('copied', name.format(2), 'other/kernel'),
            Entry('new', name.format(3)),
        )
    )
    assert len(str(report).splitlines()) == 6


def test_expected_entries_pass():
    report = Report(
        (
            Entry('copied', 'a', 'a'),
            Entry('resized', 'b', 'b'),
            Entry('inflated', 'c', 'c'),
            Entry('new', 'head_noun/kernel'),
            Entry('new', 'TemporalTransformer/encoderblock_0/kernel'),
            Entry('unused', 'head/bias'),
        )
    )
    report.check(new=('head_*', 'Temporal*'), unused=('head/bias', 'nothing'))


def test_error_lists_all_that_was_not_expected():
    report = Report(
        (
            Entry('copied', 'fine', 'fine'),
            *_layers('new', range(2, 5)),
            Entry('new', 'head/kernel'),
            Entry('unused', 'head/kernel'),
            Entry('unused', 'head/extra'),
            Entry('misfit', 'embedding', 'embedding', '(1, 2), needed (1, 3)'),
        )
    )
    with pytest.raises(UserError) as error:
        report.check(new=('head/*',), unused=('head/kernel',))
    text = str(error.value)
    lines = text.splitlines()
    assert lines[0] == 'the weights do not fit the model:'
    assert lines[1].split() == ['status', 'parameter', 'count', 'source', 'detail']
    assert [line.split()[:3] for line in lines[2:5]] == [
        ['new', BLOCK.format('{2…4}', 0), '3'],
        ['unused', 'head/extra', '1'],
        ['misfit', 'embedding', '1'],
    ]
    assert '(1, 2), needed (1, 3)' in lines[4]
    assert [line.split(':')[0] for line in lines[5:]] == ['new', 'unused', 'misfit']
    assert 'num_layers' in lines[5] and 'num_layers' in lines[6] and 'tubelet_size' in lines[7]


@pytest.mark.parametrize(
    ('status', 'allowed', 'other'), [('new', 'new', 'unused'), ('unused', 'unused', 'new')]
)
def test_names_are_allowed_for_one_status_only(status, allowed, other):
    report = Report((Entry(status, 'x'),))
    report.check(**{allowed: ('x',)})
    with pytest.raises(UserError, match=rf'{status} +x'):
        report.check(**{other: ('x',)})


def test_misfits_are_never_allowed():
    with pytest.raises(UserError, match=r'misfit +x'):
        Report((Entry('misfit', 'x', 'x'),)).check(new=('*',), unused=('*',))
