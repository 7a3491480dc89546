"""The test of a trained model."""

import logging
import math
from pathlib import Path

import jax
from ml_collections import ConfigDict

from vivit_jax.annotations.validation_split import check_drawn_lists
from vivit_jax.batches.load_dataset import load_dataset
from vivit_jax.config import load
from vivit_jax.errors import UserError, list_some
from vivit_jax.evaluation.evaluator import Evaluator
from vivit_jax.evaluation.forward import create_forward
from vivit_jax.evaluation.results import (
    check_results_folder,
    describe_results,
    find_saved_metrics,
    hash_videos,
    save_results,
)
from vivit_jax.evaluation.views import check_merge, parse_views
from vivit_jax.model_card import ModelCard
from vivit_jax.parallel.mesh import create_mesh, fit_dtype, platform_of
from vivit_jax.parallel.rules import split_arrays
from vivit_jax.parallel.to_device import put_whole
from vivit_jax.weights.init_from import find_untrained_heads
from vivit_jax.weights.load import create_weights_model, read_weights

_log = logging.getLogger(__name__)

_MOST_CLASSES = 20  # whose average precision the log has


def evaluate_checkpoint(
    config: ConfigDict, workdir: Path, checkpoint: Path, takes_saved: bool = False
) -> tuple[str, dict[str, float]]:
    """Tests a checkpoint on `eval.views` views of the test split, or else of val.

    The checkpoint says how clips are made; the config's preprocessing is ignored. Prints the result
    with its protocol and saves it with all logits in `evaluation/` of the run folder.

    Args:
        config: the sections `data`, `eval` and `parallel` are used.
        workdir: the run folder.
        checkpoint: whatever `read_weights` reads.
        takes_saved: whether to take the result from `evaluation/` if it is already there: of the
            same step, views and videos.

    Returns:
        The split that was tested, and the metrics, accuracies as fractions.

    Raises:
        UserError: something does not fit, or the results cannot be written.
    """
    load.check_ranges(config)
    check_merge(config.eval.merge)
    views, is_new_run = parse_views(config.eval.views), not workdir.exists()
    folder = workdir / 'evaluation'
    mesh = create_mesh(load.mesh_sizes(config))
    weights = read_weights(checkpoint)
    model, variables = create_weights_model(weights)
    model = fit_dtype(model, platform_of(mesh))
    spec, label_names = weights.card.preprocessing, weights.card.label_names
    try:
        spec = spec.with_units(config.eval.num_units)
    except ValueError as error:
        raise UserError(f'eval.num_units={config.eval.num_units}: {error}') from error
    untrained = find_untrained_heads(variables['params'])
    if untrained and not config.eval.allow_untrained_head:
        raise UserError(
            f'{checkpoint} has a classifier that was never trained ({", ".join(untrained)}): all '
            'its weights are zero, and every video would get the same answer. Go on with its '
            'training (--resume), fine-tune it (--config.init_from), or give '
            '--config.eval.allow_untrained_head=True'
        )
    _check_labels(config, weights.card, checkpoint)
    videos = load_dataset(
        config.data,
        seed=config.seed,
        label_names=label_names,
        splits=('val', 'test'),
        modality=model.spec.modality,
        stretch_depth=spec.stretch_depth,
    )
    for path in (workdir, checkpoint, *checkpoint.parents[:2]):  # RUN/checkpoints/60 and RUN/best
        check_drawn_lists(path, videos, config.data.label_columns)
    split = 'test' if 'test' in videos.splits else 'val'
    source = videos.splits[split]
    units = f' of {spec.num_units} units' if model.spec.takes_units else ''
    protocol = f'{config.eval.views} views{units} (temporal x spatial), mean of {config.eval.merge}'
    step = checkpoint.stem if weights.step is None else f'step {weights.step}'
    name, whole = step.replace(' ', ''), checkpoint.resolve()
    if weights.step is not None and workdir.resolve() not in (whole, *whole.parents):
        name = '_'.join([*whole.parts[-2:], name])  # of another run
    test = {
        'split': split,
        'views': config.eval.views,
        'step': weights.step,
        'protocol': protocol,
        'videos': len(source),
        'videos_sha256': hash_videos(source),
    }
    if takes_saved and (saved := find_saved_metrics(folder, name, test)):
        _log.info('%s: tested before (%s, %s); --mode=evaluate tests again', step, split, protocol)
        return split, saved
    if jax.process_index() == 0:
        check_results_folder(folder, is_new_run)
    variables = put_whole(variables, split_arrays(variables, mesh))
    evaluator = Evaluator(
        create_forward(model, spec), mesh, spec, config.eval.batch_size, load.workers(config)
    )
    results = evaluator(variables, source, views)
    metrics = results.metrics(config.eval.merge)
    _log.info('%s: %s', step, describe_results(results, split, protocol, metrics))
    of_classes = {}
    if results.is_multi_label:
        found = results.average_precisions(config.eval.merge).tolist()
        of_classes = {
            name: None if math.isnan(x) else x for name, x in zip(label_names, found, strict=True)
        }
        _log.info('Average precision, in percent: %s', _describe_precisions(of_classes))
    if jax.process_index() == 0:
        summary = {
            **test,
            'checkpoint': str(checkpoint),
            **({'average_precision': of_classes} if of_classes else {}),
            **{f'{split}/{key}@{config.eval.views}': x for key, x in metrics.items()},
        }
        path = save_results(folder, name, results, source, label_names, summary)
        _log.info('Logits of every view: %s', path)
    return split, metrics


def _check_labels(config: ConfigDict, card: ModelCard, checkpoint: Path):
    if card.is_multi_label and not config.data.label_separator:
        raise UserError(
            f'{checkpoint} was trained on videos with any number of labels: set '
            "data.label_separator, such as --config.data.label_separator=';'"
        )
    if config.data.label_separator and not card.is_multi_label:
        raise UserError(
            f'data.label_separator={config.data.label_separator!r} gives videos any number of '
            f'labels, but {checkpoint} chooses one class for each video: leave the key out'
        )


def _describe_precisions(of_classes: dict[str, float | None]) -> str:
    """The classes with the lowest precisions first; those without videos last."""
    known = {name: x for name, x in of_classes.items() if x is not None}
    texts = [f'{name} {100 * known[name]:.2f}' for name in sorted(known, key=known.get)]
    without = [name for name in of_classes if name not in known]
    left_out = f'; no video of the split has {list_some(without)}' if without else ''
    return list_some(texts, _MOST_CLASSES) + left_out
