"""A model of a frozen backbone and a head that was trained on its features."""

import dataclasses
from collections.abc import Mapping

from vivit_jax.features.backbone import Backbone
from vivit_jax.heads import LabelNames
from vivit_jax.model_card import ModelCard
from vivit_jax.probe.search import Head


def add_head(
    backbone: Backbone,
    head: Head,
    label_names: LabelNames,
    typical_sec: float | None,
    is_multi_label: bool,
) -> tuple[ModelCard, dict, Mapping]:
    """Joins a backbone and a head.

    Args:
        backbone: the frozen model.
        head: trained on its features.
        label_names: the classes.
        typical_sec, is_multi_label: see `ModelCard`.

    Returns:
        The card, the parameters and the running statistics of a model whose logits for a clip are
        those of the head for the features of the clip.
    """
    keywords = {**backbone.card.model, 'num_classes': len(label_names)}
    if head.pool == 'attention':
        has_class_token = backbone.model.spec.has_class_token
        keywords['pool'] = 'cls_attention' if has_class_token else 'attention'
        keywords.pop('frame_pool', None)
    elif backbone.is_of_frames:
        keywords['frame_pool'] = head.pool
    params = {
        name: value
        for name, value in backbone.variables['params'].items()
        if not name.startswith('output_projection')
    }
    if head.depth:
        keywords['num_layers'] = head.depth
        blocks = {f'encoderblock_{k}' for k in range(head.depth, backbone.model.spec.num_layers)}
        encoder = params['SpatialTransformer']
        params['SpatialTransformer'] = {x: encoder[x] for x in encoder if x not in blocks}
    card = dataclasses.replace(
        backbone.card,
        model=keywords,
        label_names=label_names,
        typical_sec=typical_sec,
        is_multi_label=is_multi_label,
    )
    return card, {**params, **head.params}, backbone.variables.get('batch_stats', {})
