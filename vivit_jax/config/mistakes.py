"""Explains a mistake on a command line or in a config file in one line."""

import difflib
import re
import runpy
import traceback
from collections.abc import Iterable

from absl import flags

from vivit_jax.config.find import config_name
from vivit_jax.config.schema import config_keys
from vivit_jax.errors import UserError, near_words
from vivit_jax.models.registry import list_models

_QUOTES = '"\''

# What other projects call a key.
_ALSO_CALLED = {
    'train.learning_rate': 'lr base_lr init_lr max_lr',
    'train.num_epochs': 'epochs epoch max_epochs num_train_epochs total_epochs',
    'train.num_steps': 'steps max_steps iterations num_training_steps total_steps',
    'train.warmup_fraction': 'warmup warmup_ratio warm_up',
    'train.batch_size': 'bs batch train_batch_size per_device_train_batch_size',
    'train.accumulate': 'grad_accum accumulation gradient_accumulation_steps accum_iter',
    'train.clip_norm': 'grad_clip clip_grad max_grad_norm gradient_clip_val',
    'train.weight_decay': 'wd decay l2',
    'train.optimizer': 'optim opt solver',
    'train.optimizer_keywords': 'optimizer_kwargs opt_kwargs optimizer_args betas',
    'train.schedule': 'lr_schedule lr_scheduler scheduler sched lr_policy',
    'train.early_stop_validations': 'patience early_stop early_stopping early_stopping_patience',
    'train.wandb_project': 'wandb use_wandb log_wandb project',
    'train.label_smoothing': 'smoothing',
    'train.ema_decay': 'ema model_ema',
    'train.freeze': 'frozen freeze_backbone trainable',
    'model.num_classes': 'classes n_classes nb_classes',
    'model.size': 'variant arch backbone',
    'model.name': 'model architecture',
    'model.drop_path_rate': 'drop_path stochastic_depth droplayer_p',
    'model.dropout_rate': 'dropout',
    'model.tubelet_size': 'patch_size patches tubelet patch',
    'preprocessing.num_frames': 'frames clip_len n_frames clip_length',
    'preprocessing.frame_stride': 'stride sampling_rate frame_interval frame_rate',
    'preprocessing.crop_size': 'image_size img_size resolution input_size crop size',
    'preprocessing.short_side': 'resize resize_size',
    'augment.flip': 'hflip mirror horizontal_flip random_flip',
    'augment.mixup_alpha': 'mixup',
    'augment.cutmix_alpha': 'cutmix',
    'augment.randaugment_layers': 'randaugment rand_augment aa auto_augment',
    'augment.erase': 'reprob random_erasing erasing',
    'data.num_workers': 'workers n_workers',
    'data.train_csv': 'train_list train_file train csv',
    'data.val_csv': 'val_list val_file val valid',
    'data.test_csv': 'test_list test_file test',
    'data.root': 'path dir folder data_dir data_path dataset_dir',
    'data.source': 'dataset name',
    'init_from': 'pretrained weights checkpoint finetune resume_from load_from',
    'eval.views': 'num_views crops test_views',
    'seed': 'random_seed rng_seed',
}


def explain(argv: list[str], error: BaseException) -> str:
    """What was wrong, and what to do.

    Args:
        argv: the command line, with the config as `find_config` found it.
        error: what parsing it raised.
    """
    if isinstance(error, UserError):
        return str(error)
    known = {key: None for name in list_models() for key in config_keys(name)}
    for arg in argv:
        key = arg.removeprefix('--config.').split('=')[0]
        if arg.startswith('--config.') and key not in known:
            return f'{arg}: there is no config key {key!r}; {_near_keys(key, known)}'
    text = str(error).strip()
    if isinstance(error, flags.UnrecognizedFlagError):
        near = _near_keys(error.flagname, known)
        return (
            f'there is no flag --{error.flagname}; keys of the config are set as in '
            f'--config.seed=1: {near}'
        )
    if isinstance(error, flags.Error) and not text.startswith('flag --config='):
        return text.splitlines()[-1]
    file = next(arg for arg in argv if arg.startswith('--config=')).removeprefix('--config=')
    for arg in argv:
        if arg.startswith(f'--config.model.{text.strip(_QUOTES)}='):
            return f'{arg}: the model of {config_name(file)} has no such keyword'
    return _explain_file(file, error, known)


def _near_keys(key: str, known: Iterable[str]) -> str:
    """Keys of a like spelling, or of the like meaning that `_ALSO_CALLED` knows."""
    name = key.rpartition('.')[2].lower()
    near = [found for found, others in _ALSO_CALLED.items() if name in others.split()]
    near += [found for found in known if found.rpartition('.')[2] == name]
    near = near or difflib.get_close_matches(key, known, n=3, cutoff=0.6)
    if near:
        return f'did you mean {", ".join(list(dict.fromkeys(near))[:3])}?'
    return '--mode=show prints all keys'


def _explain_file(file: str, error: BaseException, known: Iterable[str]) -> str:
    """The mistake in a config file, with its line where running the file again shows it."""
    path, _, argument = file.partition(':')
    place = config_name(file)
    try:
        module = runpy.run_path(path)
        if 'get_config' not in module:
            return f'{path}: defines no function get_config{near_words("get_config", module)}'
        module['get_config'](*filter(None, [argument]))
    except UserError as again:
        return str(again)
    except Exception as again:
        error = again
        frames = traceback.extract_tb(again.__traceback__)
        lines = [frame.lineno for frame in frames if frame.filename == path]
        if isinstance(again, SyntaxError) and again.filename == path:
            lines, error = [again.lineno], again.msg
        place = f'{path}, line {lines[-1]}' if lines else path
    # ml_collections lists all fields of the section, and its advice in a line of its own.
    text = re.sub(r' Other fields present: .*}"', '', str(error).strip(_QUOTES).replace('\\n', ' '))
    missing = re.match(r'Key "(\w+)" does not exist', text)
    if missing:
        text = f'there is no config key {missing[1]!r}; {_near_keys(missing[1], known)}'
    return f'{place}: {" ".join(text.split())}'
