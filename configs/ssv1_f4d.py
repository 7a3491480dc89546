"""F4D on Something-Something v1 (174 classes).

    python -m vivit_jax.main --config=configs/ssv1_f4d.py \
        --config.data.root=/data/ssv1 --config.init_from=runs/kinetics400_f4d

Source: F4D (Al-Saad et al. 2024), section 4: SGD, batch 128, learning rate 0.01, a tenth at epochs
20, 40 and 60 of 80; 4 units of 8 frames that span 32 frames each; the test takes 10 units and 3
crops. Expected: 57.5 % top-1, starting from a Kinetics-400 model of an ImageNet ResNet-50, and
54.9 % from the ResNet-50 (`--config.init_from=resnet50.safetensors`).

Left and right are part of classes, so clips are not mirrored; the paper mirrors them.

`:runlocal` after the file name runs the same on the embedded data in about a minute;
`--mode=show` prints the schedule and the cost.
"""

from vivit_jax.config.presets import check_argument, published_f4d, runlocal


def get_config(arg=''):
    """`arg`: '' or 'runlocal'."""
    check_argument(arg, 'runlocal')
    config = published_f4d('f4d', 'ssv1', 80.0, 20, 40, 60)
    config.augment.update(flip=0.0, flip_swaps=())
    return runlocal(config) if arg == 'runlocal' else config
