"""The cluster's key-value store, as libraries on top of Ray use it."""

import pytest

from ray.experimental import internal_kv as kv

pytestmark = pytest.mark.usefixtures("shared_ray")


def test_put_get_delete():
    ns = b"put_get_delete"
    assert kv._internal_kv_put(b"a", b"1", namespace=ns) is False
    assert kv._internal_kv_put(b"a", b"2", overwrite=False, namespace=ns) is True
    assert kv._internal_kv_get(b"a", namespace=ns) == b"1" and kv._internal_kv_get(b"a") is None
    assert kv._internal_kv_put("a", "3", namespace=ns) is True and kv._internal_kv_get("a", namespace=ns) == b"3"
    assert kv._internal_kv_exists(b"a", namespace=ns) and not kv._internal_kv_exists(b"b", namespace=ns)
    assert kv._internal_kv_del(b"a", namespace=ns) == 1 and kv._internal_kv_del(b"a", namespace=ns) == 0
    assert kv._internal_kv_get(b"a", namespace=ns) is None


def test_keys_that_begin_alike():
    ns = b"alike"
    for key in (b"a", b"ab", b"b", b"\xff\x00"):
        kv._internal_kv_put(key, key, namespace=ns)
    assert sorted(kv._internal_kv_list(b"a", namespace=ns)) == [b"a", b"ab"]
    assert kv._internal_kv_list(b"\xff", namespace=ns) == [b"\xff\x00"]
    assert kv._internal_kv_get(b"\xff\x00", namespace=ns) == b"\xff\x00"
    assert kv._internal_kv_del(b"a", del_by_prefix=True, namespace=ns) == 2
    assert sorted(kv._internal_kv_list(b"", namespace=ns)) == [b"b", b"\xff\x00"]


def test_what_is_no_bytes():
    with pytest.raises(TypeError, match="are bytes, got <class 'int'>"):
        kv._internal_kv_put(3, b"x")
