//! Names of what configuration has made: ports, tenants, meters, rules, mirrors.

use core::fmt;

use serde::{Deserialize, Serialize};

/// The most bytes of a name.
pub const MAX_NAME: usize = 255;

/// A name; at most [`MAX_NAME`] bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Name(String);

/// A name that is too long to be one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a name of {0} bytes (expected at most {MAX_NAME})")]
pub struct NameTooLong(pub usize);

impl Name {
    /// A name.
    ///
    /// # Errors
    /// It is too long.
    pub fn new(text: &str) -> Result<Name, NameTooLong> {
        text.to_owned().try_into()
    }

    /// A name of configuration, whose names are short enough. Of a longer one, the empty name, which nothing has.
    #[must_use]
    pub fn fitting(text: &str) -> Name {
        Name::new(text).unwrap_or_default()
    }

    /// Its text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for Name {
    type Error = NameTooLong;

    fn try_from(text: String) -> Result<Name, NameTooLong> {
        if text.len() > MAX_NAME { Err(NameTooLong(text.len())) } else { Ok(Name(text)) }
    }
}

impl From<Name> for String {
    fn from(name: Name) -> String {
        name.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
