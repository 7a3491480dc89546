"""Small checkpoints with random parameters, and videos to predict with them."""

import sys

import jax
import jax.numpy as jnp
import numpy as np
from python_process import run_python

from vivit_jax.model_card import ModelCard
from vivit_jax.models.registry import create_model
from vivit_jax.train.checkpoints import Checkpoints
from vivit_jax.train.state import TrainState
from vivit_jax.video.preprocessing import Preprocessing
from vivit_jax.video.synthetic import write_video

SPEC = Preprocessing(num_frames=4, frame_stride=2, short_side=16, crop_size=16)
LABELS = ('clap', 'jump', 'run')
TWO_LABELS = {'verb': ('cut', 'fry', 'wash'), 'noun': ('egg', 'onion')}
MODEL = {
    'name': 'vivit_fe',
    'num_classes': 3,
    'hidden_size': 8,
    'num_layers': 1,
    'num_heads': 2,
    'mlp_dim': 8,
    'tubelet_size': (2, 8, 8),
    'temporal_num_layers': 1,
}


def random_params(spec, **changes):
    keywords = {**MODEL, **changes}
    model = create_model(keywords.pop('name'), **keywords)
    shapes = jax.eval_shape(
        model.init, jax.random.key(0), jnp.zeros((1, spec.num_frames, 16, 16, 3))
    )['params']
    leaves, tree = jax.tree.flatten(shapes)
    keys = jax.random.split(jax.random.key(1), len(leaves))
    drawn = [jax.random.normal(k, x.shape) * 0.3 for k, x in zip(keys, leaves, strict=True)]
    return model, jax.tree.unflatten(tree, drawn)


def save_run(
    folder, spec=SPEC, label_names=LABELS, typical_sec=None, is_multi_label=False, **changes
):
    params = random_params(spec, **changes)[1]
    card = ModelCard({**MODEL, **changes}, spec, label_names, typical_sec, is_multi_label)
    checkpoints = Checkpoints(folder / 'checkpoints', 1, 0)
    checkpoints.save(TrainState(jnp.int32(3), params, {}), card, {})
    checkpoints.close()
    return folder


def write_noise(path, num_frames, size=(24, 32)):
    video = np.random.default_rng(0).integers(0, 256, (num_frames, *size, 3), np.uint8)
    write_video(path, video, rate=10)
    return path


def predict(run_folder, *arguments):
    command = [sys.executable, '-m', 'vivit_jax.predict', f'--checkpoint={run_folder}']
    return run_python([*command, *map(str, arguments)])


def brute_force_top(probabilities):
    """Every action with its product, best first."""
    products = {
        f'{verb} + {noun}': probabilities['verb'][i] * probabilities['noun'][j]
        for i, verb in enumerate(TWO_LABELS['verb'])
        for j, noun in enumerate(TWO_LABELS['noun'])
    }
    return sorted(products.items(), key=lambda item: -item[1])
