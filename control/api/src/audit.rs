//! Who changed what, and who was refused what.
//!
//! Every request that would change something leaves an entry, whether it was done or refused, and so does every caller
//! who could not say who he is. The last entries are kept in memory for `GET /v1/audit`; with `[daemon] audit` all of them
//! are appended to a file as lines of JSON. Tokens are never written.

use std::collections::VecDeque;
use std::fs::File;
use std::io::Write as _;
use std::sync::Mutex;

use fabnic_model::{Change, Domain};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::events::now_ms;

/// Entries kept in memory.
const KEPT: usize = 4096;
/// Changes of one entry that are written out.
const SHOWN: usize = 32;

/// Who made a request.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Who {
    /// The tenant; infrastructure if there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tenant: Option<String>,
    /// User, as the kernel says (`SO_PEERCRED`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uid: Option<u32>,
    /// Process, as the kernel says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pid: Option<i32>,
    /// Whether a token said who it is.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub by_token: bool,
}

impl Who {
    /// The domain for which the request is made.
    #[must_use]
    pub fn domain(&self) -> Domain {
        match &self.tenant {
            None => Domain::Infrastructure,
            Some(tenant) => Domain::Tenant(tenant.clone()),
        }
    }
}

/// One entry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AuditEntry {
    /// When, in milliseconds since 1970-01-01 UTC.
    pub time_ms: u64,
    /// Who.
    pub who: Who,
    /// What was asked for, such as `POST /v1/rules`.
    pub request: String,
    /// How many changes were made.
    pub changes: u64,
    /// The first of them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub first: Vec<String>,
    /// Why nothing was changed, if nothing was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refused: Option<String>,
}

/// The log.
#[derive(Debug, Default)]
pub struct Audit {
    kept: Mutex<Kept>,
}

#[derive(Debug, Default)]
struct Kept {
    last: VecDeque<AuditEntry>,
    file: Option<File>,
    has_failed: bool,
}

impl Audit {
    /// A log that is also appended to a file.
    #[must_use]
    pub fn to_file(file: Option<File>) -> Self {
        Self { kept: Mutex::new(Kept { file, ..Kept::default() }) }
    }

    /// Notes what became of a request.
    pub fn note(&self, who: &Who, request: &str, result: Result<&[Change], &str>) {
        let (changes, refused) = match result {
            Ok(changes) => (changes, None),
            Err(reason) => (&[][..], Some(reason.to_owned())),
        };
        let entry = AuditEntry {
            time_ms: now_ms(),
            who: who.clone(),
            request: request.to_owned(),
            changes: changes.len() as u64,
            first: changes.iter().take(SHOWN).map(ToString::to_string).collect(),
            refused,
        };
        let Ok(mut kept) = self.kept.lock() else { return };
        if let Some(file) = &mut kept.file
            && let Ok(mut line) = serde_json::to_vec(&entry)
        {
            line.push(b'\n');
            let failed = file.write_all(&line).err();
            if let Some(error) = &failed
                && !kept.has_failed
            {
                tracing::error!(%error, "the audit log cannot be written");
            }
            kept.has_failed = failed.is_some();
        }
        if kept.last.len() >= KEPT {
            kept.last.pop_front();
        }
        kept.last.push_back(entry);
    }

    /// The last entries that a domain may see, the newest last.
    #[must_use]
    pub fn last(&self, domain: &Domain, limit: usize) -> Vec<AuditEntry> {
        let Ok(kept) = self.kept.lock() else { return Vec::new() };
        let seen = kept.last.iter().rev().filter(|entry| domain.sees(entry.who.tenant.as_deref()));
        let mut entries: Vec<AuditEntry> = seen.take(limit).cloned().collect();
        entries.reverse();
        entries
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn who(tenant: Option<&str>) -> Who {
        Who { tenant: tenant.map(str::to_owned), uid: Some(1000), pid: Some(1), by_token: false }
    }

    #[test]
    fn a_domain_sees_its_own_and_the_file_has_all() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("audit.log");
        let audit = Audit::to_file(Some(File::create(&path).unwrap()));
        let change = Change::RuleDel { name: "web".into() };
        audit.note(&who(None), "DELETE /v1/rules/web", Ok(std::slice::from_ref(&change)));
        audit.note(&who(Some("blue")), "POST /v1/rules", Err("over quota"));
        assert_eq!(audit.last(&Domain::Infrastructure, 10).len(), 2);
        let blue = audit.last(&Domain::Tenant("blue".into()), 10);
        assert_eq!((blue.len(), blue[0].refused.as_deref()), (1, Some("over quota")));
        assert!(audit.last(&Domain::Tenant("red".into()), 10).is_empty());
        let text = std::fs::read_to_string(path).unwrap();
        let lines: Vec<AuditEntry> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(lines, audit.last(&Domain::Infrastructure, 10));
    }

    #[test]
    fn memory_is_bounded() {
        let audit = Audit::default();
        for i in 0..KEPT + 10 {
            audit.note(&who(None), &i.to_string(), Ok(&[]));
        }
        let last = audit.last(&Domain::Infrastructure, usize::MAX);
        assert_eq!((last.len(), last[0].request.as_str()), (KEPT, "10"));
    }
}
