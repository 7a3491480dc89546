"""Which videos are held out to choose between heads."""

import collections
from collections.abc import Sequence

import numpy as np

from vivit_jax.annotations.dataset import LabeledVideo
from vivit_jax.errors import UserError

_NUM_FOLDS = 5


def draw_folds(videos: Sequence[LabeledVideo], targets: np.ndarray, seed: int) -> np.ndarray:
    """Divides videos into up to five folds, each with its share of every class.

    Videos with the same `group`, such as a person, are in the same fold; without groups, so are the
    parts of one video.

    Args:
        videos: to divide.
        targets: [videos classes], 1 for each class of a video and 0 for the others.
        seed: of the order in which they are divided.

    Returns:
        int [videos], the fold of each.

    Raises:
        UserError: all videos are in one group.
    """
    groups = collections.defaultdict(list)
    for number, video in enumerate(videos):
        groups[video.group or video.video_path].append(number)
    num_folds = min(_NUM_FOLDS, len(groups))
    if num_folds < 2:
        raise UserError(
            f'the {len(videos)} training videos are all of one group, so that none can be held '
            'out: give --val_csv'
        )
    names = list(groups)
    np.random.default_rng(seed).shuffle(names)
    names.sort(key=lambda name: -len(groups[name]))  # large groups first; stable
    counts = np.zeros((num_folds, targets.shape[1]))
    sizes = np.zeros(num_folds, int)
    folds = np.zeros(len(videos), int)
    for name in names:
        members = groups[name]
        of_group = targets[members].sum(axis=0)
        # The fold with the fewest videos of the same classes, then with the fewest videos.
        fold = min(range(num_folds), key=lambda i: (counts[i] @ of_group, sizes[i]))
        counts[fold] += of_group
        sizes[fold] += len(members)
        folds[members] = fold
    return folds
