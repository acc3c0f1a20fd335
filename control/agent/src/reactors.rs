//! The threads that serve VMs' sockets: one for each protocol.

/// Both of them.
#[derive(Debug)]
pub(crate) struct Reactors {
    /// Para-virtual cards.
    pub(crate) vhost: fabnic_vhost_user::Reactor,
    /// PCI cards.
    pub(crate) vfio: fabnic_vfio_user::Reactor,
}

impl Reactors {
    pub(crate) fn spawn() -> std::io::Result<Reactors> {
        Ok(Reactors {
            vhost: fabnic_vhost_user::Reactor::spawn()?,
            vfio: fabnic_vfio_user::Reactor::spawn()?,
        })
    }
}
