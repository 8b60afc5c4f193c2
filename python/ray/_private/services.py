"""Addresses of this machine, under the names that other packages import."""

from ray.util import get_node_ip_address

__all__ = ["get_node_ip_address"]
