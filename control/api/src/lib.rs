//! HTTP and JSON on a Unix socket, and metrics.
