"""Identifier classes."""

import copy
import pickle

import pytest

import ray
from ray._ids import BaseID

SIZES = {
    ray.JobID: 4,
    ray.ActorID: 16,
    ray.TaskID: 24,
    ray.PlacementGroupID: 18,
    ray.NodeID: 28,
    ray.WorkerID: 28,
    ray.UniqueID: 28,
    ray.FunctionID: 28,
    ray.ActorClassID: 28,
    ray.ClusterID: 28,
}


@pytest.mark.parametrize("cls,size", SIZES.items())
def test_round_trips(cls, size):
    assert cls.size() == size
    one = cls.from_random()
    assert len(one.binary()) == size
    assert one == cls(one.binary()) == cls.from_binary(one.binary()) == cls.from_hex(one.hex())
    assert one == pickle.loads(pickle.dumps(one)) == copy.deepcopy(one)
    assert hash(one) == hash(cls(one.binary()))
    assert repr(one) == str(one) == f"{cls.__name__}({one.hex()})"
    assert isinstance(one, BaseID)
    assert not one.is_nil()
    assert cls.nil().is_nil() and cls.nil().binary() == b"\xff" * size
    assert bytes(one) == one.binary()


@pytest.mark.parametrize("cls,size", SIZES.items())
def test_bad_bytes(cls, size):
    with pytest.raises(ValueError, match=f"length {size}, got {size + 1}"):
        cls(b"a" * (size + 1))
    with pytest.raises(TypeError, match="Unsupported type: <class 'str'>"):
        cls("a" * size)
    with pytest.raises(ValueError):
        cls.from_hex("zz" * size)


def test_classes_are_apart():
    assert ray.NodeID(b"a" * 28) != ray.WorkerID(b"a" * 28)
    assert ray.NodeID(b"a" * 28) != b"a" * 28
    assert len({ray.NodeID(b"a" * 28), ray.WorkerID(b"a" * 28), ray.NodeID(b"a" * 28)}) == 2


def test_job_ids_count_from_one():
    one = ray.JobID.from_int(1)
    assert one.hex() == "01000000"
    assert one.int() == 1
    assert ray.JobID.from_int(2**32 - 1).int() == 2**32 - 1
    for wrong in (-1, 2**32):
        with pytest.raises(ValueError):
            ray.JobID.from_int(wrong)


def test_what_ids_contain():
    job = ray.JobID.from_int(7)
    driver = ray.TaskID.for_driver_task(job)
    assert driver.hex() == "ff" * 20 + "07000000"
    actor = ray.ActorID.of(job, driver, 1)
    assert actor.job_id == job
    assert actor != ray.ActorID.of(job, driver, 2)
    assert actor == ray.ActorID.of(job, driver, 1)
    task = ray.TaskID.for_actor_task(job, driver, 1, actor)
    assert task.actor_id() == actor and task.job_id() == job
    assert ray.TaskID.for_actor_creation_task(actor).actor_id() == actor
    plain = ray.TaskID.for_normal_task(job, driver, 3)
    assert plain.hex()[16:] == "ff" * 12 + "07000000"
    assert ray.PlacementGroupID.of(job).binary()[-4:] == job.binary()
    assert ray.WorkerID._for_driver(job).hex() == "07000000" + "ff" * 24


def test_object_ref_from_outside():
    ref = ray.ObjectRef.from_random()
    assert len(ref.binary()) == 28 and ray.ObjectID is ray.ObjectRef
    assert repr(ref) == f"ObjectRef({ref.hex()})"
    assert ref.task_id().binary() == ref.binary()[:24]
    assert ref.job_id().binary() == ref.binary()[20:24]
    assert ray.ObjectRef.nil().is_nil()
