//! The real daemon between real VMs, DPDK and the kernel. See the library's page for how they are run.

mod cards;
mod crash;
mod dpdk;
mod scale;
mod vms;
