"""What the recipe 'finetune' takes from weights, and chooses by the number of training videos."""

import dataclasses
from collections.abc import Iterator, Mapping

from ml_collections import ConfigDict

from vivit_jax.config.choices import CHOICES, CLIPS, FEW, FEWEST_EPOCHS, MOST_EPOCHS, SOME
from vivit_jax.config.show import count_training_videos
from vivit_jax.errors import UserError
from vivit_jax.heads import LabelNames
from vivit_jax.models.registry import MODELS
from vivit_jax.models.vivit.specification import ViViT
from vivit_jax.video.preprocessing import Preprocessing
from vivit_jax.weights.image_clips import clips_of_image_vit
from vivit_jax.weights.load import read_weights
from vivit_jax.weights.weights import Weights

_TUBELET = 2  # frames of a tubelet of an image ViT, if the config says nothing else
_ALL_BUT_HEAD = ('^(?!output_projection|attention_pool)',)


def create_recipe(config: ConfigDict) -> 'Recipe | None':
    """The recipe that a config names, if it names one.

    Raises:
        UserError: there is no such recipe.
    """
    if config.recipe not in ('', 'finetune'):
        raise UserError(f"recipe={config.recipe!r} must be 'finetune' or ''")
    return Recipe(config) if config.recipe else None


def complete(config: ConfigDict, num_videos: int | None = None) -> list[str]:
    """Completes a config by its recipe, if it has one, without a look at videos.

    Args:
        config: is changed.
        num_videos: number of training videos; by default from the list or the catalog.

    Returns:
        Lines about the recipe's choices.

    Raises:
        UserError: see `Recipe`; the number of training videos is unknown.
    """
    recipe = create_recipe(config)
    if recipe is None:
        return []
    recipe.complete_model()
    found = 'from --num_videos'
    if num_videos is None:
        num_videos, found = count_training_videos(config)
    if num_videos is None:
        raise UserError(f'recipe={config.recipe!r} needs the number of training videos: {found}')
    has_val = bool(config.data.val_csv or config.data.val_fraction != 0)
    return [
        f'Settings for {num_videos} training videos ({found}):',
        *(f'  {line}' for line in recipe.complete_settings(num_videos, has_val, None)),
    ]


class Recipe:
    """Sets those keys of a config that are None. It changes no others but `recipe`.

    Args:
        config: is changed by the methods, which must be called in their order.
    """

    def __init__(self, config: ConfigDict):
        self._config = config
        self._knows = None  # the classes of the weights

    def complete_model(self):
        """Completes the sections `model` and `preprocessing` from the weights in `init_from`.

        An image ViT becomes the model that the config names; a model for videos stays what it is.
        A validation split is drawn from a list of training videos, if there is no other.

        Raises:
            UserError: there are no weights and no model, or the weights are of another model.
        """
        config = self._config
        data = config.data
        if data.source == 'csv' and data.train_csv and not data.val_csv:
            _fill(data, {'val_fraction': 0.2})
        if not config.init_from:
            described = {name for name, value in config.model.items() if value is not None}
            if described <= {'name', 'num_classes', 'modality'}:
                raise UserError(
                    "recipe='finetune' starts from weights: give --config.init_from with an image "
                    'ViT or a run folder. configs/custom.py trains from scratch'
                )
            _fill(config.preprocessing, dataclasses.asdict(Preprocessing()))
            return
        weights = read_weights(config.init_from)
        if weights.has_head:
            self._knows = weights.card.label_names
        keywords, spec = self._fit(weights)
        _fill(config.model, keywords)
        crop_size = config.preprocessing.crop_size or spec.crop_size
        short_side = round(spec.short_side * crop_size / spec.crop_size)
        _fill(config.preprocessing, {**dataclasses.asdict(spec), 'short_side': short_side})

    def _fit(self, weights: Weights) -> tuple[dict[str, object], Preprocessing]:
        """Keywords of the model that starts from weights, and its clips."""
        config, card = self._config, weights.card
        name, source = config.model.name, card.model['name']
        vivits = [name for name, kind in MODELS.items() if issubclass(kind, ViViT)]
        if not weights.is_image_model and source == name:
            keywords, spec = dict(card.model), card.preprocessing
        elif not weights.is_image_model:
            raise UserError(
                f'init_from={config.init_from} is a {source}, and the config is for {name}: give '
                f'--config=configs/finetune.py:{source}'
            )
        elif source == 'vivit_joint' and name in vivits:
            size = config.preprocessing
            keywords, spec = clips_of_image_vit(card, size.num_frames, size.crop_size)
            keywords['tubelet_size'] = (_TUBELET, *keywords['tubelet_size'][1:])
        else:
            raise UserError(
                f'init_from={config.init_from} is a {source} for images, of which the recipe makes '
                f'no {name}: it makes {", ".join(vivits)} of ViTs for images. Without a recipe, a '
                'config may say itself what the model is'
            )
        return {x: keywords[x] for x in keywords if x not in ('name', 'num_classes')}, spec

    def complete_settings(
        self, num_videos: int, has_val: bool, label_names: LabelNames | None
    ) -> Iterator[str]:
        """Completes the sections `init`, `train` and `augment`.

        Args:
            num_videos: of the training split.
            has_val: whether there is a validation split.
            label_names: the classes; None: they are not known.

        Yields:
            A line for each key that was None, with its value and the reason.
        """
        config = self._config
        for key, (value, reason) in self._choices(num_videos, has_val, label_names).items():
            section, name = key.split('.')
            if name in config[section] and config[section][name] is None:
                config[section][name] = value
                yield f'{key}={value}: {reason}'
        config.recipe = ''  # a run that goes on needs neither the recipe nor the weights

    def _choices(
        self, num_videos: int, has_val: bool, label_names: LabelNames | None
    ) -> dict[str, tuple[object, str]]:
        config, column = self._config, (num_videos >= FEW) + (num_videos >= SOME)
        values = {key: (choice[column], choice.reason) for key, choice in CHOICES.items()}
        if config.train.num_steps is None:
            epochs = min(MOST_EPOCHS, max(FEWEST_EPOCHS, round(CLIPS / num_videos)))
            values['train.num_epochs'] = float(epochs), f'{epochs * num_videos:,} clips'
        metric = 'map' if config.data.label_separator else 'acc1'
        values['train.early_stop_metric'] = metric, 'what chooses the best checkpoint'
        if not has_val:
            values['train.early_stop_validations'] = 0, 'there is no validation split'
        if self._knows and self._knows == label_names:
            values['init.reinit'] = (), 'the weights know these classes'
            values['train.hold_fraction'] = 0.0, 'the classifier is trained already'
            rate = values['train.learning_rate'][0] / 4
            values['train.learning_rate'] = rate, 'small, as the classifier is trained already'
        else:
            reason = 'the weights do not know these classes'
            if label_names is None and self._knows:
                reason = 'unless the weights know the classes, which only the training compares'
            values['init.reinit'] = ('head',), reason
        if not config.init_from:
            values['train.hold_fraction'] = 0.0, 'there are no weights that could be spoilt'
        hold = config.train.hold_fraction
        if (values['train.hold_fraction'][0] if hold is None else hold) > 0:
            values['train.hold'] = _ALL_BUT_HEAD, 'trains the classifier first'
        else:
            values['train.hold'] = (), 'nothing is held'
        return values


def _fill(section: ConfigDict, values: Mapping[str, object]):
    """Sets the keys of a section that are None."""
    for name, value in values.items():
        if section[name] is None:
            section[name] = value
