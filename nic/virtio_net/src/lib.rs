//! The virtio-net model: features, queues of a port.
