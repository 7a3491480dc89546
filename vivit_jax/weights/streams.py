"""Weights of models that see RGB, depth or both: each stream of a model starts by itself."""

import dataclasses

import flax.linen as nn

from vivit_jax.costs import PLAIN_FORM
from vivit_jax.errors import UserError
from vivit_jax.heads import LabelNames, by_head
from vivit_jax.layers.specification import Specification
from vivit_jax.model_card import ModelCard
from vivit_jax.models.registry import find_implementation, specify
from vivit_jax.video.preprocessing import Preprocessing
from vivit_jax.weights.batch_statistics import fit_statistics
from vivit_jax.weights.classes import match_classes
from vivit_jax.weights.init_from import init_from
from vivit_jax.weights.report import Report
from vivit_jax.weights.weights import Weights


def start_variables(
    model: nn.Module,
    fresh: dict,
    weights: Weights,
    depth_weights: Weights | None = None,
    *,
    label_names: LabelNames | None = None,
    **choices,
) -> tuple[dict, Report]:
    """Puts weights into a model of RGB, of depth or of both.

    Args:
        model: the model.
        fresh: its freshly initialized `params` and `batch_stats`, see `init_from`.
        weights: of any modality. Both streams of a `Fusion` start from them, or each from its own
            stream if these are weights of a `Fusion`.
        depth_weights: the weights that the depth stream of a `Fusion` starts from instead.
        label_names: the classes of the model, see `match_classes`; None: those of the weights.
        **choices: see `init_from`.

    Returns:
        The variables; and a report of what became of each parameter, whose names in a `Fusion`
        begin with `rgb/` or `depth/`.

    Raises:
        UserError: the weights do not fit.
    """
    if model.spec.modality != 'rgbd':
        source = _take_stream(weights, model.spec.modality)
        if label_names is not None:
            source = match_classes(source, label_names)
        params, report = init_from(model, fresh['params'], source, **choices)
        statistics = fit_statistics(fresh['batch_stats'], source.batch_stats)
        return {'params': params, 'batch_stats': statistics}, report
    sources = {'rgb': weights, 'depth': depth_weights or weights}
    variables, entries = {kind: {} for kind in fresh}, []
    for name, stream in model.spec.streams.items():
        try:
            started, report = start_variables(
                find_implementation(stream, 'model')(stream),
                {kind: tree.get(name, {}) for kind, tree in fresh.items()},
                sources[name],
                label_names=label_names,
                **choices,
            )
        except UserError as error:
            raise UserError(f'{name}: {error}') from error
        entries += [dataclasses.replace(x, name=f'{name}/{x.name}') for x in report.entries]
        for kind, tree in started.items():
            variables[kind] |= {name: tree} if tree else {}
    return variables, Report(tuple(entries))


def _take_stream(weights: Weights, name: str) -> Weights:
    """One of the two streams of a `Fusion`; other weights as they are."""
    if weights.card.model.get('modality') != 'rgbd':
        return weights
    card = dataclasses.replace(weights.card, model={**weights.card.model, 'modality': name})
    batch_stats = weights.batch_stats.get(name, {})
    return dataclasses.replace(
        weights, card=card, params=weights.params[name], batch_stats=batch_stats
    )


def fuse_weights(rgb: Weights, depth: Weights) -> Weights:
    """The weights of a `Fusion` of two trained models, one of RGB and the other of depth.

    What concerns depth alone (keywords and preprocessing with that word) comes from the second.

    Raises:
        UserError: the models, their classes or their preprocessing differ; the message names every
            difference.
    """
    specs = [specify(**weights.card.model) for weights in (rgb, depth)]
    for spec, modality in zip(specs, ('rgb', 'depth'), strict=True):
        if spec.modality != modality:
            raise UserError(
                f'a model for {modality} is needed, and the weights are of a model for '
                f'{spec.modality}: --source takes the model for rgb, --depth the one for depth'
            )
    own = {key: getattr(specs[1], key) for key in specs[1].defaults() if _is_of_depth(key)}
    preprocessing = {
        field.name: getattr(depth.card.preprocessing, field.name)
        for field in dataclasses.fields(Preprocessing)
        if _is_of_depth(field.name)
    }
    card = ModelCard(
        {**rgb.card.model, **own, **_fusion(rgb.card), 'modality': 'rgbd'},
        dataclasses.replace(rgb.card.preprocessing, **preprocessing),
        rgb.card.label_names,
        rgb.card.typical_sec,
        rgb.card.is_multi_label,
    )
    differences = [
        *_model_differences(*specs),
        *_preprocessing_differences(rgb.card.preprocessing, depth.card.preprocessing),
        *_class_differences(rgb.card.label_names, depth.card.label_names),
        *_differences('card', rgb.card, depth.card, ['is_multi_label']),
    ]
    if differences:
        raise UserError('\n  '.join(['the models for RGB and depth differ:', *differences]))
    statistics = {'rgb': rgb.batch_stats, 'depth': depth.batch_stats}
    return Weights(
        f'{rgb.kind} of RGB, {depth.kind} of depth',
        card,
        {'rgb': rgb.params, 'depth': depth.params},
        rgb.grid,
        (*rgb.unused, *depth.unused),
        rgb.has_head and depth.has_head,
        batch_stats={name: tree for name, tree in statistics.items() if tree},
        notes=(*rgb.notes, *depth.notes),
    )


def _fusion(card: ModelCard) -> dict[str, str]:
    """Classes that do not exclude each other have no softmax that could be averaged."""
    return {'fusion': 'logit_mean'} if card.is_multi_label else {}


def _is_of_depth(key: str) -> bool:
    return key.startswith('depth_') or key.endswith('_depth')


def _model_differences(rgb: Specification, depth: Specification) -> list[str]:
    """Differences that change the function of a model.

    Rates act in training alone, and the keywords of `PLAIN_FORM` say how JAX computes.
    """
    if type(rgb) is not type(depth):
        return [f'model: {type(rgb).__name__} of RGB, {type(depth).__name__} of depth']
    keys = [
        key
        for key in rgb.defaults()
        if key not in ('modality', 'num_classes', *PLAIN_FORM)
        and not (_is_of_depth(key) or key.endswith(('_rgb', '_rate')))
    ]
    return _differences('model', rgb, depth, keys)


def _preprocessing_differences(rgb: Preprocessing, depth: Preprocessing) -> list[str]:
    names = [field.name for field in dataclasses.fields(Preprocessing)]
    keys = [name for name in names if not _is_of_depth(name) and name != 'color_order']
    return _differences('preprocessing', rgb, depth, keys)


def _differences(section: str, rgb: object, depth: object, keys: list[str]) -> list[str]:
    return [
        f'{section}.{key}: {getattr(rgb, key)!r} of RGB, {getattr(depth, key)!r} of depth'
        for key in keys
        if getattr(rgb, key) != getattr(depth, key)
    ]


def _class_differences(rgb: LabelNames, depth: LabelNames) -> list[str]:
    rgb, depth = by_head(rgb), by_head(depth)
    if rgb.keys() != depth.keys():
        return [f'heads: {list(rgb)} of RGB, {list(depth)} of depth']
    lines = []
    for head in rgb:
        title = f'classes of {head}' if head else 'classes'
        if len(rgb[head]) != len(depth[head]):
            lines.append(f'{title}: {len(rgb[head])} of RGB, {len(depth[head])} of depth')
            continue
        pairs = zip(rgb[head], depth[head], strict=True)
        for number, (first, second) in enumerate(pairs):
            if first != second:
                lines.append(f'{title}: class {number} is {first!r} of RGB, {second!r} of depth')
                break
    return lines
