"""``ray.util.joblib.register_ray``."""

import os

import pytest

joblib = pytest.importorskip("joblib", exc_type=ImportError)
pytestmark = pytest.mark.usefixtures("shared_ray")


@pytest.fixture(autouse=True)
def backend():
    from ray.util.joblib import register_ray

    register_ray()


def fail(x):
    raise KeyError(x)


def test_parallel():
    with joblib.parallel_backend("ray"):
        assert joblib.Parallel()(joblib.delayed(abs)(-i) for i in range(20)) == list(range(20))
        pids = set(joblib.Parallel(n_jobs=2)(joblib.delayed(os.getpid)() for _ in range(8)))
        assert os.getpid() not in pids and 1 <= len(pids) <= 2
        assert joblib.Parallel(n_jobs=1)([joblib.delayed(os.getpid)()]) == [os.getpid()]
    assert joblib.Parallel(n_jobs=2, backend="ray")(joblib.delayed(abs)(-i) for i in range(3)) == [0, 1, 2]


def test_numbers_of_jobs():
    from joblib.parallel import get_active_backend

    with joblib.parallel_backend("ray"):
        backend, n_jobs = get_active_backend()
        assert n_jobs == -1
        assert [backend.effective_n_jobs(n) for n in (-1, -2, 7, None)] == [4, 3, 7, 1]


def test_errors():
    with joblib.parallel_backend("ray"), pytest.raises(KeyError):
        joblib.Parallel(n_jobs=2)(joblib.delayed(fail)(i) for i in range(4))


def test_options_of_actors():
    with joblib.parallel_backend("ray", ray_remote_args={"num_cpus": 0.5}):
        assert joblib.Parallel(n_jobs=2)(joblib.delayed(abs)(-i) for i in range(3)) == [0, 1, 2]
