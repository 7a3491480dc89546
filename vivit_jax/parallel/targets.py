"""Devices that this machine does not have, as targets to compile for.

Programs for TPUs and NVIDIA GPUs can be compiled on any machine, if the compiler is installed:
libtpu for TPUs, the CUDA plugin of JAX for GPUs. Neither needs the chip.
"""

import contextlib
import dataclasses
import importlib.util
import math
import os
import re
from collections.abc import Iterator, Sequence
from unittest import mock

import jax

from vivit_jax.errors import UserError, near_words


@dataclasses.dataclass(frozen=True)
class Chip:
    """A kind of device and its published figures; for v4 and v5p, of the whole chip.

    Attributes:
        platform: the platform that programs are lowered for.
        memory_gib: memory for programs, in GiB; 0: as much as this machine has.
        bfloat16_tflops: published peak of dense matrix products, in TFLOP/s; 0: unknown.
        bandwidth_gbps: published bandwidth of the memory, in GB/s; 0: unknown.
        link_gbps: published bandwidth, in one direction, to all chips of a TPU slice or to the GPUs
            of a host, in GB/s; 0: unknown.
        network_gbps: of a GPU, the same to other hosts: its share of the network cards of a host.
        name: the name that a GPU reports.
        capability: (major, minor) compute capability of a GPU.
        num_cores: number of streaming multiprocessors of a GPU.
        clock_ghz: clock rate of a GPU, in GHz.
        l2_mib: second-level cache of a GPU, in MiB.
        shared_kib: shared memory that a block of threads of a GPU can request, in KiB.
    """

    platform: str
    memory_gib: float = 0.0
    bfloat16_tflops: float = 0.0
    bandwidth_gbps: float = 0.0
    link_gbps: float = 0.0
    network_gbps: float = 0.0
    name: str = ''
    capability: tuple[int, int] = (0, 0)
    num_cores: int = 0
    clock_ghz: float = 0.0
    l2_mib: int = 0
    shared_kib: int = 0


# Sources: the TPU pages of Google Cloud's documentation, and half of its bidirectional bandwidth
# between chips; NVIDIA's data sheets (SXM cards, dense), half of NVLink's bidirectional bandwidth,
# and the network of its DGX machines, with one card of 200 (A100) or 400 Gb/s for each GPU.
CHIPS = {
    'v4': Chip('tpu', 32, 275, 1228, 300),
    'v5e': Chip('tpu', 16, 197, 819, 200),
    'v5p': Chip('tpu', 95, 459, 2765, 600),
    'v6e': Chip('tpu', 32, 918, 1640, 400),
    'a100': Chip(
        'cuda', 79, 312, 2039, 300, 25, 'NVIDIA A100-SXM4-80GB', (8, 0), 108, 1.41, 40, 163
    ),
    'h100': Chip(
        'cuda', 79, 989, 3352, 450, 50, 'NVIDIA H100 80GB HBM3', (9, 0), 132, 1.98, 50, 227
    ),
    'h200': Chip('cuda', 140, 989, 4800, 450, 50, 'NVIDIA H200', (9, 0), 132, 1.98, 50, 227),
    'b200': Chip('cuda', 178, 2250, 7700, 900, 50, 'NVIDIA B200', (10, 0), 148, 1.97, 126, 227),
    'cpu': Chip('cpu'),
}

_GPUS_OF_A_HOST = 8

# Nothing is tuned, and Triton's products are off, because both need a GPU to measure on.
_GPU_OPTIONS = {'xla_gpu_autotune_level': 0, 'xla_gpu_enable_triton_gemm': False}
_LEAST_EFFORT = {'exec_time_optimization_effort': -1.0, 'memory_fitting_effort': -1.0}


@dataclasses.dataclass(frozen=True)
class Target:
    """Devices of one kind, such as 8 H100s or a slice of a TPU pod.

    Attributes:
        name: the name with its count, such as `'h100:8'`.
        chip: the kind of the devices.
        topology: the number of chips along each axis of a TPU slice, such as `'2x4'`, or the
            number of GPUs or CPU devices.
    """

    name: str
    chip: Chip
    topology: str

    @property
    def num_chips(self) -> int:
        """The number of chips; a chip can have two devices."""
        return math.prod(map(int, self.topology.split('x')))

    def link_seconds(self, sent: float) -> float:
        """The least time in which a chip sends so many bytes to other chips; 0 if unknown.

        Several GPU hosts first sum, or last gather, among their own GPUs, so that each GPU sends
        only its share to other hosts.
        """
        chip = self.chip
        seconds = sent / chip.link_gbps / 1e9 if chip.link_gbps else 0
        if chip.network_gbps and self.num_chips > _GPUS_OF_A_HOST:
            seconds += sent / _GPUS_OF_A_HOST / chip.network_gbps / 1e9
        return seconds

    @property
    def extra(self) -> str:
        """The extra of this package that installs the compiler; '' if none is needed."""
        return {'tpu': 'tpu', 'cuda': 'cuda12', 'cpu': ''}[self.chip.platform]

    @property
    def can_compile(self) -> bool:
        """Whether the compiler is installed."""
        modules = {'tpu': ('libtpu',), 'cuda': ('jax_cuda12_plugin', 'jax_cuda13_plugin')}
        needed = modules.get(self.chip.platform)
        return not needed or any(map(importlib.util.find_spec, needed))

    def compiler_options(self, quick: bool) -> dict[str, object]:
        """Options of the compiler; with `quick` it optimizes programs for TPUs less."""
        if self.chip.platform == 'cuda':
            return _GPU_OPTIONS
        return _LEAST_EFFORT if quick and self.chip.platform == 'tpu' else {}


def parse_target(text: str) -> Target:
    """Parses `'h100:8'`, `'v5e:2x4'` or `'cpu:1'`; without a count: one device, or one TPU host.

    Raises:
        UserError: there is no such chip, or the count has another form.
    """
    kind, _, topology = text.lower().partition(':')
    if kind not in CHIPS:
        raise UserError(f'--target={text}: there is no such chip{near_words(kind, CHIPS)}')
    chip = CHIPS[kind]
    axes = 3 if kind in ('v4', 'v5p') else 2
    topology = topology or ('x'.join('221'[:axes]) if chip.platform == 'tpu' else '1')
    form, example = r'\d+', f'{kind}:8'
    if chip.platform == 'tpu':
        form, example = r'x'.join([r'\d+'] * axes), f'{kind}:{"x".join("2224"[-axes:])}'
    if not re.fullmatch(form, topology) or '0' in topology.split('x'):
        raise UserError(f'--target={text}: {topology!r} is no topology such as {example}')
    return Target(f'{kind}:{topology}', chip, topology)


def find_devices(target: Target) -> Sequence[jax.Device]:
    """Descriptions of the devices of a target, to compile for.

    Call it before anything that starts JAX: the process then uses its CPU only.

    Raises:
        UserError: the compiler knows no such topology, or CPU devices were started already.
    """
    from jax.experimental import topologies

    chip = target.chip
    hosts = 1 if target.num_chips % _GPUS_OF_A_HOST else target.num_chips // _GPUS_OF_A_HOST
    try:
        if chip.platform == 'tpu':
            os.environ['TPU_SKIP_MDS_QUERY'] = '1'  # only Google's cloud has a metadata server
            os.environ['ALLOW_MULTIPLE_LIBTPU_LOAD'] = '1'  # compiling occupies no chip
            single = {'chips_per_host_bounds': (1, 1, 1)} if target.num_chips == 1 else {}
            devices = topologies.get_topology_desc(
                platform='tpu', topology_name=target.name, **single
            ).devices
        else:
            devices = topologies.get_topology_desc(
                platform='cuda',
                topology_name=target.name,
                topology=f'1x{hosts}x{target.num_chips // hosts}',
                target_config=_describe_gpu(chip),
            ).devices
    except (RuntimeError, ValueError, NotImplementedError) as error:
        reason = str(error).strip().splitlines()[0]
        raise UserError(
            f'--target={target.name}: the compiler has no such devices: {reason}'
        ) from (error)
    return devices


def start_cpu_devices(number: int):
    """Gives this process `number` CPU devices and no others; call it before JAX is used.

    Raises:
        UserError: JAX has started with other devices.
    """
    jax.config.update('jax_platforms', 'cpu')
    with contextlib.suppress(RuntimeError):
        jax.config.update('jax_num_cpu_devices', number)
    if jax.device_count() != number:
        raise UserError(
            f'this process has {jax.device_count()} CPU device(s), not {number}: JAX was started '
            'before they could be set'
        )


@contextlib.contextmanager
def assume_cudnn() -> Iterator[None]:
    """Lets cuDNN's attention be traced without a GPU, as if there were an Ampere or later GPU.

    While JAX traces a program, it checks the versions of cuDNN and of the GPU. This replaces the
    functions that check, which are private to JAX. If a version of JAX has other functions, this
    has no effect.
    """
    from jax._src.cudnn import fused_attention_stablehlo as cudnn

    answers = {
        'check_cudnn_version': lambda: 91000,
        'check_compute_capability': lambda capability: True,
        'is_cuda_compute_capability_equal': lambda capability: False,
    }
    known = {name: answer for name, answer in answers.items() if hasattr(cudnn, name)}
    with mock.patch.multiple(cudnn, **known):
        yield


def _describe_gpu(chip: Chip) -> str:
    """The description of a GPU that XLA needs to compile for it."""
    major, minor = chip.capability
    return f"""
        gpu_device_info {{
          threads_per_block_limit: 1024 threads_per_warp: 32 shared_memory_per_block: 49152
          shared_memory_per_core: {(chip.shared_kib + 1) * 1024} threads_per_core_limit: 2048
          core_count: {chip.num_cores} fpus_per_core: {64 if major == 8 else 128}
          block_dim_limit_x: 2147483647 block_dim_limit_y: 65535 block_dim_limit_z: 65535
          memory_bandwidth: {chip.bandwidth_gbps * 10**9:.0f} l2_cache_size: {chip.l2_mib << 20}
          clock_rate_ghz: {chip.clock_ghz} device_memory_size: {int(chip.memory_gib * 2**30)}
          shared_memory_per_block_optin: {chip.shared_kib * 1024}
          cuda_compute_capability {{ major: {major} minor: {minor} }}
          registers_per_core_limit: 65536 registers_per_block_limit: 65536
        }}
        platform_name: "CUDA"
        dnn_version_info {{ major: 9 minor: 10 patch: 0 }}
        device_description_str: "{chip.name}"
    """
