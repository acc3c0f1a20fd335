//! Values that are one word in the file, in JSON and on the command line.
//!
//! Such a type has a `FromStr` that says what was expected and a `Display` that writes what it reads; `word!` makes
//! the rest of it: it is read from a string or, where the text would be a number, from a number, and always written as a
//! string, so that one value has one form.

use std::{fmt, marker::PhantomData, str::FromStr};

use serde::Deserializer;

use crate::parse::shortened;

/// A text that is no such value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{problem}, expected {expected}")]
pub struct WordError {
    /// What is wrong, with the text.
    pub problem: String,
    /// What was expected.
    pub expected: &'static str,
}

impl WordError {
    /// `text` is no `what`.
    pub(crate) fn no(what: &str, text: &str, expected: &'static str) -> Self {
        Self { problem: format!("`{}` is no {what}", shortened(text)), expected }
    }

    /// A sentence of its own.
    pub(crate) fn because(problem: impl Into<String>, expected: &'static str) -> Self {
        Self { problem: problem.into(), expected }
    }
}

/// Reads a string, or a number as its digits.
pub(crate) fn deserialize<'de, T, D>(deserializer: D) -> Result<T, D::Error>
where
    T: FromStr<Err = WordError>,
    D: Deserializer<'de>,
{
    struct Visitor<T>(PhantomData<T>);
    impl<T: FromStr<Err = WordError>> serde::de::Visitor<'_> for Visitor<T> {
        type Value = T;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a string or a number")
        }

        fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<T, E> {
            text.parse().map_err(E::custom)
        }

        fn visit_i64<E: serde::de::Error>(self, number: i64) -> Result<T, E> {
            self.visit_str(&number.to_string())
        }

        fn visit_u64<E: serde::de::Error>(self, number: u64) -> Result<T, E> {
            self.visit_str(&number.to_string())
        }
    }
    deserializer.deserialize_any(Visitor(PhantomData))
}

/// Serde and schemas for a type with `FromStr<Err = WordError>` and `Display`.
macro_rules! word {
    ($type:ident, $about:literal, $example:literal) => {
        impl serde::Serialize for $type {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> serde::Deserialize<'de> for $type {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                crate::word::deserialize(deserializer)
            }
        }

        impl schemars::JsonSchema for $type {
            fn schema_name() -> std::borrow::Cow<'static, str> {
                stringify!($type).into()
            }

            fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
                schemars::json_schema!({ "type": ["string", "integer"], "format": "word", "examples": [$example] })
            }
        }

        impl utoipa::PartialSchema for $type {
            fn schema() -> utoipa::openapi::RefOr<utoipa::openapi::schema::Schema> {
                utoipa::openapi::ObjectBuilder::new()
                    .schema_type(utoipa::openapi::schema::Type::String)
                    .description(Some($about))
                    .examples([$example])
                    .into()
            }
        }

        impl utoipa::ToSchema for $type {}
    };
}
pub(crate) use word;

impl From<crate::vlan::VlanError> for WordError {
    fn from(error: crate::vlan::VlanError) -> Self {
        Self { problem: format!("{} is not a VLAN", error.0), expected: error.1 }
    }
}
