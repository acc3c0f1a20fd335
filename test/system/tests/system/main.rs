//! The real daemon between real VMs, DPDK and the kernel. See the library's page for how they are run.

mod avf;
mod boot;
mod cards;
mod crash;
mod dpdk;
mod guest;
mod life;
mod oracle;
mod pmd;
mod scale;
mod vms;
