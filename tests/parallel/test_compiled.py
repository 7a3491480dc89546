"""Counts from the text of compiled programs, compared with counts by hand."""

import jax
import jax.numpy as jnp
import pytest

from vivit_jax.parallel.compiled import Collectives, CompiledText

PROGRAM = """\
HloModule jit_step, is_scheduled=true, num_partitions=8

%fused (p: f32[4,8]) -> bf16[4,8] {
  %p = f32[4,8]{1,0} parameter(0)
  ROOT %c = bf16[4,8]{1,0} convert(%p)
}

%body (arg: (s32[], f32[4,8])) -> (s32[], f32[4,8]) {
  %arg = (s32[], f32[4,8]{1,0}) parameter(0)
  %x = f32[4,8]{1,0} get-tuple-element(%arg), index=1
  %y = f32[4,8]{1,0} negate(%x)
  %i = s32[] get-tuple-element(%arg), index=0
  ROOT %out = (s32[], f32[4,8]{1,0}) tuple(%i, %y)
}

%condition (arg.1: (s32[], f32[4,8])) -> pred[] {
  %arg.1 = (s32[], f32[4,8]{1,0}) parameter(0)
  ROOT %less = pred[] constant(true)
}

ENTRY %main (w: f32[4,8], n: s32[]) -> f32[4,8] {
  %w = f32[4,8]{1,0} parameter(0)
  %n = s32[] parameter(1)
  %start = (s32[], f32[4,8]{1,0}) tuple(%n, %w)
  %loop = (s32[], f32[4,8]{1,0}) while(%start), condition=%condition, body=%body, \
backend_config={"known_trip_count":{"n":"3"}}
  %v = f32[4,8]{1,0} get-tuple-element(%loop), index=1
  %q = bf16[2,6,3,5]{3,2,1,0} constant({...})
  %half = bf16[4,8]{1,0} fusion(%v), kind=kLoop, calls=%fused
  %mm = (bf16[4,4]{1,0}, s8[33554432]{0}) custom-call(%half, %half), \
custom_call_target="__cublas$lt$matmul", metadata={op_name="jit(step)/dot_general"}, \
backend_config={"gemm_backend_config":{"dot_dimension_numbers":{"lhs_contracting_dimensions":["1"]}}}
  %vmem = f32[4,8]{1,0:T(8,128)S(1)} negate(%v)
  %space = f32[99]{0} custom-call(), custom_call_target="AllocateBuffer"
  %att = (bf16[2,3,6,5]{3,1,2,0}, f32[2,3,6]{2,1,0}, u8[0]{0}) custom-call(%q, %q, %q), \
custom_call_target="__cudnn$fmhaSoftmax"
  %sum-start = f32[4,8]{1,0} all-reduce-start(%v), replica_groups=[2,4]<=[8], to_apply=%add
  %sum = f32[4,8]{1,0} all-reduce-done(%sum-start)
  %gather = (bf16[4,8]{1,0}, bf16[32,8]{1,0}) all-gather-start(%half), \
replica_groups={{0,1,2,3,4,5,6,7}}, dimensions={0}
  ROOT %r = f32[4,8]{1,0} copy(%sum)
}
"""


def test_collectives_are_counted_with_what_they_deliver():
    assert CompiledText(PROGRAM).collectives() == {
        'all-reduce': Collectives(1, 4 * 8 * 4, 2 * (4 * 8 * 4) * 3 // 4),
        'all-gather': Collectives(1, 32 * 8 * 2, 32 * 8 * 2 * 7 // 8),
    }


FUSED_COLLECTIVES = """\
HloModule jit_step

%first (p: bf16[4,8]) -> bf16[16,8] {
  %p = bf16[4,8]{1,0} parameter(0)
  ROOT %g = bf16[16,8]{1,0:T(8,128)S(1)} all-gather(%p), channel_id=7, \
replica_groups=mesh['axis_0'=2,'axis_1'=4] {'axis_1'}, dimensions={0}
}

%second (q: bf16[4,8]) -> bf16[16,8] {
  %q = bf16[4,8]{1,0} parameter(0)
  ROOT %h = bf16[16,8]{1,0} all-gather(%q), channel_id=7, \
replica_groups=mesh['axis_0'=2,'axis_1'=4] {'axis_1'}, dimensions={0}
}

%all-reduce-scatter.3 (input: bf16[16,8]) -> bf16[4,8] {
  %input = bf16[16,8]{1,0} parameter(0)
  %sum = bf16[16,8]{1,0} all-reduce(%input), channel_id=7, replica_groups=[2,4]<=[8]
  ROOT %part = bf16[4,8]{1,0} dynamic-slice(%sum), dynamic_slice_sizes={4,8}
}

ENTRY %main (w: bf16[4,8]) -> bf16[4,8] {
  %w = bf16[4,8]{1,0} parameter(0)
  %a = bf16[16,8]{1,0} fusion(%w), kind=kCustom, calls=%first
  %b = bf16[16,8]{1,0} fusion(%w), kind=kCustom, calls=%second
  %s = (bf16[4,8]{1,0:S(1)}, bf16[4,8]{1,0:S(1)}, u32[]{:S(2)}, u32[]{:S(2)}) \
collective-permute-start(%w), channel_id=8
  %part = bf16[4,8]{1,0} fusion(%a), kind=kCustom, calls=%all-reduce-scatter.3
  ROOT %d = bf16[4,8]{1,0} collective-permute-done(%s)
}
"""


def test_collectives_within_fusions_are_counted_once():
    assert CompiledText(FUSED_COLLECTIVES).collectives() == {
        'all-gather': Collectives(1, 16 * 8 * 2, 12 * 8 * 2),
        'reduce-scatter': Collectives(1, 4 * 8 * 2, 3 * 4 * 8 * 2),
        'collective-permute': Collectives(1, 4 * 8 * 2, 4 * 8 * 2),
    }


def test_kernels_are_counted_by_name():
    assert CompiledText(PROGRAM).kernels() == {
        '__cublas$lt$matmul': 1,
        '__cudnn$fmhaSoftmax': 1,
    }


def test_traffic_counts_loops_as_often_as_they_run_and_no_workspace():
    traffic = {x.name: size for x, size in CompiledText(PROGRAM).traffic()}
    whole, half = 4 * 8 * 4, 4 * 8 * 2
    assert traffic == {
        'y': 3 * 2 * whole,
        'half': whole + half,
        'mm': 2 * half + 4 * 4 * 2,
        'vmem': whole,  # an array in the vector memory of a TPU is not in its main memory
        'att': 4 * (2 * 6 * 3 * 5) * 2 + 2 * 3 * 6 * 4,
        'sum-start': 2 * whole,
        'gather': half + half + 32 * 8 * 2,
        'r': 2 * whole,
    }
    assert CompiledText(PROGRAM).bytes_moved() == sum(traffic.values())


def test_flops_are_those_of_products_and_of_attention():
    # Per example and head two products of 6x5 and 5x6, or 6x6 and 6x5.
    attention = 2 * 3 * 2 * (2 * 6 * 6 * 5)
    assert CompiledText(PROGRAM).product_flops() == 2 * 4 * 4 * 8 + attention


@pytest.mark.parametrize(('step', 'turns'), [(1, 7), (2, 4)])
def test_loop_without_a_note_runs_as_often_as_its_counter_says(step, turns):
    noted = ', backend_config={"known_trip_count":{"n":"3"}}'
    limit = (
        '  %n.1 = u32[]{:T(128)} get-tuple-element(%arg.1), index=0\n'
        '  %limit = u32[]{:T(128)} constant(7)\n'
        '  ROOT %less = pred[] compare(%n.1, %limit), direction=LT'
    )
    program = PROGRAM.replace(noted, '').replace('  ROOT %less = pred[] constant(true)', limit)
    counts = f'  %two = u32[] constant({step})\n  %next = u32[] add(%i, %two)\n  ROOT %out'
    program = program.replace('  ROOT %out', counts, 1).replace('tuple(%i, %y)', 'tuple(%next, %y)')
    traffic = {x.name: size for x, size in CompiledText(program).traffic()}
    assert traffic['y'] == turns * 2 * 4 * 8 * 4


def test_program_of_this_jax_is_read():
    def step(x):
        return jax.lax.fori_loop(0, 5, lambda _, x: jnp.sin(x) @ x, x)

    x = jax.ShapeDtypeStruct((64, 64), jnp.float32)
    text = CompiledText(jax.jit(step).lower(x).compile().as_text())
    # Five products, each of which reads two matrices and writes one, at the very least.
    assert 5 * 3 * 64 * 64 * 4 <= text.bytes_moved() <= 100 * 64 * 64 * 4
    assert text.product_flops() == 5 * 2 * 64**3
    assert text.collectives() == {}
