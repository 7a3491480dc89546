import subprocess
import sys

from vivit_jax.heads import by_head, head_names, map_heads, name_heads

TWO = {'verb': (3, 4), 'noun': (5,)}


def test_function_is_called_for_the_only_head_or_for_each_in_order():
    assert map_heads(lambda x, y: x + y, 3, 4) == 7
    # The first value determines the order.
    both = map_heads(lambda x, y: x + y, {'b': 1, 'a': 2}, {'a': 10, 'b': 20})
    assert list(both.items()) == [('b', 21), ('a', 12)]
    assert map_heads(len, TWO) == {'verb': 2, 'noun': 1}
    assert map_heads(len, (3, 4)) == 2  # a tuple is a single value, not several heads


def test_names_of_heads():
    assert (head_names(TWO), head_names((3, 4))) == (('verb', 'noun'), ())
    assert by_head(TWO) == TWO
    assert by_head(5) == {'': 5}
    assert name_heads('acc1', 0.5) == {'acc1': 0.5}
    assert name_heads('acc1', {'verb': 0.5, 'noun': 1}) == {'verb/acc1': 0.5, 'noun/acc1': 1}


def test_decoding_workers_need_no_jax_for_it():
    code = 'import sys, vivit_jax.heads; print(*sorted({"jax", "numpy"} & {*sys.modules}))'
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ''
