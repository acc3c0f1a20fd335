//! Tenants: control domains beside infrastructure's, each with ports, rules and quotas of its own.
//!
//! A tenant reaches the API on a socket of its own, where the kernel says who it is, or with a token, of which the
//! configuration has the SHA-256 only. What it may do there is the affair of its ports' `tenant_keys`; that its rules cannot undo
//! what infrastructure decided is [`mod@crate::check`]'s, whoever wrote them.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::{
    Change, Refusal,
    parse::shortened,
    word::{WordError, word},
};

/// A tenant.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Tenant {
    /// Name, 1 to 63 of `a-z A-Z 0-9 _ . -`, not twice among tenants.
    pub name: String,
    /// Unix socket of the tenant's own API, at most 107 bytes long. Everybody may open it; who is answered, `uids` and
    /// `token` say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub socket: Option<String>,
    /// Users who are the tenant on its socket, as the kernel knows them (`SO_PEERCRED`).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub uids: Vec<u32>,
    /// SHA-256 of the tenant's token, `sha256:` and 64 hexadecimal digits, as `fabnic tenant token` makes one. A request
    /// with the token is the tenant's, on its socket and on infrastructure's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<TokenHash>,
    /// Rate with its burst that all ports of the tenant together may send: what is beyond is dropped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub police: Option<crate::Police>,
    /// Rate at which all ports of the tenant together are read at most.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_tx_rate: Option<crate::Rate>,
    /// What the tenant may have at most.
    #[serde(default)]
    pub quota: Quota,
}

/// What a tenant may have at most.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema, utoipa::ToSchema,
)]
#[serde(deny_unknown_fields, default)]
pub struct Quota {
    /// Rules. Together they may come to sixteen times as many matches: one for each port and each address of a group.
    pub rules: u32,
    /// Security groups.
    pub groups: u32,
    /// Addresses in all its groups together.
    pub addresses: u32,
    /// Meters.
    pub meters: u32,
    /// Mirrors.
    pub mirrors: u32,
    /// Connections that are tracked, of all its ports together.
    pub connections: u32,
    /// Addresses that are learned on its ports together.
    pub fdb_entries: u32,
}

impl Default for Quota {
    fn default() -> Self {
        Self {
            rules: 1000,
            groups: 100,
            addresses: 10_000,
            meters: 100,
            mirrors: 4,
            connections: 262_144,
            fdb_entries: 16_384,
        }
    }
}

/// SHA-256 of a token.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct TokenHash(pub [u8; 32]);

word!(
    TokenHash,
    "SHA-256 of a token",
    "sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"
);

impl fmt::Debug for TokenHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for TokenHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("sha256:")?;
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl FromStr for TokenHash {
    type Err = WordError;

    fn from_str(text: &str) -> Result<Self, WordError> {
        let wrong = || {
            WordError::because(
                "it is no hash of a token",
                "sha256: and 64 hexadecimal digits, as `fabnic tenant token` makes them",
            )
        };
        let digits = text.strip_prefix("sha256:").ok_or_else(wrong)?.as_bytes();
        if digits.len() != 64 {
            return Err(wrong());
        }
        let mut hash = [0; 32];
        for (byte, pair) in hash.iter_mut().zip(digits.chunks_exact(2)) {
            let pair = std::str::from_utf8(pair).map_err(|_| wrong())?;
            if !pair.bytes().all(|b| b.is_ascii_hexdigit()) {
                return Err(wrong());
            }
            *byte = u8::from_str_radix(pair, 16).map_err(|_| wrong())?;
        }
        Ok(Self(hash))
    }
}

/// Keys of a port that infrastructure may leave to the port's tenant.
pub const TENANT_KEYS: [&str; 3] = ["state", "mtu", "learning"];

/// Who changes something.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Default)]
pub enum Domain {
    /// Infrastructure, who may everything.
    #[default]
    Infrastructure,
    /// The tenant with this name.
    Tenant(String),
}

impl Domain {
    /// The tenant's name.
    #[must_use]
    pub fn tenant(&self) -> Option<&str> {
        match self {
            Self::Infrastructure => None,
            Self::Tenant(name) => Some(name),
        }
    }

    /// Whether something of this tenant's, or of infrastructure's, is seen.
    #[must_use]
    pub fn sees(&self, owner: Option<&str>) -> bool {
        match self {
            Self::Infrastructure => true,
            Self::Tenant(name) => owner == Some(name),
        }
    }
}

impl fmt::Display for Domain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Infrastructure => f.write_str("infrastructure"),
            Self::Tenant(name) => write!(f, "tenant {name}"),
        }
    }
}

impl Domain {
    /// Whether the domain may make this change. `before` is whose the thing was, and, of a port, the keys that are left
    /// to its tenant.
    ///
    /// # Errors
    /// What it may not do.
    pub fn permits(&self, change: &Change, before: &Before<'_>) -> Result<(), Box<Refusal>> {
        let Self::Tenant(tenant) = self else { return Ok(()) };
        let refuse = |key: String, problem: String| {
            Err(Box::new(Refusal::new(key, problem, format!("what is tenant {tenant}'s own"))))
        };
        let own = |owner: Option<&str>| owner == Some(tenant.as_str());
        let (what, name, after) = match change {
            Change::RuleAdd { rule } => ("rule", &rule.name, Some(rule.tenant.as_deref())),
            Change::RuleSet { rule, .. } => ("rule", &rule.name, Some(rule.tenant.as_deref())),
            Change::RuleDel { name } => ("rule", name, None),
            Change::GroupAdd { group } => ("group", &group.name, Some(group.tenant.as_deref())),
            Change::GroupSet { group, .. } => ("group", &group.name, Some(group.tenant.as_deref())),
            Change::GroupDel { name } => ("group", name, None),
            Change::MeterAdd { meter } => ("meter", &meter.name, Some(meter.tenant.as_deref())),
            Change::MeterSet { meter, .. } => ("meter", &meter.name, Some(meter.tenant.as_deref())),
            Change::MeterDel { name } => ("meter", name, None),
            Change::MirrorAdd { mirror } => ("mirror", &mirror.name, Some(mirror.tenant.as_deref())),
            Change::MirrorSet { mirror, .. } => ("mirror", &mirror.name, Some(mirror.tenant.as_deref())),
            Change::MirrorDel { name } => ("mirror", name, None),
            Change::PortSet { name, fields, .. } => {
                if !own(before.owner.flatten()) {
                    return refuse(format!("port[{}]", shortened(name)), "the port is not yours".into());
                }
                let foreign = fields.iter().find(|field| !before.left.contains(&field.key));
                return match foreign {
                    None => Ok(()),
                    Some(field) => {
                        let left = if before.left.is_empty() {
                            "no key of this port is left to its tenant".to_owned()
                        } else {
                            format!("one of {}", before.left.join(", "))
                        };
                        let key = format!("port[{}].{}", shortened(name), field.key);
                        Err(Box::new(Refusal::new(key, "infrastructure decides on this key", left)))
                    }
                };
            }
            Change::PortAdd { port } => {
                return refuse(format!("port[{}]", shortened(&port.name)), "tenants do not add ports".into());
            }
            Change::PortDel { name } => {
                return refuse(format!("port[{}]", shortened(name)), "tenants do not remove ports".into());
            }
            Change::FdbAdd { .. } | Change::FdbDel { .. } => {
                return refuse("fdb".into(), "static entries are infrastructure's".into());
            }
            Change::SwitchSet { .. } => {
                return refuse("switch".into(), "the switch as a whole is infrastructure's".into());
            }
            Change::DaemonSet { .. } => {
                return refuse("daemon".into(), "the daemon is infrastructure's".into());
            }
            Change::TenantAdd { .. } | Change::TenantSet { .. } | Change::TenantDel { .. } => {
                return refuse("tenant".into(), "tenants are infrastructure's".into());
            }
        };
        let key = format!("{what}[{}]", shortened(name));
        if before.owner.is_some_and(|owner| !own(owner)) {
            return refuse(key, format!("the {what} is not yours"));
        }
        if after.is_some_and(|owner| !own(owner)) {
            return refuse(format!("{key}.tenant"), format!("the {what} would not be yours"));
        }
        Ok(())
    }
}

/// What a thing was before it changes.
#[derive(Clone, Copy, Debug, Default)]
pub struct Before<'a> {
    /// Whose it was: `None` when it was not there, `Some(None)` when it was infrastructure's.
    pub owner: Option<Option<&'a str>>,
    /// Keys of a port that are left to its tenant.
    pub left: &'a [String],
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_are_read_as_written() {
        let text = "sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08";
        assert_eq!(text.parse::<TokenHash>().unwrap().to_string(), text);
        for wrong in ["", "sha256:", "sha256:9f", &text.replace("9f", "zz"), &text.replace("sha256", "md5")] {
            let error = wrong.parse::<TokenHash>().unwrap_err();
            assert!(!error.problem.contains("9f8"), "what may be a token is not repeated");
        }
    }
}
