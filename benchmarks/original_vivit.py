"""Loads the original implementation of ViViT from a checkout of Scenic's repository."""

import importlib.abc
import importlib.machinery
import sys
from unittest import mock

import flax.linen as nn
import jax.numpy as jnp
from ml_collections import ConfigDict


def original_model(model: nn.Module, checkout: str) -> nn.Module:
    """Makes the original of a `vivit_joint` or `vivit_fe`; it takes the same parameters.

    Scenic's imports that the model does not need are replaced by dummies.

    Args:
        model: a model of this package, with class tokens and learned positions.
        checkout: the folder of the repository.
    """
    sys.path.insert(0, checkout)
    sys.meta_path.insert(0, _Dummies())
    from scenic.projects.vivit import model as scenic

    spec = model.spec
    time, height, width = spec.tubelet_size
    encoder = {name: getattr(spec, name) for name in ('num_heads', 'mlp_dim', 'num_layers')}
    common = {
        'num_classes': spec.num_classes,
        'patches': ConfigDict({'size': (height, width, time)}),
        'hidden_size': spec.hidden_size,
        'temporal_encoding_config': ConfigDict(
            {'method': '3d_conv', 'kernel_init_method': 'central_frame_initializer'}
        ),
        'classifier': 'token',
        'dropout_rate': 0.0,
        'attention_dropout_rate': 0.0,
        'dtype': jnp.dtype(spec.dtype),
    }
    temporal_num_layers = getattr(spec, 'temporal_num_layers', None)
    if temporal_num_layers is None:
        kind = ConfigDict({'type': 'spacetime'})
        return scenic.ViViT(**encoder, attention_config=kind, **common)
    kind = ConfigDict({'type': 'factorized_encoder'})
    sizes = {f'spatial_{name}': value for name, value in encoder.items()}
    sizes |= {f'temporal_{name}': value for name, value in encoder.items()}
    sizes['temporal_num_layers'] = temporal_num_layers
    return scenic.SpaceTimeViViT(**sizes, attention_config=kind, **common)


class _Dummies(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Replaces the modules that Scenic imports but its model does not need."""

    def find_spec(self, name, path, target=None):
        if name.split('.')[0] in ('clu', 'dmvr', 'tensorflow', 'tensorflow_datasets'):
            return importlib.machinery.ModuleSpec(name, self, is_package=True)
        return None

    def create_module(self, spec):
        return mock.MagicMock(name=spec.name, __path__=[], __name__=spec.name, __spec__=spec)

    def exec_module(self, module):
        pass
