//! The one boundary: frames, bursts, queues, ports, drop reasons.
