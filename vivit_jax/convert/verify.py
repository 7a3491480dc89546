"""Checks that the source and the output of a conversion compute the same."""

import contextlib
import dataclasses
from pathlib import Path

import jax
import numpy as np

from vivit_jax.errors import UserError
from vivit_jax.heads import by_head
from vivit_jax.model_card import ModelCard
from vivit_jax.models.registry import create_model
from vivit_jax.models.variables import abstract_clip
from vivit_jax.weights import huggingface
from vivit_jax.weights.load import create_weights_model, read_weights

Clip = np.ndarray | dict[str, np.ndarray]

_TOLERANCE = 1e-4  # float32 through dozens of layers, with sums in another order


class Reference:
    """The output of a model for a random clip, to compare other files with.

    Args:
        card: the card of the model.
        variables: the `params` and `batch_stats` of the model.
    """

    def __init__(self, card: ModelCard, variables: dict):
        rng, model = np.random.default_rng(0), create_model(**card.model)
        self._clip = jax.tree.map(
            lambda x: rng.uniform(-1, 1, x.shape).astype(np.float32),
            abstract_clip(model.spec, card.preprocessing.clip_shape),
        )
        self._ours = _run(model, variables, self._clip)

    def compare(self, side: str, path: Path, **how) -> bool:
        """Runs the model in a file or folder, in its own framework if that is installed.

        Prints how far its features and logits differ; returns whether the difference is small.

        Args:
            side: what to call the file or folder.
            path: the file or folder.
            **how: how `read_weights` reads it.
        """
        framework, theirs = _run_path(path, self._clip, how)
        relative = float(np.linalg.norm(theirs - self._ours) / np.linalg.norm(self._ours))
        print(
            f'Verified: {side} in {framework} against the converted weights, features and logits '
            f'of a random clip: largest difference {np.abs(theirs - self._ours).max():.2e} at '
            f'values up to {np.abs(self._ours).max():.3g}, relative {relative:.2e}'
        )
        agrees = relative <= _TOLERANCE  # false if `relative` is not a number
        if not agrees:
            print(f'Error: they should differ by at most {_TOLERANCE} (relative)')
        return agrees


def _run_path(path: Path, clip: Clip, how: dict) -> tuple[str, np.ndarray]:
    framework = 'JAX'
    try:
        if path.is_dir() and huggingface.matches(path):
            return 'transformers', _run_transformers(path, clip)
        if path.suffix == '.safetensors':
            with contextlib.suppress(UserError):  # another program wrote the file
                return 'PyTorch', _run_torch(path, clip)
    except ImportError as error:
        framework = f'JAX (and not in its own framework: {error})'
    return framework, _run(*create_weights_model(read_weights(path, **how)), clip)


def _run(model, variables: dict, clip: Clip) -> np.ndarray:
    apply = jax.jit(model.clone(spec=dataclasses.replace(model.spec, dtype='float32')).apply)
    with jax.default_matmul_precision('highest'):
        result = apply(variables, clip)
    return _flat(result.features, result.logits)


def _run_torch(path: Path, clip: Clip) -> np.ndarray:
    import torch

    from vivit_jax.torch.model_files import load_model

    model, _ = load_model(path)
    with torch.inference_mode():
        result = model(jax.tree.map(torch.from_numpy, clip))
    return _flat(result.features, result.logits)


def _run_transformers(folder: Path, clip: np.ndarray) -> np.ndarray:
    import torch
    from transformers import VivitForVideoClassification

    model = VivitForVideoClassification.from_pretrained(folder).eval()
    with torch.inference_mode():
        hidden = model.vivit(torch.from_numpy(clip).permute(0, 1, 4, 2, 3)).last_hidden_state
        return _flat(hidden[:, 0], model.classifier(hidden[:, 0]))


def _flat(features, logits) -> np.ndarray:
    by_name = sorted(by_head(logits).items())  # JAX sorts what it returns
    return np.concatenate([np.ravel(x) for x in (features, *(logits for _, logits in by_name))])
