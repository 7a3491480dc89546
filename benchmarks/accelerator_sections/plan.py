"""The measurements, most important first, so that a run that is cut off has the best of them."""

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


@dataclasses.dataclass(frozen=True)
class Settings:
    """Settings of all measurements.

    Attributes:
        tiny: whether everything is small and runs on a CPU, to see that it works.
        original: path of a checkout of Scenic's repository, or ''.
    """

    tiny: bool
    original: str

    @property
    def seconds(self) -> float:
        """The time for all repeats of one measurement."""
        return 0.01 if self.tiny else 1.0


@dataclasses.dataclass(frozen=True)
class Task:
    """A measurement, or a few that belong together.

    Attributes:
        section: the letter of its table.
        name: what is measured.
        function: `'module:function'`, which takes `Settings`, the rows measured before and
            `arguments`, and yields rows.
        arguments: arguments of the function.
        seconds: a guess of its duration on a GPU, with compilation.
        process: the name of its process; successive tasks with the same name share the process.
        library: the library that may use the device, `'jax'` or `'torch'`.
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
        sections: the letters of the sections.
        models: names of `list_models()`, for section g.
        settings: settings of the run.
    """

    def task(
        section: str, name: str, function: str, *arguments, seconds: float, library='jax', shares=''
    ) -> Task:
        """Makes a task; `shares` names its process, and without it the task has its own."""
        process = library if settings.tiny else shares or name  # starting one takes seconds
        function = f'accelerator_sections.{function}'
        return Task(section, name, function, arguments, seconds, process, library)

    def model(name: str, size: str, seconds: float = 60) -> Task:
        # Alone in its process, which tells its peak memory.
        return task('c', f'{name} {size}', 'models:speed', name, size, seconds=seconds)

    def peer(name: str, source: str, is_compiled: bool) -> Task:
        return task(
            'd',
            f'{source} {name}{", torch.compile" if is_compiled else ""}',
            'peers:pytorch',
            *(name, source, is_compiled),
            seconds=60 if is_compiled else 25,
            library='torch',
            shares='torch',
        )

    def attention(library: str, seconds: float) -> list[Task]:
        keywords = {'seconds': seconds, 'library': library, 'shares': library}
        return [
            task('b', f'{n} tokens, {library}', 'attention:attention', n, library, **keywords)
            for n in (_TINY_LENGTHS if settings.tiny else _LENGTHS)
        ]

    fe, joint, fsa, fdp, large = VIVITS
    originals = ('vivit_fe', 'vivit_joint') if settings.original else ()
    tasks = [
        task('a', 'matrix products', 'device:products', seconds=15, shares='device'),
        task('a', 'copy', 'device:copy', seconds=5, shares='device'),
        model(*fe),
        model(*joint),
        *attention('jax', 15),
        peer('vivit_joint', 'huggingface', True),
        peer('vivit_fe', 'vivit_jax.torch', True),
        *attention('torch', 4),
        *(
            task('d', f'original {name}', 'original:original', name, seconds=60)
            for name in originals
        ),
        model(*fsa),
        model(*fdp),
        model(*large, 90),
        task('e', 'augmentation', 'models:augmentation', seconds=45, shares='models'),
        *(
            task('f', f'losses in {dtype}', 'models:losses', dtype, seconds=50, shares='models')
            for dtype in ('bfloat16', 'float32')
        ),
        *(task('g', name, 'models:one_step', name, seconds=25, shares='models') for name in models),
        peer('vivit_fsa', 'vivit_jax.torch', True),
        peer('vivit_joint', 'huggingface', False),
        peer('vivit_fe', 'vivit_jax.torch', False),
        peer('vivit_fsa', 'vivit_jax.torch', False),
    ]
    if settings.tiny:
        tasks.sort(key=lambda task: task.library)  # one process of each will do
    return [task for task in tasks if task.section in sections]
