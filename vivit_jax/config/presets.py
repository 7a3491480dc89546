"""Pieces that configs share."""

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder

from vivit_jax.annotations.catalog import find_dataset
from vivit_jax.config.schema import default_config
from vivit_jax.models.registry import MODELS, model_keywords
from vivit_jax.video.synthetic import DEPTH_RANGE


def check_argument(arg: str, *known: str):
    """Raises a ValueError unless `arg`, from `--config=FILE:arg`, is empty or known."""
    if arg and arg not in known:
        raise ValueError(f'unknown argument {arg!r} after the colon; known: {", ".join(known)}')


def small(model: str, **sizes) -> ConfigDict:
    """A model of four blocks that a CPU trains from scratch; `sizes` are for transformers alone."""
    config = default_config(model)
    config.model.update(_known(model, num_heads=4, num_layers=4, **sizes))
    config.model.update(MODELS[model].SMALL)
    return config


def unset(config: ConfigDict, *keys: str):
    """Makes keys None that a recipe is to set; the command line may give them a value."""
    for key in keys:
        section, name = key.split('.')
        config[section][name] = placeholder(config[section].get_type(name))


def _known(model: str, **sizes) -> dict[str, object]:
    """The sizes that are keywords of a model."""
    known = model_keywords(model)
    return {keyword: value for keyword, value in sizes.items() if keyword in known}


def published(model: str, dataset: str, num_epochs: float) -> ConfigDict:
    """The recipe that published trainings share, which is ViViT's: a warm-up of 2.5 epochs.

    Clips, heads, views and mirroring follow the catalog.

    Source: ViViT (arXiv 2103.15691), table 7 in the appendix, and the public configurations.
    """
    known = find_dataset(dataset)
    config = default_config(model)
    config.model.dtype = 'bfloat16'
    config.init.reinit = ('head',)
    config.preprocessing.update(known.sampling)
    config.data.update(source=dataset, label_columns=known.label_columns, num_workers=16)
    config.augment.update(flip=0.5 if known.flip else 0.0, flip_swaps=known.flip_swaps)
    config.train.update(
        num_epochs=num_epochs,
        warmup_fraction=2.5 / num_epochs,
        optimizer='sgd',
        momentum=0.9,
        clip_norm=1.0,
        checkpoint_every_epochs=1.0,
    )
    config.eval.update(every_epochs=1.0, batch_size=64, views=known.views)
    return config


def published_vivit(model: str, size: str, dataset: str, num_epochs: float) -> ConfigDict:
    """The recipe that ViViT's own trainings share."""
    config = published(model, dataset, num_epochs)
    config.model.size = size
    config.augment.update(scale_jitter=(0.9, 1.33), randaugment_geometry=False)
    config.train.batch_size = 64
    return config


def published_convivit(dataset: str) -> ConfigDict:
    """ConViViT's trainings; only the loss is published, the rest is ViViT's recipe."""
    config = published('convivit', dataset, num_epochs=50.0)
    config.preprocessing.update(num_frames=16, sampling='segments', short_side=256, crop_size=224)
    config.augment.update(scale_jitter=(0.9, 1.33), color_jitter=0.8, color_drop=0.1)
    config.train.update(batch_size=16, learning_rate=0.05)
    config.eval.views = '1x1'
    return config


def published_rpe_stdt(dataset: str) -> ConfigDict:
    """RPE-STDT's trainings; batch, learning rate and warm-up are CTN's, clipping is ViViT's."""
    config = published('rpe_stdt', dataset, num_epochs=100.0)
    config.preprocessing.update(
        num_frames=16,
        sampling='strided',
        frame_stride=32,
        short_video='smaller_stride',
        short_side=256,
        crop_size=224,
    )
    config.augment.scale_jitter = (1.0, 1.25)
    config.train.update(batch_size=16, learning_rate=0.005)
    config.eval.views = '1x1'
    return config


def published_ctn(dataset: str) -> ConfigDict:
    """CTN's trainings; sampling and views are not published, clipping is ViViT's."""
    config = published('ctn', dataset, num_epochs=100.0)
    config.preprocessing.update(num_frames=8, sampling='segments', short_side=256, crop_size=224)
    config.augment.color_jitter = 0.8
    config.train.update(batch_size=16, learning_rate=0.005)
    config.eval.views = '1x1'
    return config


def published_mfst(dataset: str) -> ConfigDict:
    """MFST's trainings, from scratch; details follow De+Recouple (arXiv 2112.09129)."""
    config = published('mfst', dataset, num_epochs=100.0)
    config.model.num_stages = 4
    config.augment.mixup_alpha = 0.2
    config.train.update(
        batch_size=16,
        learning_rate=0.01,
        warmup_fraction=3 / 100,
        weight_decay=3e-4,
        label_smoothing=0.1,
        clip_norm=5.0,
    )
    config.eval.views = '1x1'
    return config


def published_f4d(model: str, dataset: str, num_epochs: float, *decays: int) -> ConfigDict:
    """The recipe of F4D and V4D; the learning rate is a tenth from each of the epochs `decays` on.

    Frames are resized to 224 pixels and not to 256, of which the papers cut and resize squares.
    Weight decay and clipping are from V4D's public code.

    Source: F4D (Al-Saad et al. 2024), section 4; V4D (arXiv 2002.07442), section 4.
    """
    config = published(model, dataset, num_epochs)
    config.model.pixel_mean = (0.485, 0.456, 0.406)  # of ImageNet, as in weights of ResNets
    config.init.tubelet = 'filter_inflation'
    config.preprocessing.update(
        num_frames=8,
        frame_stride=4,
        sampling='units',
        num_units=4,
        short_side=224,
        crop_size=224,
        value_range=(0.0, 1.0),
    )
    config.augment.scale_jitter = (1.0, 1.5)
    config.train.update(
        batch_size=128,
        learning_rate=0.01,
        warmup_fraction=None,
        warmup_steps=0,
        decay_epochs=decays,
        weight_decay=5e-4,
        clip_norm=20.0,
    )
    config.eval.update(views='1x3', num_units=10)
    return config


def runlocal(config: ConfigDict) -> ConfigDict:
    """Shrinks any config to about a minute on a laptop, with the embedded data.

    Model class, heads and augmentations stay; sizes, data and steps become small. Mirroring is
    off, because the embedded classes have a left and a right.
    """
    config.init_from = config.init.depth_from = ''
    name = config.model.name
    config.model.update(size=None, num_classes=None)
    config.model.update(_known(name, hidden_size=48, num_layers=2, num_heads=4, mlp_dim=96))
    if 'tubelet_size' in config.model:
        length = min(2, model_keywords(name)['tubelet_size'][0])
        if config.model.get('tokenizer') == 'uniform_frames':
            length = 1
        config.model.tubelet_size = (length, 8, 8)
    for keyword, value in MODELS[name].TINY.items():
        if config.model[keyword] != 0:
            config.model[keyword] = value
    units = config.preprocessing.num_units
    config.preprocessing.update(
        num_frames=max(2, 8 // units), frame_stride=2, short_side=48, crop_size=40
    )
    config.preprocessing.depth_range = DEPTH_RANGE
    config.data.update(source='synthetic', label_map='', num_workers=1)
    config.data.synthetic.update(num_train=64, num_val=16, num_test=16)
    config.augment.flip = 0.0
    config.train.update(batch_size=8, num_epochs=None, num_steps=40)
    config.train.update(warmup_epochs=None, warmup_steps=None, warmup_fraction=1 / 8)
    config.train.update(checkpoint_every_epochs=None, checkpoint_every_steps=20)
    config.eval.update(batch_size=8, every_epochs=None, every_steps=20, views='2x3')
    if units > 1:
        config.eval.update(views='1x3', num_units=3)
    return config
