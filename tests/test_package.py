"""What `import vivit_jax` shows, before anything heavy is imported."""

import ast
import inspect
import pydoc
import subprocess
import sys
from pathlib import Path

import pytest

import vivit_jax

ROOT = Path(__file__).parents[1]


def test_import_and_dir_leave_jax_and_numpy_alone():
    code = (
        'import sys, vivit_jax, vivit_jax.__main__; print(*dir(vivit_jax)); '
        'assert not {"jax", "numpy", "absl"} & sys.modules.keys()'
    )
    done = subprocess.run([sys.executable, '-c', code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == vivit_jax.__all__


def test_type_checkers_find_every_name_where_it_is_imported_from():
    tree = ast.parse(inspect.getsource(vivit_jax))
    [block] = [x for x in tree.body if isinstance(x, ast.If) and 'TYPE' in ast.unparse(x.test)]
    shown = {alias.name: node.module for node in block.body for alias in node.names}
    assert shown == vivit_jax._MODULES
    assert {*shown, '__version__'} == set(vivit_jax.__all__)
    for name, module in shown.items():
        assert getattr(vivit_jax, name).__module__ == module


def test_help_describes_every_name():
    text = pydoc.plain(pydoc.render_doc(vivit_jax))
    for name in set(vivit_jax.__all__) - {'__version__'}:
        assert f'  {name} ' in vivit_jax.__doc__
        assert f'{name}(' in text
    assert 'label_names: ' in text  # from a docstring


def test_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="has no attribute 'creat_model'"):
        vivit_jax.creat_model  # noqa: B018


def test_hints_are_shipped():
    assert (ROOT / 'vivit_jax/py.typed').exists()
