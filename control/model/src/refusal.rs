//! What is said when a configuration is refused.

use std::fmt;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// One step of the way to a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// A key of a table.
    Key(String),
    /// An element of a list, with the name that it goes by if it has one.
    Element(usize, Option<String>),
}

/// The way from the top of the file to a key.
pub(crate) type Path = Vec<Step>;

/// One reason why a configuration is refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Refusal {
    /// The key, such as `port[vm1].vlan.access`. List elements go by their name, or by their position from 0.
    pub key: String,
    /// Line of the file, from 1, when the configuration came as text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub line: Option<usize>,
    /// What is wrong, with the offending value.
    pub problem: String,
    /// What was expected instead.
    pub expected: String,
    /// What was probably meant.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
    #[serde(skip)]
    pub(crate) path: PathField,
}

/// Keeps [`Path`] out of comparisons: two refusals that say the same are the same.
#[derive(Clone, Debug, Default)]
pub(crate) struct PathField(pub(crate) Path);

impl PartialEq for PathField {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}
impl Eq for PathField {}

impl Refusal {
    pub(crate) fn at(path: Path, problem: impl Into<String>, expected: impl Into<String>) -> Self {
        Self {
            key: render(&path),
            line: None,
            problem: problem.into(),
            expected: expected.into(),
            hint: None,
            path: PathField(path),
        }
    }

    /// A refusal that no key of the file is behind.
    #[must_use]
    pub fn new(key: impl Into<String>, problem: impl Into<String>, expected: impl Into<String>) -> Self {
        Self {
            key: key.into(),
            line: None,
            problem: problem.into(),
            expected: expected.into(),
            hint: None,
            path: PathField::default(),
        }
    }
}

impl Refusal {
    /// What serde said about `key`, in the file's words: "what is wrong", "expected what", and a hint.
    #[must_use]
    pub fn of_serde(key: &str, message: &str) -> Self {
        crate::parse::of_message(key, message)
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(line) = self.line {
            write!(f, "line {line}: ")?;
        }
        if !self.key.is_empty() {
            write!(f, "{}: ", self.key)?;
        }
        write!(f, "{}", self.problem)?;
        if !self.expected.is_empty() {
            write!(f, ", expected {}", self.expected)?;
        }
        if let Some(hint) = &self.hint {
            write!(f, " (did you mean `{hint}`?)")?;
        }
        Ok(())
    }
}

/// All reasons why a configuration is refused, in the order of the file. Never empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused(pub Vec<Refusal>);

impl Refused {
    /// One reason alone, with no key of a file behind it.
    #[must_use]
    pub fn one(key: impl Into<String>, problem: impl Into<String>, expected: impl Into<String>) -> Self {
        Self(vec![Refusal::new(key, problem, expected)])
    }
}

impl From<Refusal> for Refused {
    fn from(refusal: Refusal) -> Self {
        Self(vec![refusal])
    }
}

impl std::error::Error for Refused {}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SHOWN: usize = 20;
        for (i, refusal) in self.0.iter().take(SHOWN).enumerate() {
            let newline = if i == 0 { "" } else { "\n" };
            write!(f, "{newline}{refusal}")?;
        }
        if self.0.len() > SHOWN {
            write!(f, "\nand {} more", self.0.len() - SHOWN)?;
        }
        Ok(())
    }
}

pub(crate) fn render(path: &[Step]) -> String {
    let mut text = String::new();
    for step in path {
        match step {
            Step::Key(key) => {
                if !text.is_empty() {
                    text.push('.');
                }
                text.push_str(key);
            }
            Step::Element(_, Some(name)) => text.push_str(&format!("[{name}]")),
            Step::Element(index, None) => text.push_str(&format!("[{index}]")),
        }
    }
    text
}

/// The known word that `word` is probably a slip of: at most a third of its letters differ.
#[must_use]
pub fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    if word.len() > 64 {
        return None;
    }
    let lower = word.to_ascii_lowercase().replace('-', "_");
    known
        .into_iter()
        .map(|k| (distance(&lower, &k.to_ascii_lowercase().replace('-', "_")), k))
        .min()
        .filter(|&(d, k)| d <= (k.len().max(word.len()) / 3).max(1))
        .map(|(_, k)| k)
}

/// Edits (insert, remove, replace, swap of neighbours) from one word to the other.
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut before: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=b.len()).collect();
    for i in 1..=a.len() {
        let mut row = vec![i; b.len() + 1];
        for j in 1..=b.len() {
            let cost = usize::from(a[i - 1] != b[j - 1]);
            row[j] = (last[j] + 1).min(row[j - 1] + 1).min(last[j - 1] + cost);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                row[j] = row[j].min(before[j - 2] + 1);
            }
        }
        before = std::mem::replace(&mut last, row);
    }
    last[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hints_at_slips_only() {
        let known = ["vlan", "vhost_user", "queue_size", "queues", "mtu"];
        assert_eq!(nearest("vlna", known), Some("vlan"));
        assert_eq!(nearest("vhost-user", known), Some("vhost_user"));
        assert_eq!(nearest("queuesize", known), Some("queue_size"));
        assert_eq!(nearest("colour", known), None);
    }
}
