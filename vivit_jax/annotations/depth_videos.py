"""Which videos a model sees: the videos that annotations name, their depth, or both."""

import dataclasses

from vivit_jax.annotations.annotation import Annotation, AnnotationError, Annotations


def choose_videos(annotations: Annotations, modality: str) -> Annotations:
    """Puts the videos of a modality into the column `video_path`.

    Args:
        annotations: from a reader; the column `depth_path` names the depth of the videos.
        modality: `'rgb'`, which needs no depth; `'depth'`, whose videos are the depth videos; or
            `'rgbd'`, which needs both. Depth without a video counts for `'depth'` alone.

    Raises:
        AnnotationError: the depth of a video is not named.
    """

    def choose(line: Annotation) -> Annotation:
        values = dict(line.values)
        depth = values.pop('depth_path', '')
        if modality == 'rgb':
            return line._replace(values=values)
        if not depth:
            raise AnnotationError(
                f'{line.place}: no depth_path, which model.modality={modality!r} needs: the column '
                'depth_path of a CSV names the depth of each video, a file or a folder of PNGs; '
                'the readers of ntu60, ntu120, isogd and msr_action3d find depth by its name'
            )
        if modality == 'depth':
            return line._replace(values=values | {'video_path': depth, 'depth_path': depth})
        return line._replace(values=values | {'depth_path': depth})

    def is_seen(line: Annotation) -> bool:
        is_depth_alone = line.values.get('depth_path') == line.values['video_path']
        return modality == 'depth' or not is_depth_alone

    splits = {}
    for split, lines in annotations.splits.items():
        splits[split] = [*map(choose, filter(is_seen, lines))]
        if lines and not splits[split]:
            raise AnnotationError(
                f'{lines[0].place}: the {split} split has depth videos alone, which '
                f"model.modality={modality!r} does not see: set model.modality='depth'"
            )
    return dataclasses.replace(annotations, splits=splits)
