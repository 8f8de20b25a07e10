"""Collectives, loops and groups are read from a program's text as XLA writes it for TPUs."""

from __future__ import annotations

import jax
import numpy as np
import pytest

from llm_jax.preflight.exchanges import Exchange, by_axes
from llm_jax.preflight.hlo import Program, _groups, array_bytes

# Shortened from a compiled step: a loop of 3 with an overlapped all-gather (a chain of fusions that
# all carry it) and a reduce-scatter, then an all-reduce of a tuple, and a permutation.
TEXT = """HloModule jit_step, is_scheduled=true

%start (p: bf16[32,8]) -> bf16[128,8] {
  ROOT %all-gather.1 = bf16[128,8]{1,0:T(8,128)(2,1)} all-gather(%p), channel_id=4, replica_groups=[2,4]<=[4,2]T(1,0), dimensions={0}, frontend_attributes={chain_id="2"}
}

%async_collective_fusion.1 (p: bf16[32,8]) -> bf16[128,8] {
  ROOT %all-gather.2 = bf16[128,8]{1,0:T(8,128)(2,1)} all-gather(%p), channel_id=4, replica_groups=[2,4]<=[4,2]T(1,0), dimensions={0}, frontend_attributes={chain_id="2"}
}

%all-reduce-scatter.1 (p: bf16[128,8]) -> bf16[32,8] {
  %all-reduce.7 = bf16[128,8]{1,0} all-reduce(%p), channel_id=1, replica_groups={{0,2,4,6},{1,3,5,7}}, to_apply=%add
  ROOT %slice = bf16[32,8]{1,0} dynamic-slice(%all-reduce.7), dynamic_slice_sizes={32,8}
}

%body (arg: (s32[], bf16[32,8])) -> (s32[], bf16[32,8]) {
  %arg = (s32[], bf16[32,8]) parameter(0)
  %fusion.1 = bf16[128,8]{1,0} fusion(%arg), kind=kCustom, calls=%start, backend_config={"estimated_cycles":"100"}
  %fusion.2 = bf16[128,8]{1,0} fusion(%fusion.1), kind=kCustom, calls=%async_collective_fusion.1
  %fusion.3 = bf16[32,8]{1,0} fusion(%fusion.2), kind=kCustom, calls=%all-reduce-scatter.1
  ROOT %tuple = (s32[], bf16[32,8]) tuple(%arg, %fusion.3)
}

%condition (arg: (s32[], bf16[32,8])) -> pred[] {
  %limit = s32[]{:T(128)} constant(3)
  %arg = (s32[], bf16[32,8]) parameter(0)
  %i = s32[] get-tuple-element(%arg), index=0
  ROOT %compare = pred[] compare(%i, %limit), direction=LT
}

ENTRY %main (p: bf16[32,8]) -> f32[] {
  %p = bf16[32,8]{1,0} parameter(0)
  %while.1 = (s32[], bf16[32,8]) while(%p), condition=%condition, body=%body
  %all-reduce.9 = (f32[]{:T(128)}, f32[4]{0}) all-reduce(%a, %b), channel_id=42, replica_groups=mesh['axis_0'=4,'axis_1'=1,'axis_2'=2] {'axis_0','axis_2'}, to_apply=%add
  %permute = f32[16]{0} collective-permute(%c), channel_id=43, source_target_pairs={{0,1},{1,0}}, metadata={op_name="jit(step)/ring"}
  ROOT %out = f32[] fusion(%p), kind=kLoop, calls=%add, backend_config={"estimated_cycles":"7"}
}

%add (x: f32[], y: f32[]) -> f32[] {
  ROOT %sum = f32[] add(%x, %y)
}
"""  # noqa: E501
MESH = jax.sharding.AbstractMesh((4, 2), ("fsdp", "tensor"))


def test_loops_and_chains_are_counted_once_each_time() -> None:
    program = Program(TEXT)
    assert program.times["body"] == 3
    assert program.estimated_cycles() == 3 * 100 + 7
    assert by_axes(program.collectives(), MESH) == [
        Exchange("all-gather", ("fsdp",), 3, 3 * 128 * 8 * 2),
        Exchange("reduce-scatter", ("fsdp",), 3, 3 * 128 * 8 * 2),
        Exchange("collective-permute", ("tensor",), 1, 64),
        Exchange("all-reduce", ("fsdp", "tensor"), 1, 4 + 16),
    ]
    names = {one.kind: one.name for one in program.collectives()}
    assert names["collective-permute"] == "jit(step)/ring"


def test_exchanges_between_slices_are_sends_to_the_host() -> None:
    """Shortened from a step of two slices: the 128 KiB of a layer's gradients, in a loop of 3."""
    send = (
        "  %send.1 = (f32[128,8,32]{2,1,0}, u32[], token[]) send(%arg, %after), channel_id=5, "
        "is_host_transfer=true, frontend_attributes="
        '{_xla_host_transfer_handler_name="xla_megascale_runtime",'
        '_xla_host_transfer_rendezvous="psum.17_0",_xla_megascale_target="{1,2}x{0:3}",'
        '_xla_megascale_transfer_type="ALL_REDUCE"}\n'
    )
    place = "  ROOT %tuple = (s32[], bf16[32,8]) tuple("
    program = Program(TEXT.replace(place, send + place))
    both = jax.sharding.AbstractMesh((2, 2, 4, 2), ("replica", "pipeline", "fsdp", "tensor"))
    one = jax.sharding.AbstractMesh((1, 2, 4, 2), ("replica", "pipeline", "fsdp", "tensor"))
    sent = [x for x in program.collectives() if x.between_slices]
    assert [x.name for x in sent] == ["psum.17_0"]
    assert by_axes(sent, both) == [Exchange("all-reduce", ("replica",), 3, 3 * 128 * 8 * 32 * 4)]
    assert by_axes(sent, one)[0].axes == ("pipeline",)


def test_a_loop_without_a_constant_limit_is_refused() -> None:
    text = TEXT.replace("constant(3)", "parameter(1)")
    with pytest.raises(ValueError, match=r"the loop while\.1 has the limits \[\]"):
        Program(text).collectives()


@pytest.mark.parametrize(
    ("attributes", "groups"),
    [
        ("replica_groups={{0,1},{2,3}}, x", [[0, 1], [2, 3]]),
        ("replica_groups=[2,2]<=[4], x", [[0, 1], [2, 3]]),
        ("replica_groups=[2,2]<=[2,2]T(1,0), x", [[0, 2], [1, 3]]),
        ("replica_groups=mesh['a'=2,'b'=2] {'a'}, x", [[0, 2], [1, 3]]),
        ("replica_groups=mesh['a'=2,'b'=2], device_ids=([2,2]T(1,0)) {'b'}, x", [[0, 2], [1, 3]]),
        ("replica_groups=mesh['a'=4] {'a':(1)2}, x", [[0, 2], [1, 3]]),
        ("replica_groups=mesh['a'=4] {'a':(2)2}, x", [[0, 1], [2, 3]]),
    ],
)
def test_groups_in_every_notation(attributes: str, groups: list[list[int]]) -> None:
    assert _groups(attributes, "all-reduce").tolist() == groups


def test_unknown_groups_are_refused() -> None:
    with pytest.raises(ValueError, match="unknown replica groups in replica_groups=other"):
        _groups("replica_groups=other", "all-reduce")


def test_array_bytes() -> None:
    assert array_bytes("(bf16[2,3]{1,0:T(2,128)(2,1)}, f32[], pred[5], f8e4m3fn[4])") == [
        12,
        4,
        5,
        4,
    ]
    assert np.sum(array_bytes("s32[]{:T(128)}")) == 4
