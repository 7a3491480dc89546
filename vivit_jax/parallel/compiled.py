"""Counts the operations of a compiled program, from the text of it that XLA prints.

All counts are for one device. The body of a loop counts as often as the loop runs, if XLA knows.
"""

import collections
import dataclasses
import math
import re
from collections.abc import Iterator

_COLLECTIVES = ('all-reduce', 'all-gather', 'reduce-scatter', 'all-to-all', 'collective-permute')
# Opcodes that move no data: they name (parts of) other arrays, or start or end other operations.
_FREE = (
    *('parameter', 'constant', 'tuple', 'get-tuple-element', 'bitcast', 'after-all', 'iota'),
    *('partition-id', 'replica-id', 'opt-barrier', 'while', 'conditional', 'call', 'async-start'),
)
_MATRIX_PRODUCT = re.compile(r'custom_call_target="__cublas')
_WORKSPACE = re.compile(r's8\[\d+\]')

# The number of products with attention weights [n n] in a kernel. The gradient has 4, and computes
# the weights again.
_PRODUCTS_OF_ATTENTION = {'__cudnn$fmhaSoftmax': 2, '__cudnn$fmhaSoftmaxBackward': 5}
# XLA's own custom calls, which name memory and compute nothing.
_INTERNAL = ('AllocateBuffer', 'ConcatBitcast')

_INSTRUCTION = re.compile(r'^\s*(?:ROOT )?%?([\w.-]+) = (\(.*?\)|\S+) ([\w-]+)\((.*)$')
_COMPUTATION = re.compile(r'^(ENTRY )?%?([\w.-]+) \(.*\) -> .*\{$')
_SHAPE = re.compile(r'\b(pred|[a-z]+\d+\w*)\[([\d,]*)\](\{[^}]*\})?')
_VECTOR_MEMORY = 'S(1)'  # marks arrays in a TPU's vector memory instead of its main memory
_SCATTER = 'all-reduce-scatter'  # of fusions that are a reduce-scatter, on TPUs
_TRIPS = re.compile(r'"known_trip_count":\{"n":"(\d+)"')


@dataclasses.dataclass(frozen=True)
class Collectives:
    """The collectives of one kind.

    Attributes:
        count: how often they run.
        delivered: bytes of their results on one device.
        sent: the fewest bytes that one device must send for them, as around a ring.
    """

    count: int = 0
    delivered: int = 0
    sent: int = 0


@dataclasses.dataclass(frozen=True)
class Instruction:
    """One operation of a device, such as a fusion, a kernel or a copy.

    Attributes:
        name: the name within its computation.
        opcode: XLA's name for the kind of operation.
        shape: the shape of the result, as printed.
        operands: the names of the operands.
        text: the rest of the line after the opcode.
        repeats: how often the operation runs.
    """

    name: str
    opcode: str
    shape: str
    operands: tuple[str, ...]
    text: str
    repeats: int = 1

    @property
    def kernel(self) -> str:
        """The target of a custom call, such as `'__cudnn$fmhaSoftmax'`; else ''."""
        found = re.search(r'custom_call_target="([^"]+)"', self.text)
        if self.opcode != 'custom-call' or not found or found[1] in _INTERNAL:
            return ''
        if found[1] == 'tpu_custom_call':
            name = re.search(r'"kernel_name":\s*"([^"]+)"|op_name="(?:[^"]*/)?([^/"]+)"', self.text)
            return f'tpu_custom_call {(name[1] or name[2]) if name else ""}'.rstrip()
        return found[1]


class CompiledText:
    """The instructions of a compiled program.

    Args:
        text: `compiled.as_text()`.
    """

    def __init__(self, text: str):
        self._computations: dict[str, list[Instruction]] = {}
        entry, current = '', []
        for line in text.splitlines():
            if found := _COMPUTATION.match(line):
                current = self._computations.setdefault(found[2], [])
                entry = found[2] if found[1] else entry
            elif found := _INSTRUCTION.match(line):
                name, shape, opcode, rest = found.groups()
                arguments = rest.split('), ')[0]
                operands = tuple(re.findall(r'%([\w.-]+)', arguments))
                current.append(Instruction(name, opcode, shape, operands, rest))
        self._shapes = {x.name: x.shape for xs in self._computations.values() for x in xs}
        self.instructions = list(self._walk(entry, 1))

    def collectives(self) -> dict[str, Collectives]:
        """What devices send each other, by kind of collective."""
        found = collections.defaultdict(Collectives)
        for x in self._with_fused():
            kind = x.opcode.removesuffix('-start')
            if kind not in _COLLECTIVES:
                continue
            # The shape of a '-start' holds operands and then results, several of each if XLA
            # combined collectives, and scalars that mark its state.
            shapes = _sizes(re.sub(r'\b\w+\[\](\{[^}]*\})?', '', x.shape), in_main_memory=False)
            half = x.opcode.endswith('-start') and kind != 'all-reduce'
            size = sum(shapes[len(shapes) // 2 :] if half else shapes)
            before, sent = found[kind], _sent(kind, size, _group_size(x.text))
            found[kind] = Collectives(
                before.count + x.repeats,
                before.delivered + size * x.repeats,
                before.sent + sent * x.repeats,
            )
        return dict(found)

    def sent(self) -> int:
        """The fewest bytes that one device must send for all collectives."""
        return sum(x.sent for x in self.collectives().values())

    def kernels(self) -> dict[str, int]:
        """How often each kernel of another library runs, by its name."""
        counts = collections.Counter()
        for x in self.instructions:
            if x.kernel:
                counts[x.kernel] += x.repeats
        return dict(counts)

    def product_flops(self) -> int:
        """FLOPs of matrix products and of attention, two for each multiply-add, on GPUs and CPUs.

        Products that a compiler for TPUs writes as convolutions are not counted.
        """
        return sum(
            x.repeats * _product_flops(x, self._shapes.get(x.operands[0], ''))
            for x in self._with_fused()
            if x.operands
        )

    def bytes_moved(self) -> int:
        """Bytes that the operations read and write if no operand is found in a cache.

        Each operand counts as a whole, even if only a part of it is read.
        """
        return sum(size for _, size in self.traffic())

    def traffic(self) -> Iterator[tuple[Instruction, int]]:
        """Every operation that moves data, with the bytes that it reads and writes."""
        for x in self.instructions:
            if x.opcode in _FREE or x.opcode.endswith('-done'):
                continue
            if x.opcode == 'custom-call' and not x.kernel:
                continue
            results = x.shape
            if _MATRIX_PRODUCT.search(x.text):
                results = _WORKSPACE.sub('', results)  # workspace is reserved, but hardly used
            operands = (self._shapes.get(name, '') for name in x.operands)
            yield x, x.repeats * sum(map(sum, map(_sizes, (results, *operands))))

    def _with_fused(self) -> Iterator[Instruction]:
        """The operations, and the operations within fusions."""
        channels = set()
        for x in self.instructions:
            yield x
            called = re.search(r'calls=%?([\w.-]+)', x.text) if x.opcode == 'fusion' else None
            for fused in self._computations.get(called[1], ()) if called else ():
                fused = dataclasses.replace(fused, repeats=x.repeats)
                channel = re.search(r'channel_id=\d+', fused.text)
                if called[1].startswith(_SCATTER):
                    if fused.opcode == 'all-reduce':
                        yield dataclasses.replace(fused, opcode='reduce-scatter', shape=x.shape)
                elif channel is None:
                    yield fused
                elif channel[0] not in channels:  # several fusions may work on one collective
                    channels.add(channel[0])
                    yield fused

    def _walk(self, computation: str, repeats: int) -> Iterator[Instruction]:
        """The operations that a computation runs, also in loops and branches; a fusion is one."""
        for x in self._computations.get(computation, ()):
            yield dataclasses.replace(x, repeats=repeats)
            if x.opcode == 'while':
                condition, body = (
                    re.search(rf'{part}=%?([\w.-]+)', x.text)[1] for part in ('condition', 'body')
                )
                yield from self._walk(body, repeats * self._trips(x, condition, body))
            elif x.opcode == 'conditional':  # only one branch runs: count the largest
                named = re.search(r'branch_computations=\{([^}]*)\}', x.text)
                names = (
                    named[1]
                    if named
                    else ' '.join(re.findall(r'(?:true|false)_computation=(%?[\w.-]+)', x.text))
                )
                branches = [list(self._walk(n, repeats)) for n in re.findall(r'[\w.-]+', names)]
                yield from max(branches, key=len, default=[])
            elif x.opcode in ('call', 'async-start'):
                called = re.search(r'(?:to_apply|calls)=%?([\w.-]+)', x.text)
                if called:
                    yield from self._walk(called[1], repeats)

    def _trips(self, loop: Instruction, condition: str, body: str) -> int:
        """How often a loop runs, by XLA's note or by the limit and steps of its counter; else 1."""
        if noted := _TRIPS.search(loop.text):
            return int(noted[1])
        steps = self._computations[condition]
        limits = [x for x in steps if _is_integer(x)]
        if len(limits) != 1 or 'direction=LT' not in steps[-1].text:
            return 1
        return math.ceil(_constant(limits[0]) / self._increment(steps, body))

    def _increment(self, condition: list[Instruction], body: str) -> int:
        """What a turn of a loop adds to the counter that the condition reads; 1 if unknown."""
        index = re.search(r'index=(\d+)', ' '.join(x.text for x in condition))
        by_name = {x.name: x for x in self._computations[body]}
        turn = self._computations[body][-1]
        if not index or int(index[1]) >= len(turn.operands):
            return 1
        added = by_name.get(turn.operands[int(index[1])])
        if added is None or added.opcode != 'add':
            return 1
        constants = [x for x in map(by_name.get, added.operands) if x and _is_integer(x)]
        return _constant(constants[0]) if constants else 1


def _is_integer(x: Instruction) -> bool:
    return x.opcode == 'constant' and bool(re.match(r'[su]32\[\]', x.shape))


def _constant(x: Instruction) -> int:
    return int(x.text.partition(')')[0])


def _group_size(text: str) -> int:
    """How many devices take part in a collective, from one of the three forms that XLA prints."""
    if found := re.search(r'replica_groups=\[\d+,(\d+)\]<=', text):
        return int(found[1])
    if found := re.search(r'replica_groups=\{\{([\d,]*)\}', text):
        return len(_dims(found[1]))
    if found := re.search(r'replica_groups=mesh\[([^]]*)\].*? \{([^}]*)\}', text):
        sizes = dict(re.findall(r"'(\w+)'=(\d+)", found[1]))
        axes = re.findall(r"'(\w+)'(?::\(\d+\)(\d+))?", found[2])
        return math.prod(int(part or sizes[axis]) for axis, part in axes)
    return 0


def _sent(kind: str, size: int, group: int) -> int:
    """Bytes that each of `group` devices must send for a result of `size` bytes."""
    if kind == 'collective-permute':
        return size
    others = max(0, group - 1)
    if kind == 'reduce-scatter':
        return size * others
    return size * others // max(1, group) * (2 if kind == 'all-reduce' else 1)


def _sizes(shape: str, in_main_memory: bool = True) -> list[int]:
    """Bytes of each array in a shape, which may be a tuple of arrays.

    With `in_main_memory`, arrays in a TPU's vector memory have no bytes.
    """
    return [
        0
        if in_main_memory and _VECTOR_MEMORY in layout
        else int(_bytes(kind) * math.prod(_dims(dims)))
        for kind, dims, layout in _SHAPE.findall(shape)
    ]


def _dims(text: str) -> list[int]:
    return [int(size) for size in text.split(',') if size]


def _bytes(kind: str) -> float:
    bits = re.search(r'\d+', kind)
    return 1 if kind == 'pred' or not bits else int(bits[0]) / 8


def _product_flops(instruction: Instruction, operand: str) -> int:
    """FLOPs of a matrix product or of attention, given the first operand's shape; else 0."""
    if instruction.opcode == 'dot':
        contracted = re.search(r'lhs_contracting_dims=\{([\d,]*)\}', instruction.text)[1]
    elif _MATRIX_PRODUCT.search(instruction.text):
        contracted = re.search(r'"lhs_contracting_dimensions":\[([^\]]*)\]', instruction.text)[1]
        contracted = contracted.replace('"', '')
    elif products := _PRODUCTS_OF_ATTENTION.get(instruction.kernel):
        batch, length, heads, channels = _dims(_SHAPE.search(operand)[2])
        return 2 * products * batch * heads * length**2 * channels
    else:
        return 0
    sizes = _dims(_SHAPE.search(operand)[2])
    outputs = math.prod(_dims(_SHAPE.search(instruction.shape)[2]))
    return 2 * outputs * math.prod(sizes[axis] for axis in _dims(contracted))
