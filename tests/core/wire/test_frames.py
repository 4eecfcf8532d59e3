"""tunnel.core.wire.frames: the numbers on the wire are those of tunnel.proto, and frames are values."""

from __future__ import annotations

import dataclasses

import pytest

from protos import tunnel_pb2 as pb
from tunnel.core.wire import frames as f
from tunnel.core.wire.errors import Code


def test_classes_are_numbered_as_in_the_proto_file() -> None:
    declared = {name.removeprefix("TRAFFIC_CLASS_"): number for name, number in pb.TrafficClass.items()}
    assert declared == {one.name: one.value for one in f.TrafficClass}


def test_there_is_a_frame_for_each_kind_in_the_proto_file() -> None:
    kinds = [field.name for field in pb.Frame.DESCRIPTOR.oneofs_by_name["kind"].fields]
    ours = [
        "".join(f"_{char.lower()}" if char.isupper() else char for char in one.__name__)[1:] for one in f.Frame.__args__
    ]
    assert kinds == ours


def test_frames_are_values() -> None:
    frame = f.Reset(1, Code.REFUSED, "no")
    assert frame == f.Reset(1, Code.REFUSED, "no")
    with pytest.raises(dataclasses.FrozenInstanceError):
        frame.text = "yes"  # type: ignore[misc]
