//! Text to [`Config`], and where in the text it went wrong.
//!
//! Four passes, each of which says all that it finds before the next is tried: TOML syntax, unknown keys (against the
//! types' own schema, so that a key exists in one place only), types and values, and the rules of [`crate::check`].

use std::{ops::Range, sync::OnceLock};

use serde::Deserialize;
use serde_json::Value;
use toml::{
    Spanned,
    de::{DeTable, DeValue, Deserializer},
};

use crate::{
    Config, MAX_TEXT, Refusal, Refused,
    refusal::{Path, PathField, Step, nearest, render},
};

/// Reads and checks a configuration.
///
/// # Errors
/// Every reason that could be found, each with the key, its line, what is wrong and what was expected.
pub fn parse(text: &str) -> Result<Config, Refused> {
    if text.len() > MAX_TEXT {
        let problem = format!("the text has {} bytes", text.len());
        return Err(Refused(vec![Refusal::new("", problem, format!("at most {MAX_TEXT}"))]));
    }
    let lines = Lines::of(text);
    let document = match DeTable::parse_recoverable(text) {
        (document, errors) if errors.is_empty() => document,
        (_, errors) => return Err(Refused(errors.iter().map(|e| syntax(&lines, e)).collect())),
    };
    let root = document.get_ref();

    let mut unknown = Vec::new();
    unknown_in_table(schema(), root, Where::Root, &lines, &mut unknown);
    if !unknown.is_empty() {
        unknown.sort_by_key(|r: &Refusal| r.line);
        return Err(Refused(unknown));
    }

    // Not a copy of it, which takes as long as reading it: who needs to find something in it reads it once more.
    let config = Config::deserialize(Deserializer::from(document)).map_err(|e| {
        let (document, _) = DeTable::parse_recoverable(text);
        Refused(vec![of_serde(&lines, document.get_ref(), e.message(), e.span())])
    })?;

    config.check().map_err(|Refused(mut refusals)| {
        let (document, _) = DeTable::parse_recoverable(text);
        for refusal in &mut refusals {
            refusal.line = locate(document.get_ref(), &refusal.path.0).map(|span| lines.at(span.start));
        }
        refusals.sort_by_key(|r| r.line);
        Refused(refusals)
    })?;
    Ok(config)
}

/// The types' JSON schema: which keys there are.
pub(crate) fn schema() -> &'static Value {
    static SCHEMA: OnceLock<Value> = OnceLock::new();
    SCHEMA.get_or_init(|| schemars::schema_for!(Config).to_value())
}

/// Follows references and the `null` alternative of optional keys to the schema with the properties or items.
pub(crate) fn resolve(schema: &Value) -> &Value {
    let mut at = schema;
    // A chain of references in our own schema is short; the bound keeps a future slip from hanging the daemon.
    for _ in 0..8 {
        if let Some(name) = at.get("$ref").and_then(Value::as_str).and_then(|r| r.strip_prefix("#/$defs/")) {
            at = &self::schema()["$defs"][name];
        } else if let Some(one) = at
            .get("anyOf")
            .and_then(Value::as_array)
            .and_then(|any| any.iter().find(|s| s.get("type").and_then(Value::as_str) != Some("null")))
        {
            at = one;
        } else {
            break;
        }
    }
    at
}

/// A place in a document, as the way to it: made into a [`Path`] only when something is wrong there.
#[derive(Clone, Copy)]
enum Where<'a> {
    Root,
    Key(&'a Where<'a>, &'a str),
    Element(&'a Where<'a>, usize, &'a DeValue<'a>),
}

impl Where<'_> {
    fn path(&self) -> Path {
        match self {
            Where::Root => Path::new(),
            Where::Key(outer, name) => {
                let mut path = outer.path();
                path.push(Step::Key(shortened(name)));
                path
            }
            Where::Element(outer, index, value) => {
                let mut path = outer.path();
                path.push(Step::Element(*index, name_of(value)));
                path
            }
        }
    }
}

fn unknown_in_table(
    schema: &Value,
    table: &DeTable<'_>,
    at: Where<'_>,
    lines: &Lines,
    found: &mut Vec<Refusal>,
) {
    let Some(properties) = resolve(schema).get("properties").and_then(Value::as_object) else { return };
    for (key, value) in table {
        let name: &str = key.get_ref();
        let here = Where::Key(&at, name);
        match properties.get(name) {
            Some(inner) => unknown_in_value(resolve(inner), value, here, lines, found),
            None => {
                let known: Vec<&str> = properties.keys().map(String::as_str).collect();
                let mut refusal = Refusal::at(
                    here.path(),
                    format!("unknown key `{}`", shortened(name)),
                    format!("one of {}", known.join(", ")),
                );
                refusal.hint = nearest(name, known).map(str::to_owned);
                refusal.line = Some(lines.at(key.span().start));
                found.push(refusal);
            }
        }
    }
}

fn unknown_in_value(
    schema: &Value,
    value: &Spanned<DeValue<'_>>,
    at: Where<'_>,
    lines: &Lines,
    found: &mut Vec<Refusal>,
) {
    match value.get_ref() {
        DeValue::Table(table) => unknown_in_table(schema, table, at, lines, found),
        DeValue::Array(list) => {
            if let Some(items) = schema.get("items").map(resolve) {
                for (index, element) in list.iter().enumerate() {
                    let here = Where::Element(&at, index, element.get_ref());
                    unknown_in_value(items, element, here, lines, found);
                }
            }
        }
        _ => {}
    }
}

fn name_of(value: &DeValue<'_>) -> Option<String> {
    value.as_table()?.get("name")?.get_ref().as_str().map(shortened)
}

/// A foreign text that is repeated in a message: short, and nothing that moves a cursor.
pub(crate) fn shortened(text: &str) -> String {
    text.chars().take(64).map(|c| if c.is_control() { '?' } else { c }).collect()
}

fn syntax(lines: &Lines, error: &toml::de::Error) -> Refusal {
    let mut refusal = of_message("", error.message());
    refusal.line = error.span().map(|span| lines.at(span.start));
    refusal
}

fn of_serde(lines: &Lines, root: &DeTable<'_>, message: &str, span: Option<Range<usize>>) -> Refusal {
    let mut path = Path::new();
    if let Some(span) = &span {
        enclosing_in_table(root, span, &mut path);
    }
    let mut refusal = of_message(&render(&path), message);
    if let Some(expected) = range_of(&path) {
        refusal.expected = expected;
    }
    refusal.path = PathField(path);
    refusal.line = span.map(|span| lines.at(span.start));
    refusal
}

/// The numbers that the key at `path` may have, when it is a number.
pub(crate) fn range_of(path: &[Step]) -> Option<String> {
    let mut at = schema();
    for step in path {
        at = match step {
            Step::Key(key) => resolve(at).get("properties")?.get(key)?,
            Step::Element(..) => resolve(at).get("items")?,
        };
    }
    let at = resolve(at);
    match (&at["minimum"], &at["maximum"], at["format"].as_str()) {
        (Value::Number(low), Value::Number(high), _) => Some(format!("a number from {low} to {high}")),
        (Value::Number(low), _, Some("uint32")) => Some(format!("a number from {low} to {}", u32::MAX)),
        (Value::Number(low), _, Some("uint64")) => Some(format!("a number from {low} up")),
        _ => None,
    }
}

/// Splits serde's "what is wrong, expected what" where it says so, in the file's words.
pub(crate) fn of_message(key: &str, message: &str) -> Refusal {
    /// More of a foreign text helps nobody.
    const LONGEST: usize = 200;
    // Where JSON has no lines of its own, serde_json's are of no use.
    let message = message.rsplit_once(" at line ").map_or(message, |(message, _)| message);
    let clean: String = message.trim_end().chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    let (problem, expected) =
        clean.split_once(", expected ").or_else(|| clean.split_once("; expected ")).unwrap_or((&clean, ""));
    let expected = match expected {
        "a sequence" => "a list",
        "a boolean" => "true or false",
        "a map" => "a table",
        other => other.strip_prefix("struct ").map_or(other, |_| "a table"),
    };
    let mut refusal = Refusal::new(key, problem.chars().take(LONGEST).collect::<String>(), expected);
    if let Some(missing) = problem.strip_prefix("missing field `").and_then(|p| p.strip_suffix('`')) {
        refusal.problem = format!("the key `{missing}` is missing");
        refusal.expected = format!("{missing} = ...");
    }
    for (prefix, kind) in [("unknown variant `", "value"), ("unknown field `", "key")] {
        if let Some(word) = problem.strip_prefix(prefix).and_then(|p| p.strip_suffix('`')) {
            let known: Vec<&str> = expected.split('`').skip(1).step_by(2).collect();
            refusal.hint = nearest(word, known).map(str::to_owned);
            refusal.problem = format!("unknown {kind} `{}`", shortened(word));
        }
    }
    refusal
}

fn enclosing_in_table(table: &DeTable<'_>, span: &Range<usize>, path: &mut Path) {
    for (key, value) in table {
        if covers(&key.span(), span) || covers(&value.span(), span) || holds(value.get_ref(), span) {
            path.push(Step::Key(key.get_ref().to_string()));
            enclosing_in_value(value.get_ref(), span, path);
            return;
        }
    }
}

fn enclosing_in_value(value: &DeValue<'_>, span: &Range<usize>, path: &mut Path) {
    match value {
        DeValue::Table(table) => enclosing_in_table(table, span, path),
        DeValue::Array(list) => {
            if let Some((index, element)) = list
                .iter()
                .enumerate()
                .find(|(_, element)| covers(&element.span(), span) || holds(element.get_ref(), span))
            {
                path.push(Step::Element(index, name_of(element.get_ref())));
                enclosing_in_value(element.get_ref(), span, path);
            }
        }
        _ => {}
    }
}

/// Whether something inside is at `span`: the span of a `[[port]]` table covers its header only.
fn holds(value: &DeValue<'_>, span: &Range<usize>) -> bool {
    match value {
        DeValue::Table(table) => table.iter().any(|(key, value)| {
            covers(&key.span(), span) || covers(&value.span(), span) || holds(value.get_ref(), span)
        }),
        DeValue::Array(list) => {
            list.iter().any(|element| covers(&element.span(), span) || holds(element.get_ref(), span))
        }
        _ => false,
    }
}

fn covers(outer: &Range<usize>, inner: &Range<usize>) -> bool {
    outer.start <= inner.start && inner.end <= outer.end && !outer.is_empty()
}

/// The place of the key at `path`, or of the deepest table on the way that exists.
fn locate(root: &DeTable<'_>, path: &[Step]) -> Option<Range<usize>> {
    let mut table = Some(root);
    let mut list: Option<&toml::de::DeArray<'_>> = None;
    let mut span = None;
    for step in path {
        let value = match step {
            Step::Key(key) => {
                let Some((key, value)) = table.and_then(|t| t.get_key_value(key.as_str())) else { break };
                span = Some(key.span());
                value
            }
            Step::Element(index, _) => {
                let Some(value) = list.and_then(|l| l.get(*index)) else { break };
                span = Some(value.span());
                value
            }
        };
        table = value.get_ref().as_table();
        list = value.get_ref().as_array();
    }
    span
}

/// Where lines end: a text with a million mistakes is searched once for them, not a million times.
struct Lines(Vec<usize>);

impl Lines {
    fn of(text: &str) -> Self {
        Self(text.bytes().enumerate().filter(|&(_, b)| b == b'\n').map(|(offset, _)| offset).collect())
    }

    /// The line that has the byte at `offset`, from 1.
    fn at(&self, offset: usize) -> usize {
        self.0.partition_point(|&end| end < offset) + 1
    }
}
