//! What root may do, and the daemon need not.
//!
//! Only a TAP uplink needs a capability (`CAP_NET_ADMIN`, to make or attach to a device that is not the user's own).
//! Everything else the daemon does with the rights of its user. So all others are dropped, for good: from the
//! effective, permitted and inheritable sets, from the ambient one, and, as far as allowed, from the bounding set.

use anyhow::{Context as _, Result, anyhow};
use caps::{CapSet, Capability, CapsHashSet};

/// Reads a capability's name, with or without `CAP_`, in any case.
pub(crate) fn parse(name: &str) -> Result<Capability> {
    caps::to_canonical(name)
        .parse()
        .map_err(|_| anyhow!("`{name}` is no capability, expected one of capabilities(7)"))
}

/// Drops all but `keep` from this thread and those it will start. Gives the ones that are left.
pub(crate) fn drop_all_but(keep: &[Capability]) -> Result<Vec<Capability>> {
    let permitted = caps::read(None, CapSet::Permitted).context("cannot read the capabilities")?;
    let left: CapsHashSet = permitted.iter().copied().filter(|cap| keep.contains(cap)).collect();
    if permitted.contains(&Capability::CAP_SETPCAP) {
        let bounding = caps::read(None, CapSet::Bounding).context("cannot read the bounding set")?;
        for cap in bounding.difference(&left) {
            caps::drop(None, CapSet::Bounding, *cap)
                .with_context(|| format!("cannot drop {cap} for good"))?;
        }
    }
    // A kernel without ambient capabilities has none to clear.
    let _ = caps::clear(None, CapSet::Ambient);
    let dropped = "cannot drop capabilities";
    caps::set(None, CapSet::Effective, &left).context(dropped)?;
    caps::set(None, CapSet::Permitted, &left).context(dropped)?;
    caps::set(None, CapSet::Inheritable, &CapsHashSet::new()).context(dropped)?;
    let mut left: Vec<_> = left.into_iter().collect();
    left.sort_unstable_by_key(Capability::index);
    Ok(left)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_as_people_write_them() {
        for name in ["CAP_NET_ADMIN", "net_admin", "cap_net_admin"] {
            assert_eq!(parse(name).unwrap(), Capability::CAP_NET_ADMIN);
        }
        assert!(parse("net_god").unwrap_err().to_string().contains("net_god"));
    }

    #[test]
    fn nothing_is_left_but_what_is_kept() {
        // Capabilities are a thread's own: this one only.
        std::thread::spawn(|| {
            let had = caps::read(None, CapSet::Permitted).unwrap();
            let left = drop_all_but(&[Capability::CAP_NET_ADMIN]).unwrap();
            assert_eq!(left.contains(&Capability::CAP_NET_ADMIN), had.contains(&Capability::CAP_NET_ADMIN));
            assert!(left.len() <= 1);
            assert_eq!(caps::read(None, CapSet::Effective).unwrap().len(), left.len());
            assert!(drop_all_but(&[]).unwrap().is_empty());
            assert!(
                caps::raise(None, CapSet::Effective, Capability::CAP_NET_ADMIN).is_err(),
                "gone for good"
            );
        })
        .join()
        .unwrap();
    }
}
