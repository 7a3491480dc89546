"""Tables, and lists of videos, as the text of a CSV."""

import csv
import io
import os
from collections.abc import Iterable, Mapping, Sequence

from vivit_jax.annotations.dataset import PART_COLUMNS, LabeledVideo, class_indices
from vivit_jax.heads import by_head


def csv_text(header: Sequence[str], rows: Iterable[Sequence]) -> str:
    """A CSV; None becomes an empty field."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator='\n')
    writer.writerow(header)
    writer.writerows(rows)
    return text.getvalue()


def videos_csv(
    videos: Sequence[LabeledVideo], classes: Mapping[str, Sequence[str]], label_separator: str
) -> str:
    """The native CSV of some videos, with absolute paths: a value of `data.train_csv`.

    Args:
        videos: a line each.
        classes: for each column of labels the names of its classes.
        label_separator: see `Dataset`.
    """
    columns = (*PART_COLUMNS, 'group')
    used = [x for x in columns if any(getattr(video, x) is not None for video in videos)]
    paths = ['video_path', *(['depth_path'] if any(x.depth_path for x in videos) else [])]
    return csv_text(
        (*paths, *classes, *used),
        (
            (
                *(os.path.abspath(getattr(video, path)) for path in paths),
                *label_texts(video, classes, label_separator),
                *(getattr(video, name) for name in used),
            )
            for video in videos
        ),
    )


def label_texts(
    video: LabeledVideo, classes: Mapping[str, Sequence[str]], label_separator: str
) -> list[str]:
    """The class name of a video in each column of labels, or the names with separators."""
    labels = by_head(video.label).values()
    return [
        label_separator.join(names[index] for index in class_indices(label))
        for names, label in zip(classes.values(), labels, strict=True)
    ]
