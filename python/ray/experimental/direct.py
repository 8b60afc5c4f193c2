"""Tensors that go from device to device, beside the object store: the names. They are not there yet."""

from ray._missing import missing

_FEATURE = "direct transport of tensors (ray.experimental.{})"


class CommunicatorMetadata:
    """What two actors must know to exchange tensors. Not there yet."""

    def __init__(self, *args, **kwargs):
        raise missing(_FEATURE.format("CommunicatorMetadata"))


class TensorTransportMetadata:
    """What is known of tensors that are sent. Not there yet."""

    def __init__(self, *args, **kwargs):
        raise missing(_FEATURE.format("TensorTransportMetadata"))


class TensorTransportManager:
    """The base of a program's own transports. Not there yet: none can be registered."""

    def __init__(self, *args, **kwargs):
        raise missing(_FEATURE.format("TensorTransportManager"))


def register_tensor_transport(transport_name, devices, transport_manager_class, data_type):
    """Add a transport. Not there yet."""
    raise missing(_FEATURE.format("register_tensor_transport"))


def register_nixl_memory(tensor):
    """Register the memory of a tensor with NIXL. Not there yet."""
    raise missing(_FEATURE.format("register_nixl_memory"))


def deregister_nixl_memory(tensor):
    """Undo register_nixl_memory. Not there yet."""
    raise missing(_FEATURE.format("deregister_nixl_memory"))


def register_nixl_memory_pool(size, device):
    """Register a pool of memory with NIXL. Not there yet."""
    raise missing(_FEATURE.format("register_nixl_memory_pool"))


def set_nixl_cuda_stream(stream):
    """Choose the stream on which NIXL waits. Not there yet."""
    raise missing(_FEATURE.format("set_nixl_cuda_stream"))


def set_target_for_ref(ref, target):
    """Choose the buffers into which the tensors of a ref are received. Not there yet."""
    raise missing(_FEATURE.format("set_target_for_ref"))


def set_target_device_for_ref(ref, target_device):
    """Choose the device on which the tensors of a ref are received. Not there yet."""
    raise missing(_FEATURE.format("set_target_device_for_ref"))


def wait_tensor_freed(tensor, timeout=None):
    """Wait until no ref needs a tensor any more. Not there yet."""
    raise missing(_FEATURE.format("wait_tensor_freed"))
