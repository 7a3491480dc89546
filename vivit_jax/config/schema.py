"""Every configuration key, once, with its default and its meaning.

A duration is given either in `..._epochs` (of ⌊videos / batch size⌋ steps, fractions allowed) or in
`..._steps` (updates); the other one stays None.
"""

import dataclasses

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder

from vivit_jax.models.registry import model_keywords
from vivit_jax.video.preprocessing import Preprocessing
from vivit_jax.video.synthetic import SyntheticVideos


def default_config(model: str = 'vivit_fe') -> ConfigDict:
    """A locked config for a model; a file in `configs/` changes what is its own."""
    config = ConfigDict()
    config.seed = 0  # of parameters, data order, augmentation and dropout

    # Weights to start from: whatever `python -m vivit_jax.convert` reads; '': from scratch.
    config.init_from = ''
    config.init = ConfigDict()
    config.init.reinit = ()  # ('head',): a new classifier; all else must be found in the weights
    config.init.tubelet = 'central_frame'  # of image ViTs: or 'filter_inflation', 'random'
    config.init.temporal_attention = 'zero'  # of image ViTs, vivit_fsa: or 'pretrained', 'fresh'

    # Keywords of the model's class, where they are explained; None: as in `size`, or its default.
    # num_classes follows the data, or is a number, of several heads {'verb': 97, 'noun': 300}.
    types = {name: type(default) for name, default in model_keywords(model).items()}
    types['num_classes'] = object
    config.model = ConfigDict({name: placeholder(kind) for name, kind in types.items()})
    config.model.name = model  # one of vivit_jax.list_models()
    config.model.size = placeholder(str)  # such as 'B/16x2', or one of the model's PRESETS

    # How a video becomes a clip; the keys are those of vivit_jax.video.preprocessing.
    config.preprocessing = ConfigDict(dataclasses.asdict(Preprocessing()))

    config.data = data = ConfigDict()
    # 'csv', 'synthetic' (the embedded videos), 'records' (of vivit_jax.prepare), 'tfrecords' (of
    # the original ViViT), or a dataset of vivit_jax.annotations.catalog in its own layout: 'ssv2'
    data.source = 'csv'
    # Of 'csv': header "video_path,label", optionally start_sec and end_sec; of 'tfrecords': files,
    # such as '/data/train.tfrecord@1024'.
    data.train_csv = ''
    data.val_csv = ''  # watched during training; the best checkpoint is chosen by it
    data.test_csv = ''  # evaluated at the end and by --mode=evaluate; '': val_csv is
    data.root = ''  # folder of the videos, or of the records; 'csv' and '': the folder of each CSV
    data.annotations = ''  # folder of a dataset's annotation files; '': data.root
    data.protocol = ''  # how a dataset is split, such as '2' or 'cross_view'; '': its first way
    # Columns with labels; each of several, such as ('verb', 'noun'), gets a head of its name.
    data.label_columns = ('label',)
    # Class names, one a line; '': the sorted labels of train_csv. Several heads have a file each:
    # 'classes_{head}.txt' stands for classes_verb.txt and classes_noun.txt.
    data.label_map = ''
    data.max_bad_fraction = 0.01  # videos of a split that may be missing or broken
    data.num_workers = 2  # decoding processes per host; 0: threads of the trainer
    data.worker_threads = 1  # decoding threads of each worker
    data.worker_buffer = 2  # batches that each worker holds ready
    data.cache_dir = ''  # of the embedded videos; '': the user's cache folder
    data.synthetic = ConfigDict(dataclasses.asdict(SyntheticVideos()))

    config.augment = augment = ConfigDict()
    augment.scale_jitter = placeholder(tuple)  # (min, max) factor on the short side
    augment.resized_area = placeholder(tuple)  # (min, max) part of the frame: random resized crop
    augment.repeats = 1  # clips of each video of a batch; an epoch then has as many videos fewer
    augment.flip = 0.0  # probability; where left and right are part of a label 0, or flip_swaps
    augment.flip_swaps = ()  # (('left', 'right'),): a mirrored clip's class has them exchanged
    augment.color_jitter = 0.0  # probability
    augment.color_drop = 0.0  # probability of greyscale
    augment.randaugment_layers = 0  # operations per clip; ViViT has 2, instead of color jitter
    augment.randaugment_magnitude = 10.0
    augment.randaugment_geometry = True  # rotate, shear and translate too, as ViViT does not
    augment.erase = 0.0  # probability of a box of random pixels
    augment.mixup_alpha = 0.0  # of the Beta distribution of the weights; 0: no mixing
    augment.cutmix_alpha = 0.0  # likewise of the box's area; beside mixup a clip draws one of them

    config.train = train = ConfigDict()
    train.batch_size = 64  # clips per step, of all devices together
    train.num_epochs = placeholder(float)
    train.num_steps = placeholder(int)
    train.warmup_epochs = placeholder(float)
    train.warmup_steps = placeholder(int)
    train.optimizer = 'sgd'  # 'sgd' or 'adamw'
    train.learning_rate = 0.1  # at the end of the warm-up; a cosine to 0 follows
    train.momentum = 0.9  # beta 1 of AdamW
    train.adam_b2 = 0.999
    train.weight_decay = 0.0  # on kernels only
    train.clip_norm = 1.0  # of the whole gradient; 0: no clipping
    train.label_smoothing = 0.0
    train.layer_decay = 1.0  # factor on the learning rate from each layer to the one below it
    # Regular expressions; parameters in whose names one is found stay as they are:
    # ('^embedding/', '^SpatialTransformer/') trains the temporal encoder and the head.
    train.freeze = ()
    train.ema_decay = 0.0  # of a moving average of the parameters, which is evaluated; 0: none
    train.checkpoint_every_epochs = placeholder(float)
    train.checkpoint_every_steps = placeholder(int)
    train.keep_last = 1  # checkpoints
    train.keep_best = 1  # checkpoints, by val/acc1

    config.eval = evaluation = ConfigDict()
    evaluation.every_epochs = placeholder(float)  # validation during training
    evaluation.every_steps = placeholder(int)
    evaluation.batch_size = 64  # temporal views per step, of all devices together
    evaluation.views = '4x3'  # temporal x spatial views of a video in the test
    evaluation.merge = 'logits'  # what is averaged over views: 'logits' or 'probabilities'
    evaluation.allow_untrained_head = False  # test a model although it gives all the same answer
    evaluation.test_at_end = True  # the multi-view test of the last weights, after training
    return config.lock()
