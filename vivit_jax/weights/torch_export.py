"""Writes parameters under the names of `vivit_jax.torch`, and reads such files."""

from collections.abc import Mapping
from pathlib import Path

from vivit_jax.layers.specification import Specification
from vivit_jax.model_card import ModelCard
from vivit_jax.models.registry import specify
from vivit_jax.weights.metadata import PYTORCH, card_to_metadata, has_card, metadata_to_card
from vivit_jax.weights.tensor_files import Tensors, save_tensors
from vivit_jax.weights.torch_layout import (
    INTO_HEADS,
    KINDS,
    LINEAR,
    NORM,
    SAME,
    Rules,
    from_torch,
    module_rules,
    to_torch,
)
from vivit_jax.weights.weights import Weights, clip_grid

# A tensor of this name means that `vivit_jax.torch` wrote the file, even if metadata are missing.
_SIGN = 'tokenizer.projection.weight'


def _encoder(ours: str, theirs: str) -> Rules:
    """Rules of an encoder. A block's only attention is called `_0`; two are `_space`, `_time`."""
    block, attention = rf'{ours}/encoderblock_(?P<block>\d+)', 'MultiHeadDotProductAttention'
    their_block = rf'{theirs}.blocks.\g<block>'
    heads, axis = '(?P<heads>query|key|value)', '(?P<axis>space|time)'
    their_attention = rf'{their_block}.\g<axis>_attention'
    return (
        (f'{ours}/posembed_input/pos_embedding', f'{theirs}.position.table', SAME),
        *module_rules(
            (f'{block}/LayerNorm_0', f'{their_block}.attention_norm', NORM),
            (f'{block}/LayerNorm_{axis}', f'{their_attention}_norm', NORM),
            (
                f'{block}/{attention}_0/{heads}',
                rf'{their_block}.attention.\g<heads>',
                INTO_HEADS,
            ),
            (f'{block}/{attention}_0/out', f'{their_block}.attention.out', LINEAR),
            (
                f'{block}/{attention}_{axis}/{heads}',
                rf'{their_attention}.\g<heads>',
                INTO_HEADS,
            ),
            (f'{block}/{attention}_{axis}/out', rf'{their_attention}.out', LINEAR),
            (f'{block}/LayerNorm_(?:1|mlp)', f'{their_block}.mlp_norm', NORM),
            (f'{block}/MlpBlock(?:_0)?/Dense_0', f'{their_block}.mlp.fc1', LINEAR),
            (f'{block}/MlpBlock(?:_0)?/Dense_1', f'{their_block}.mlp.fc2', LINEAR),
            (f'{ours}/pre_norm', f'{theirs}.pre_norm', NORM),
            (f'{ours}/encoder_norm', f'{theirs}.norm', NORM),
        ),
    )


def rules_of(spec: Specification) -> Rules:
    """The rules between JAX and PyTorch names for all parameters of a model."""
    rules = _SHARED
    for ours, theirs, kind in reversed(spec.TORCH_NAMES):
        is_encoder = kind == 'encoder'
        own = _encoder(ours, theirs) if is_encoder else module_rules((ours, theirs, KINDS[kind]))
        rules = (*own, *rules)
    if spec.modality != 'rgbd':
        return rules
    return tuple(
        (f'{name}/(?:{ours})', f'{name}.{theirs}', transform)
        for name in spec.streams
        for ours, theirs, transform in rules
    )


_SHARED: Rules = (
    *module_rules(('embedding', 'tokenizer.projection', LINEAR)),
    ('cls', 'encoder.class_token', SAME),
    ('cls_SpatialTransformer', 'spatial_encoder.class_token', SAME),
    ('cls_TemporalTransformer', 'temporal_encoder.class_token', SAME),
    *_encoder('Transformer', 'encoder'),
    *_encoder('SpatialTransformer', 'spatial_encoder'),
    *_encoder('TemporalTransformer', 'temporal_encoder'),
    *((f'attention_pool/{x}', f'attention_pool.{x}', SAME) for x in ('queries', 'time_bias')),
    *module_rules(('attention_pool/value', 'attention_pool.value', INTO_HEADS)),
    *module_rules(('output_projection(_.+)?', r'head\1', LINEAR)),
)


def export_torch(card: ModelCard, params: Mapping, path: Path, batch_stats: Mapping = {}):
    """Writes variables as a `.safetensors` for `vivit_jax.torch.load_model`; needs no PyTorch.

    Raises:
        UserError: some parameters have no name in PyTorch, or the file cannot be written.
    """
    arrays = to_torch(params, rules_of(specify(**card.model)), batch_stats)
    del params  # frees, array by array, what only the caller's call holds
    save_tensors(path, arrays, card_to_metadata(card, clip_grid(card), PYTORCH))


def matches(tensors: Tensors) -> bool:
    """Whether the tensors belong to a model of `vivit_jax.torch`."""
    return has_card(tensors.metadata, PYTORCH) or _SIGN in tensors


def read_torch(tensors: Tensors, path: Path) -> Weights:
    """Reads a file that `export_torch` or `vivit_jax.torch.save_model` wrote.

    Args:
        tensors: the tensors of the file.
        path: the path of the file, for messages.

    Raises:
        UserError: the file does not tell its model, or tensors are missing, unknown or of the wrong
            shape; the message lists all of them.
    """
    card = metadata_to_card(tensors.metadata, path, len(tensors))
    variables = from_torch(tensors, card, rules_of, path)
    return Weights('vivit_jax PyTorch export', card, grid=clip_grid(card), **variables)
