"""Every config key with its default, meaning and range.

`KEYS` is the only place for most keys. Four sections and the keywords of a model are dataclasses
of the parts that use them: there a key stands once, its meaning under `Attributes`.

A duration is given either in `..._epochs` (of ⌊videos / batch size⌋ steps, fractions allowed) or in
`..._steps` (updates); the other one stays None. The warm-up may also be a part of the training.

`python -m vivit_jax.main --config=FILE --mode=show` prints all keys of a config with their values.
"""

import dataclasses
import functools
import inspect
import math
import operator
import re

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder

from vivit_jax.augment.policy import Augmentation
from vivit_jax.models.registry import MODELS, model_keywords
from vivit_jax.video.limits import Limits
from vivit_jax.video.preprocessing import Preprocessing
from vivit_jax.video.synthetic import SyntheticVideos


@dataclasses.dataclass(frozen=True)
class Key:
    """One key.

    Attributes:
        default: value; or a type, for a key that is None until it is set to a value of that type.
        meaning: in words, with the unit or the choices.
        low: the smallest number allowed.
        high: the largest number allowed.
        may_change: whether a resumed run may have another value, because results do not depend on
            this key.
        may_grow: whether a resumed run may have a larger value, which makes the run longer.
    """

    default: object
    meaning: str
    low: float = -math.inf
    high: float = math.inf
    may_change: bool = False
    may_grow: bool = False

    @property
    def initial(self) -> object:
        """The value in a new config."""
        return None if isinstance(self.default, type) else self.default


def _dataclass_keys(section: str, kind: type, may_change: bool = False) -> dict[str, Key]:
    """Keys of a section that a dataclass defines; the dataclass checks their ranges."""
    meanings = _field_meanings(kind)
    return {
        f'{section}.{field.name}': Key(
            field.default, meanings.get(field.name, ''), may_change=may_change
        )
        for field in dataclasses.fields(kind)
    }


def _field_meanings(kind: type) -> dict[str, str]:
    """The meaning of each field of a dataclass, from the `Attributes` of its docstring."""
    found = {}
    for base in reversed(kind.__mro__):
        _, _, text = inspect.cleandoc(base.__doc__ or '').partition('\nAttributes:\n')
        section = re.split(r'\n+(?=\S)', text)[0]
        for names, meaning in re.findall(r'^ {4}(\w[\w, ]*): (.*(?:\n {8}.*)*)', section, re.M):
            plain = ' '.join(meaning.replace('`', '').split()).rstrip('.')
            found |= dict.fromkeys(names.split(', '), plain)
    return found


KEYS = {
    'seed': Key(0, 'seed of parameters, data order, augmentation and dropout'),
    'recipe': Key(
        '',
        "'finetune': sections model and preprocessing follow init_from, and what is None in train "
        "and augment follows from the number of training videos; '': nothing follows",
    ),
    # Weights to start from.
    'init_from': Key(
        '',
        "weights to start from: a file, folder or name that vivit_jax.convert reads; '': none",
        may_change=True,
    ),
    'init.depth_from': Key(
        '',
        "of modality 'rgbd': weights that the depth stream starts from; '': init_from",
    ),
    'init.reinit': Key((), "('head',): a new classifier; all other weights must be in init_from"),
    'init.tubelet': Key(
        'central_frame',
        "how tubelets start from an image ViT: 'central_frame', 'filter_inflation' or 'random'",
    ),
    'init.temporal_attention': Key(
        'zero',
        "how temporal attention of vivit_fsa starts from an image ViT: 'zero', 'pretrained' or "
        "'fresh'",
    ),
    'init.grid': Key(
        (), '(t, h, w), tokens of the position table of an original ViViT; (): as the table tells'
    ),
    'init.allow_non_finite': Key(False, 'start from weights although they hold NaN or Inf'),
    # How a video becomes a clip.
    **_dataclass_keys('preprocessing', Preprocessing),
    # Videos and labels.
    'data.source': Key(
        'csv',
        "'csv' (your files), 'synthetic' (the embedded videos), 'records' (of vivit_jax.prepare), "
        "'tfrecords' (of the original ViViT) or a dataset in its own layout, such as 'ssv2'",
    ),
    'data.train_csv': Key(
        '',
        'of csv: a file with the header "video_path,label", optionally start_sec and end_sec; of '
        'tfrecords: files, such as /data/train.tfrecord@1024',
    ),
    'data.separator': Key(',', "of csv: the character between columns, such as ';'; or 'tab'"),
    'data.val_fraction': Key(
        float,
        'part of the training videos, less than 1, that is drawn with the seed as the validation '
        'split: of each class, and by whole groups if there is a column group or subject; None: '
        '0.2 of a folder for each class that has no splits, else 0',
        0,
        1,
    ),
    'data.val_csv': Key('', 'likewise; watched during training, it chooses the best checkpoint'),
    'data.test_csv': Key(
        '', "likewise; evaluated at the end and by --mode=evaluate; '': val_csv is evaluated"
    ),
    'data.root': Key(
        '',
        'folder of the videos or records; of csv without CSV files, a folder with a folder of '
        "videos for each class; '': of csv, the folder of each CSV file",
        may_change=True,
    ),
    'data.annotations': Key(
        '', "folder of a dataset's annotation files; '': data.root", may_change=True
    ),
    'data.protocol': Key(
        '', "how a dataset is split, such as '2' or 'cross_view'; '': its first protocol"
    ),
    'data.label_columns': Key(
        ('label',), "columns with labels; of several, ('verb', 'noun'), each gets a head"
    ),
    'data.label_separator': Key(
        '',
        "what stands between the labels of a video in their column, such as ';' in 'run;jump': "
        'videos then have any number of labels, each class gets a probability of its own, and '
        "val/map chooses the best checkpoint; '': every video has one label",
    ),
    'data.label_map': Key(
        '',
        "file of class names, one a line; '{head}' in its name stands for each of several heads; "
        "'': the sorted labels of train_csv",
    ),
    'data.balance': Key(
        0.0,
        'how far the videos of an epoch are drawn towards equal classes: 0: each video once; 1: '
        'each class equally often; between: a video of a class with n videos by n ** -balance',
        0,
        1,
    ),
    'data.max_bad_fraction': Key(
        0.01,
        'part of the videos of a split that may be missing or broken; up to five always may, if '
        'they are less than half of the split; 0: none may',
        0,
        1,
        may_change=True,
    ),
    'data.num_workers': Key(
        2, 'decoding processes per host; 0: threads of the trainer decode', 0, may_change=True
    ),
    'data.worker_threads': Key(1, 'decoding threads of each worker', 1, may_change=True),
    'data.worker_buffer': Key(2, 'batches that each worker holds ready', 1, may_change=True),
    'data.stall_sec': Key(
        60.0,
        'seconds without a batch after which a line names the videos that are being read; after '
        'three times as long they count as broken, and reading goes on without them; 0: never',
        0,
        may_change=True,
    ),
    'data.cache_dir': Key(
        '', "folder of the embedded videos; '': the user's cache folder", may_change=True
    ),
    **_dataclass_keys('data.limits', Limits, may_change=True),
    **_dataclass_keys('data.synthetic', SyntheticVideos),
    # Changes of training clips: the first two while decoding, the others on the device.
    'augment.scale_jitter': Key(tuple, '(min, max) of a random factor on the short side'),
    'augment.resized_area': Key(
        tuple, '(min, max) part of the frame that a random resized crop keeps, at most 1'
    ),
    'augment.flip_swaps': Key(
        (), "(('left', 'right'),): words that change places in the label of a mirrored clip"
    ),
    **_dataclass_keys('augment', Augmentation),
    # Optimization and checkpoints.
    'train.batch_size': Key(64, 'clips of a step, of all devices together', 1),
    'train.accumulate': Key(
        1, 'parts of a batch that are computed one after the other, to save memory', 1
    ),
    'train.num_epochs': Key(float, 'length of the training in epochs', may_grow=True),
    'train.num_steps': Key(int, 'length of the training in steps', may_grow=True),
    'train.warmup_epochs': Key(float, 'linear rise of the learning rate from 0, in epochs'),
    'train.warmup_steps': Key(int, 'linear rise of the learning rate from 0, in steps'),
    'train.warmup_fraction': Key(
        float, 'linear rise of the learning rate from 0, as a part of the training', 0, 1
    ),
    'train.optimizer': Key(
        'sgd', "'sgd', 'adamw' or another optimizer of optax, such as 'lion', 'lamb' or 'muon'"
    ),
    'train.optimizer_keywords': Key(
        object, "keywords of the optimizer, such as {'b1': 0.95}, that have no key of their own"
    ),
    'train.learning_rate': Key(0.1, 'at the end of the warm-up', 0),
    'train.schedule': Key(
        str,
        "what follows the warm-up: 'cosine' (half a cosine to 0), 'linear' (to 0), 'constant' or "
        "'step'; None: 'step' with train.decay_epochs, else 'cosine'",
    ),
    'train.decay_epochs': Key(
        (),
        "of 'step': (20, 40, 60): the learning rate is a tenth of what it was from each of these "
        'epochs on',
    ),
    'train.momentum': Key(0.9, 'momentum of SGD, or beta 1 of AdamW', 0, 1),
    'train.adam_b2': Key(0.999, 'beta 2 of AdamW', 0, 1),
    'train.moment_dtype': Key(
        'float32',
        "type of SGD's momentum and of AdamW's first moment: 'float32' or 'bfloat16'",
    ),
    'train.offload_optimizer': Key(
        False,
        "keep the optimizer's state in the memory of the hosts, and copy it to the devices and "
        'back in every step',
        may_change=True,
    ),
    'train.weight_decay': Key(0.0, 'weight decay of kernels; other parameters have none', 0),
    'train.clip_norm': Key(1.0, 'largest norm of the whole gradient; 0: no clipping', 0),
    'train.label_smoothing': Key(0.0, 'part of the target that all classes share', 0, 1),
    'train.focal_gamma': Key(
        0.0, 'focal loss: weight (1 - p) ** gamma of an answer with probability p; 0: none', 0
    ),
    'train.class_weight_beta': Key(
        0.0,
        'weights of classes in the loss, by their n training videos: (1 - beta) / (1 - beta ** n), '
        'with a mean of 1 over the training videos; 0: none; 1: 1 / n',
        0,
        1,
    ),
    'train.layer_decay': Key(
        1.0, 'factor on the learning rate from each layer to the layer below it', 0, 1
    ),
    'train.freeze': Key(
        (),
        'regular expressions; parameters in whose names one is found do not change: '
        "('^embedding/', '^SpatialTransformer/') trains the temporal encoder and the head",
    ),
    'train.hold': Key(
        (),
        'regular expressions; parameters in whose names one is found do not change during '
        'train.hold_fraction, and then rise to the learning rate as in the warm-up: '
        "('^(?!output_projection)',) trains the classifier first",
    ),
    'train.hold_fraction': Key(0.0, 'part of the training in which train.hold holds', 0, 1),
    'train.ema_decay': Key(
        0.0, 'decay of a moving average of the parameters, which is evaluated; 0: none', 0, 1
    ),
    'train.early_stop_validations': Key(
        0,
        'the training ends when so many validations in a row were no better than the best before '
        'them; 0: never',
        0,
        may_change=True,
    ),
    'train.early_stop_metric': Key(
        'acc1',
        "what the validations of an early stop compare: 'loss', or 'acc1', in place of which there "
        "is 'map' with data.label_separator",
        may_change=True,
    ),
    'train.checkpoint_every_epochs': Key(float, 'epochs between checkpoints', may_change=True),
    'train.checkpoint_every_steps': Key(int, 'steps between checkpoints', may_change=True),
    'train.hang_sec': Key(
        900,
        'seconds without progress after which the stack of every thread is printed; 0: never',
        0,
        may_change=True,
    ),
    'train.keep_last': Key(1, 'how many of the newest checkpoints stay', 1, may_change=True),
    'train.keep_best': Key(
        1, 'how many of the checkpoints with the best val/acc1 or val/map stay', 0, may_change=True
    ),
    'train.wandb_project': Key(
        '',
        "project of Weights & Biases that gets the metrics; '': none",
        may_change=True,
    ),
    # Devices, of all hosts together: their numbers along the axes of the mesh.
    'parallel.data': Key(
        -1,
        'parts of the batch, each with its own copy of the parameters; -1: all devices that remain',
        -1,
        may_change=True,
    ),
    'parallel.fsdp': Key(
        1,
        "devices that share a copy of the parameters and of the optimizer's state and split its "
        'part of the batch',
        -1,
        may_change=True,
    ),
    'parallel.tensor': Key(
        1,
        'devices that work on the same clips and split heads, MLPs and classifiers',
        -1,
        may_change=True,
    ),
    'parallel.lost_sec': Key(
        30,
        'seconds without a sign of life after which a process counts as lost, and the others end',
        5,
        may_change=True,
    ),
    # Evaluation.
    'eval.every_epochs': Key(float, 'epochs between validations', may_change=True),
    'eval.every_steps': Key(int, 'steps between validations', may_change=True),
    'eval.batch_size': Key(
        64, 'temporal views of a step, of all devices together', 1, may_change=True
    ),
    'eval.views': Key('4x3', 'temporal x spatial views of each video in the test', may_change=True),
    'eval.num_units': Key(
        int,
        'units of a clip in the test, for models that take units; None: as many as in training',
        1,
        may_change=True,
    ),
    'eval.merge': Key(
        'logits', "mean over the views of 'logits' or 'probabilities'", may_change=True
    ),
    'eval.allow_untrained_head': Key(
        False, 'evaluate even if the classifier is still all zeros', may_change=True
    ),
    'eval.test_at_end': Key(
        True, 'test the last weights with all views after training', may_change=True
    ),
}

# Keys that say the same in other units: at most one of each group is set.
DURATIONS = (
    ('train.num_epochs', 'train.num_steps'),
    ('train.warmup_epochs', 'train.warmup_steps', 'train.warmup_fraction'),
    ('train.checkpoint_every_epochs', 'train.checkpoint_every_steps'),
    ('eval.every_epochs', 'eval.every_steps'),
)


@functools.cache
def config_keys(model: str) -> dict[str, Key]:
    """Every key of a config for a model, by names such as `'train.batch_size'`.

    Raises:
        ValueError: unknown model; the message offers the near names.
    """
    keywords, meanings = model_keywords(model), _field_meanings(MODELS[model])
    keys = {
        f'model.{name}': Key(type(default), meanings.get(name, ''))
        for name, default in keywords.items()
    }
    keys['model.num_classes'] = Key(
        object,
        "number of classes; for several heads {'verb': 97, 'noun': 300}; None: follows the data",
    )
    return {
        'model.name': Key(model, 'one of vivit_jax.list_models()'),
        'model.size': Key(str, "such as 'B/16x2', or one of the model's presets: fills the sizes"),
        **keys,
        **KEYS,
    }


def default_config(model: str = 'vivit_fe') -> ConfigDict:
    """A locked config for a model, in which keywords of the model are None until they are set.

    A file in `configs/` changes the keys in which it differs.
    """
    config = ConfigDict()
    for name, key in config_keys(model).items():
        *sections, last = name.split('.')
        node = config
        for section in sections:
            if section not in node:
                node[section] = ConfigDict()
            node = node[section]
        node[last] = placeholder(key.default) if isinstance(key.default, type) else key.default
    return config.lock()


def find_value(config: ConfigDict, key: str) -> object:
    """The value of a key such as `'train.batch_size'`."""
    return functools.reduce(operator.getitem, key.split('.'), config)
