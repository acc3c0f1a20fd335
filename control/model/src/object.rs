//! What has a name in a domain: rules, groups, meters, mirrors, tenants.
//!
//! Names are looked up in the domain in which they stand: infrastructure's `gold` and tenant blue's `gold` are two
//! meters, and neither domain can find out what the other has. To whoever sees both, blue's is `blue/gold`: its
//! *qualified* name, which is what changes, requests and the command line call it.

use std::sync::Arc;

use serde::Serialize;

use crate::{Group, Meter, Mirror, Rule, Tenant};

/// Something with a name in a domain.
pub trait Object: Clone + PartialEq + Serialize {
    /// Its kind, as the file's table is called.
    const KIND: &'static str;
    /// Its name in its domain.
    fn name(&self) -> &str;
    /// The tenant whose it is; infrastructure's if nobody's.
    fn tenant(&self) -> Option<&str>;

    /// Its name among all domains.
    fn qualified(&self) -> String {
        qualified(self.tenant(), self.name())
    }
}

/// `NAME`, or `TENANT/NAME` of what is a tenant's.
#[must_use]
pub fn qualified(tenant: Option<&str>, name: &str) -> String {
    match tenant {
        None => name.to_owned(),
        Some(tenant) => format!("{tenant}/{name}"),
    }
}

impl<T: Object> Object for Arc<T> {
    const KIND: &'static str = T::KIND;

    fn name(&self) -> &str {
        T::name(self)
    }

    fn tenant(&self) -> Option<&str> {
        T::tenant(self)
    }
}

macro_rules! objects {
    ($($type:ty = $kind:literal,)*) => {
        $(
            impl Object for $type {
                const KIND: &'static str = $kind;

                fn name(&self) -> &str {
                    &self.name
                }

                fn tenant(&self) -> Option<&str> {
                    self.tenant.as_deref()
                }
            }
        )*
    };
}

objects! {
    Rule = "rule",
    Group = "group",
    Meter = "meter",
    Mirror = "mirror",
}

impl Object for Tenant {
    const KIND: &'static str = "tenant";

    fn name(&self) -> &str {
        &self.name
    }

    fn tenant(&self) -> Option<&str> {
        None
    }
}
