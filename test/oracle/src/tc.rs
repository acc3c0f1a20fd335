//! `tc` with its flower classifier at the bridge's ports: what becomes of a frame before and behind the bridge.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use anyhow::Result;

use crate::bridge::batch;

/// Filters of the kernel, at the ports that have a place for them.
#[derive(Debug)]
pub(crate) struct Filters {
    ports: Vec<String>,
}

impl Filters {
    /// None yet, at these devices.
    pub(crate) fn new(ports: Vec<String>) -> Result<Filters> {
        let places: String = ports.iter().map(|port| format!("qdisc add dev {port} clsact\n")).collect();
        batch("tc", &places)?;
        Ok(Filters { ports })
    }

    /// Puts these in the place of what is there, each the words behind `tc filter add dev`.
    pub(crate) fn replace(&mut self, filters: &[String]) -> Result<()> {
        let mut commands = String::new();
        for port in &self.ports {
            writeln!(commands, "qdisc del dev {port} clsact\nqdisc add dev {port} clsact")?;
        }
        for filter in filters {
            writeln!(commands, "filter add dev {filter}")?;
        }
        batch("tc", &commands).map(drop)
    }

    /// How many frames each filter has matched, by its preference.
    pub(crate) fn hits(&self) -> Result<BTreeMap<usize, u64>> {
        let mut hits = BTreeMap::new();
        let mut commands = String::new();
        for port in &self.ports {
            writeln!(commands, "filter show dev {port} ingress\nfilter show dev {port} egress")?;
        }
        let mut place = None;
        for line in batch("tc", &commands)?.lines() {
            let words: Vec<&str> = line.split_whitespace().collect();
            let after = |word| words.iter().skip_while(|w| **w != word).nth(1).copied();
            if let Some(pref) = after("pref") {
                place = Some(pref.parse()?);
            } else if words.first() == Some(&"Sent")
                && let (Some(place), Some(count)) = (place.take(), words.get(3))
            {
                // Those of the first action.
                hits.insert(place, count.parse()?);
            }
        }
        Ok(hits)
    }
}
