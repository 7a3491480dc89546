"""What is measured, in the order of its worth: who is cut off has the most important numbers."""

import dataclasses
from collections.abc import Sequence

VIVITS = (
    ('vivit_fe', 'B/16x2'),
    ('vivit_joint', 'B/16x2'),
    ('vivit_fsa', 'B/16x2'),
    ('vivit_fdp', 'B/16x2'),
    ('vivit_fe', 'L/16x2'),
)
_LENGTHS = (197, 3137, 1569, 784, 17)  # tokens of an attention
_TINY_LENGTHS = (17, 600)

_ATTENTION = 'attention:attention'
_TRAINING = 'models:speed'
_PEER = 'peers:pytorch'


@dataclasses.dataclass(frozen=True)
class Settings:
    """What all measurements know.

    Attributes:
        tiny: everything small, on a CPU, to see whether it runs.
        original: a checkout of Scenic's repository, or ''.
    """

    tiny: bool
    original: str

    @property
    def seconds(self) -> float:
        """For the repeats of one time."""
        return 0.01 if self.tiny else 1.0


@dataclasses.dataclass(frozen=True)
class Task:
    """A measurement, or a few that belong together.

    Attributes:
        section: letter of its table.
        name: what is measured.
        function: `'module:function'` of this package, which takes `Settings`, the rows that are
            known and `arguments`, and yields rows.
        arguments: of the function.
        seconds: that it takes on a GPU, compilation included; a guess.
        process: tasks that follow one another with the same name here share a process.
        library: `'jax'` or `'torch'`: which of them may use the device.
    """

    section: str
    name: str
    function: str
    arguments: tuple
    seconds: float
    process: str
    library: str = 'jax'


def plan(sections: Sequence[str], models: Sequence[str], settings: Settings) -> list[Task]:
    """All tasks of some sections.

    Args:
        sections: their letters.
        models: names of `list_models()`, for section g.
        settings: of the run.
    """

    def attention(process: str, library: str, seconds: float) -> list[Task]:
        return [
            Task('b', f'{n} tokens, {library}', _ATTENTION, (n, library), seconds, process, library)
            for n in (_TINY_LENGTHS if settings.tiny else _LENGTHS)
        ]

    def training(model: str, size: str, seconds: float) -> Task:
        name = f'{model} {size}'  # each in a process of its own, which tells its peak memory
        return Task('c', name, _TRAINING, (model, size), seconds, name)

    def pytorch(model: str, source: str, is_compiled: bool) -> Task:
        name = f'{source} {model}{", torch.compile" if is_compiled else ""}'
        seconds = 60 if is_compiled else 25
        return Task('d', name, _PEER, (model, source, is_compiled), seconds, 'torch', 'torch')

    fe, joint, fsa, fdp, large = VIVITS
    tasks = [
        Task('a', 'matrix products', 'device:products', (), 15, 'device'),
        Task('a', 'copy', 'device:copy', (), 5, 'device'),
        training(*fe, 60),
        training(*joint, 60),
        *attention('attention', 'jax', 15),
        pytorch('vivit_joint', 'huggingface', True),
        pytorch('vivit_fe', 'vivit_jax.torch', True),
        *attention('torch', 'torch', 4),
    ]
    if settings.original:
        tasks += [
            Task('d', f'original {model}', 'original:original', (model,), 60, f'original {model}')
            for model in ('vivit_fe', 'vivit_joint')
        ]
    tasks += [
        training(*fsa, 60),
        training(*fdp, 60),
        training(*large, 90),
        Task('e', 'augmentation', 'models:augmentation', (), 45, 'models'),
        *(
            Task('f', f'losses in {dtype}', 'models:losses', (dtype,), 50, 'models')
            for dtype in ('bfloat16', 'float32')
        ),
        *(Task('g', model, 'models:one_step', (model,), 25, 'models') for model in models),
        pytorch('vivit_fsa', 'vivit_jax.torch', True),
        pytorch('vivit_joint', 'huggingface', False),
        pytorch('vivit_fe', 'vivit_jax.torch', False),
        pytorch('vivit_fsa', 'vivit_jax.torch', False),
    ]
    if settings.tiny:  # a new process takes as long as a task
        tasks = [dataclasses.replace(task, process=task.library) for task in tasks]
    return [task for task in tasks if task.section in sections]
