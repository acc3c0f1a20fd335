//! System tests with real VMs and DPDK.
