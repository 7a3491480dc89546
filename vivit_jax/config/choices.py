"""The settings that the recipe 'finetune' chooses by the number of training videos."""

from typing import NamedTuple

FEW, SOME = 1_000, 10_000  # training videos: from so many on there are some, and many
CLIPS = 15_000  # of a training, in not fewer and not more epochs than these
FEWEST_EPOCHS, MOST_EPOCHS = 10, 60


class Choice(NamedTuple):
    """The value of a key for few, some and many training videos, and the reason for it."""

    few: object
    some: object
    many: object
    reason: str


CHOICES = {
    'train.batch_size': Choice(16, 32, 64, 'enough steps in an epoch'),
    'train.optimizer': Choice('adamw', 'adamw', 'adamw', 'what ViTs are fine-tuned with'),
    'train.learning_rate': Choice(2e-4, 3e-4, 5e-4, 'rises with the batch'),
    'train.weight_decay': Choice(0.05, 0.05, 0.05, 'usual for AdamW'),
    'train.layer_decay': Choice(0.75, 0.75, 0.75, 'lower layers are general, and change less'),
    'train.label_smoothing': Choice(0.1, 0.1, 0.1, 'keeps the classifier from certainty'),
    'train.ema_decay': Choice(0.99, 0.999, 0.9999, 'averages the noise of small batches'),
    'train.early_stop_validations': Choice(10, 8, 5, 'ends what no longer gets better'),
    'augment.resized_area': Choice((0.6, 1.0), (0.4, 1.0), (0.3, 1.0), 'crops of other sizes'),
    'augment.randaugment_layers': Choice(1, 2, 2, 'colours and shapes that no video has'),
    'augment.randaugment_magnitude': Choice(5.0, 7.0, 9.0, 'stronger where there is more to lose'),
    'augment.mixup_alpha': Choice(0.0, 0.8, 0.8, 'helps long trainings on many videos'),
    'augment.cutmix_alpha': Choice(0.0, 0.0, 1.0, 'helps long trainings on many videos'),
    'augment.repeats': Choice(1, 2, 2, 'clips of a video in a batch; 2 save decoding'),
    'model.drop_path_rate': Choice(0.1, 0.1, 0.2, 'leaves out blocks at random'),
    'train.hold_fraction': Choice(0.1, 0.1, 0.1, 'a new classifier would spoil the weights'),
}
# The keys that a config leaves to the recipe. Keys of the model and of the clips may be left to it
# too.
CHOSEN = (
    *(key for key in CHOICES if not key.startswith('model.')),
    'init.reinit',
    'train.hold',
    'train.early_stop_metric',
)
