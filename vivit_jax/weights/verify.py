"""Whether source and output of a conversion compute the same."""

import math
from pathlib import Path

import jax
import numpy as np

from vivit_jax.errors import UserError
from vivit_jax.heads import by_head
from vivit_jax.model_card import ModelCard
from vivit_jax.models.registry import create_model
from vivit_jax.weights import huggingface
from vivit_jax.weights.load import load_checkpoint
from vivit_jax.weights.source import Weights

_TOLERANCE = 1e-4  # float32 through dozens of layers, summed in another order


def verify(source: Path, weights: Weights, card: ModelCard, params: dict, output: Path) -> int:
    """Runs source, converted weights and output on a random clip and prints how they differ.

    Source and output run in the framework that they are for, if it is installed. A source that was
    put into another model is not run.

    Returns:
        0, or 1 where they differ by more than 1e-4 of the norm of features and logits.
    """
    rng = np.random.default_rng(0)
    clip = rng.uniform(-1, 1, (1, *card.preprocessing.clip_shape, 3)).astype(np.float32)
    ours = _run(create_model(**card.model), {'params': params}, clip)
    sides = {'output': output}
    if card == weights.card and weights.has_head:
        sides = {'source': source, **sides}
    worst = 0.0
    for side, path in sides.items():
        framework, theirs = _run_path(path, clip)
        relative = np.linalg.norm(theirs - ours) / np.linalg.norm(ours)
        worst = max(worst, relative) if math.isfinite(relative) else math.inf
        print(
            f'Verified: {side} in {framework} against the converted weights, features and logits '
            f'of a random clip: largest difference {np.abs(theirs - ours).max():.2e} at values up '
            f'to {np.abs(ours).max():.3g}, relative {relative:.2e}'
        )
    if worst > _TOLERANCE:
        print(f'Error: they should differ by at most {_TOLERANCE} (relative)')
        return 1
    return 0


def _run_path(path: Path, clip: np.ndarray) -> tuple[str, np.ndarray]:
    if path.is_dir() and huggingface.matches(path):
        try:
            return 'transformers', _run_transformers(path, clip)
        except ImportError:
            pass
    elif path.suffix == '.safetensors':
        try:
            return 'PyTorch', _run_torch(path, clip)
        except (ImportError, UserError):
            pass  # no PyTorch, or not of this package
    model, variables, *_ = load_checkpoint(path)
    return 'JAX', _run(model, variables, clip)


def _run(model, variables: dict, clip: np.ndarray) -> np.ndarray:
    with jax.default_matmul_precision('highest'):
        result = jax.jit(model.apply)(variables, clip)
    return _flat(result.features, result.logits)


def _run_torch(path: Path, clip: np.ndarray) -> np.ndarray:
    import torch

    from vivit_jax.torch import load_model

    model, _ = load_model(path)
    with torch.inference_mode():
        result = model(torch.from_numpy(clip))
    return _flat(result.features, result.logits)


def _run_transformers(folder: Path, clip: np.ndarray) -> np.ndarray:
    import torch
    from transformers import VivitForVideoClassification

    model = VivitForVideoClassification.from_pretrained(folder).eval()
    with torch.inference_mode():
        hidden = model.vivit(torch.from_numpy(clip).permute(0, 1, 4, 2, 3)).last_hidden_state
        return _flat(hidden[:, 0], model.classifier(hidden[:, 0]))


def _flat(features, logits) -> np.ndarray:
    return np.concatenate([np.ravel(x) for x in (features, *by_head(logits).values())])
