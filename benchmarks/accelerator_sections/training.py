"""A model with its training step, and the largest batch that fits on a device."""

import dataclasses
import math
import time
from collections.abc import Callable

import flax.linen as nn
import jax
import numpy as np

from accelerator_sections.plan import Settings
from accelerator_sections.rows import ran_out_of_memory
from accelerator_sections.sizes import clip_shape, tiny_keywords
from vivit_jax.augment.policy import Augmentation
from vivit_jax.config.schema import default_config
from vivit_jax.costs import count_bytes, count_macs, model_call, plain_form
from vivit_jax.evaluation.forward import create_forward
from vivit_jax.models.registry import create_model
from vivit_jax.parallel.mesh import batch_sharding, create_mesh, replicated
from vivit_jax.train.optimizer import create_optimizer
from vivit_jax.train.schedule import create_schedule
from vivit_jax.train.state import TrainState, init_state
from vivit_jax.train.step import create_train_step, jit_train_step
from vivit_jax.video.preprocessing import Preprocessing

NUM_STEPS = 50  # of the schedule: enough to learn a few clips by heart

_GIB = 2**30
# Memory of a clip in the training step, from programs compiled for an H100: a first guess.
_GIB_PER_CLIP = {('vivit_fe', 'L/16x2'): 2.7, ('vivit_fsa', 'B/16x2'): 1.2}
_OTHER_GIB_PER_CLIP = 1.0
_USABLE = 0.95  # of the memory: some is lost between the arrays
_BATCHES = sorted(2**power * odd for power in range(8) for odd in (1, 3))
_BATCH_OF_UNKNOWN_MEMORY = 2  # on a CPU


@dataclasses.dataclass(frozen=True)
class Program:
    """A compiled function; `gib`: its arguments, results and temporaries on one device."""

    run: Callable
    compile_s: float
    gib: float


class Training:
    """A model with its optimizer and programs, as in the trainer; batches are per device.

    Args:
        settings: settings of the run.
        name, size: name and size of the model; None: its default size.
        policy: the augmentation.
        stand_in: turns the model into another model with the same parameters, which runs instead.
        keywords: other keywords of the model.
    """

    def __init__(
        self,
        settings: Settings,
        name: str,
        size: str | None = None,
        policy: Augmentation = Augmentation(),
        stand_in: Callable[[nn.Module], object] | None = None,
        **keywords,
    ):
        frames, _, crop_size = clip_shape(settings, name)
        self.spec = Preprocessing(num_frames=frames, short_side=crop_size, crop_size=crop_size)
        sizes = {'size': size}
        if settings.tiny:
            sizes = tiny_keywords(name)
        self.model = create_model(name, **{'dtype': 'bfloat16', **sizes, **keywords})
        self._runs = stand_in(self.model) if stand_in else self.model
        self.mesh = create_mesh()
        schedule = create_schedule(0.05, NUM_STEPS // 10, NUM_STEPS)
        optimizer = create_optimizer(default_config(name).train, schedule)
        self._step = create_train_step(
            self._runs, optimizer, schedule, self.spec, policy, label_smoothing=0.0, seed=0
        )
        shapes = jax.eval_shape(
            lambda: init_state(jax.random.key(0), self.model, optimizer, self.spec)
        )
        self.state_shapes = self._place(shapes, replicated(self.mesh))

    def count_macs(self) -> int:
        """Multiply-adds of the forward pass of a clip."""
        clip = jax.ShapeDtypeStruct((1, *self.spec.clip_shape, 3), np.float32)
        call = model_call(plain_form(self.model), clip)
        return count_macs(call.function, *call.args)[0]

    def compile_step(self, batch: int) -> Program:
        """The training step (state, batch) -> (state, metrics); the state is donated."""
        shardings = jax.tree.map(lambda x: x.sharding, self.state_shapes)
        step = jit_train_step(self._step, shardings, self.mesh)
        return self._compile(step, self.state_shapes, self._batch_shapes(batch))

    def compile_forward(self, batch: int) -> Program:
        """The forward pass (variables, rgb) -> output."""
        forward = jax.jit(create_forward(self._runs, self.spec))
        variables = self.state_shapes.eval_variables
        return self._compile(forward, variables, self._batch_shapes(batch)['rgb'])

    def compile_largest(self, guess: float) -> tuple[int, Program] | None:
        """The training step of the largest batch that fits; None if not even one clip fits.

        Two or three compiled programs are enough, because memory is assumed to grow linearly with
        the batch.

        Args:
            guess: a guess of the GiB that a clip needs.
        """
        limit = memory_gib('bytes_limit')
        if limit is None:
            return _BATCH_OF_UNKNOWN_MEMORY, self.compile_step(_BATCH_OF_UNKNOWN_MEMORY)
        limit *= _USABLE
        fixed = (count_bytes(self.state_shapes) + count_bytes(self.state_shapes.params)) / _GIB
        batch, best = max(1, _round_down((limit - fixed) / guess)), None
        for _ in range(3):
            program = self._try_step(batch)
            if program and math.isnan(program.gib):  # nobody tells
                return batch, program
            if program is None:
                batch = _round_down(batch / 2)
            else:
                per_clip = max(program.gib - fixed, 0.01) / batch
                fitting = _round_down((limit - fixed) / per_clip)
                if program.gib <= limit:
                    best = batch, program
                if fitting == batch or (best and fitting < 1.5 * best[0]):
                    return best
                batch = fitting
            if not batch:
                break
        return best

    def draw_state(self) -> TrainState:
        """A state with random kernels of about Xavier's size.

        They are drawn on the host, because an initializer would have to be compiled.
        """
        rng = np.random.default_rng(0)

        def draw(path: tuple, x: jax.ShapeDtypeStruct) -> np.ndarray:
            leaf = path[-1].key
            if leaf in ('bias', 'mean'):
                return np.zeros(x.shape, x.dtype)
            if leaf in ('scale', 'var'):
                return np.ones(x.shape, x.dtype)
            return np.float32(x.size**-0.25) * rng.standard_normal(x.shape, np.float32)

        shapes = self.state_shapes
        state = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), shapes).replace(
            params=jax.tree_util.tree_map_with_path(draw, shapes.params),
            batch_stats=jax.tree_util.tree_map_with_path(draw, shapes.batch_stats),
        )
        return jax.device_put(state, replicated(self.mesh))

    def draw_batch(self, batch: int) -> dict[str, jax.Array]:
        """Clips of 4x4 random colours, and a class for each clip."""
        count = batch * self.mesh.size
        frames, height, width = self.spec.clip_shape
        rng = np.random.default_rng(0)
        rgb = rng.integers(0, 256, (count, 1, 4, 4, 3), np.uint8)
        rgb = rgb.repeat(frames, 1).repeat(height // 4, 2).repeat(width // 4, 3)
        label = np.arange(count, dtype=np.int32) % self.model.spec.num_classes
        return jax.device_put({'rgb': rgb, 'label': label}, batch_sharding(self.mesh))

    def _batch_shapes(self, batch: int) -> dict:
        count = batch * self.mesh.size
        shapes = {
            'rgb': jax.ShapeDtypeStruct((count, *self.spec.clip_shape, 3), np.uint8),
            'label': jax.ShapeDtypeStruct((count,), np.int32),
        }
        return self._place(shapes, batch_sharding(self.mesh))

    def _place(self, shapes, sharding: jax.sharding.Sharding):
        return jax.tree.map(
            lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), shapes
        )

    def _compile(self, function: Callable, *shapes) -> Program:
        start = time.perf_counter()
        with jax.set_mesh(self.mesh):
            compiled = function.lower(*shapes).compile()
        return Program(compiled, time.perf_counter() - start, _needed_gib(compiled))

    def _try_step(self, batch: int) -> Program | None:
        try:
            return self.compile_step(batch)
        except Exception as error:
            if not ran_out_of_memory(error):
                raise
        return None


def guess_gib(name: str, size: str) -> float:
    """A guess of the GiB that a clip needs in a model's training step, in bfloat16."""
    return _GIB_PER_CLIP.get((name, size), _OTHER_GIB_PER_CLIP)


def memory_gib(statistic: str) -> float | None:
    """`bytes_limit` or `peak_bytes_in_use` of the first device, in GiB; None if unknown."""
    statistics = jax.local_devices()[0].memory_stats() or {}
    return statistics[statistic] / _GIB if statistics.get(statistic) else None


def _needed_gib(compiled: jax.stages.Compiled) -> float:
    found = compiled.memory_analysis()
    if found is None:
        return math.nan
    size = found.argument_size_in_bytes + found.output_size_in_bytes + found.temp_size_in_bytes
    return (size - found.alias_size_in_bytes) / _GIB


def _round_down(batch: float) -> int:
    """Rounds down to a power of two, or to three times a power of two; 0 below 1."""
    return max((size for size in _BATCHES if size <= batch), default=0)
