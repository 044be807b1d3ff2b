//! Settings as they were written, each with the place where it was written.
//!
//! TOML, JSON, environment and flags all become the same tree, so that one strict reader can name
//! the line, the variable or the flag of whatever it refuses. This module knows no setting.

use std::fmt;
use std::sync::Arc;

use toml::de::{DeTable, DeValue};

/// Deepest list position that can be set from the environment. A park of the target size has 500
/// cameras; the bound keeps a typing error from allocating.
const LIST_LENGTH_MAX: usize = 10_000;

/// Where a setting was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Origin {
    /// A line of the config file, counted from 1.
    File {
        /// As given on the command line.
        path: Arc<str>,
        /// Counted from 1.
        line: usize,
    },
    /// An environment variable.
    Environment(String),
    /// A flag of the command line, with its hyphens.
    Flag(&'static str),
    /// A camera in what the API was sent, counted as the sender does.
    Row(usize),
    /// Nowhere: the built-in value.
    Default,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { path, line } => write!(f, "{path}:{line}"),
            Self::Environment(name) => write!(f, "environment variable {name}"),
            Self::Flag(name) => write!(f, "flag {name}"),
            Self::Row(number) => write!(f, "row {number}"),
            Self::Default => f.write_str("built-in defaults"),
        }
    }
}

/// One thing that is wrong with the settings. The sentence never repeats a value that may be
/// secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Problem {
    /// Where it was written.
    pub(crate) origin: Origin,
    /// The setting, as in `cameras[2].url`; empty when the file as a whole is meant.
    pub(crate) key: String,
    /// What is wrong and what to do.
    pub(crate) sentence: String,
}

impl Problem {
    /// The row that it is about; 1 where what was sent has no rows.
    pub(crate) fn row(&self) -> usize {
        match self.origin {
            Origin::Row(number) => number,
            Origin::File { .. } | Origin::Environment(_) | Origin::Flag(_) | Origin::Default => 1,
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.key.is_empty() {
            write!(f, "{}: {}", self.origin, self.sentence)
        } else {
            write!(f, "{}: {}: {}", self.origin, self.key, self.sentence)
        }
    }
}

/// A value and its place.
#[derive(Clone)]
pub(super) struct Node {
    pub(super) origin: Origin,
    pub(super) value: Value,
}

/// What TOML and JSON have in common. Not `Debug`: it may hold secrets.
#[derive(Clone)]
pub(super) enum Value {
    Text(String),
    Integer(i64),
    /// No setting of ours is one; those of other programs are.
    Fraction(f64),
    Bool(bool),
    List(Vec<Node>),
    /// In the order of writing.
    Table(Vec<(String, Node)>),
    /// Something that no setting is: a date, null. Holds the article and noun.
    Other(&'static str),
}

impl Value {
    /// What it is, for "must be a number, not …".
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Self::Text(_) => "a text",
            Self::Integer(_) => "a number",
            Self::Fraction(_) => "a fraction",
            Self::Bool(_) => "true or false",
            Self::List(_) => "a list",
            Self::Table(_) => "a table",
            Self::Other(kind) => kind,
        }
    }
}

impl Node {
    /// A table without entries.
    pub(super) fn empty(origin: Origin) -> Self {
        Self { origin, value: Value::Table(Vec::new()) }
    }

    /// Reads a TOML document.
    pub(super) fn from_toml(text: &str, path: &Arc<str>) -> Result<Self, Problem> {
        let lines = Lines::new(text, path);
        match DeTable::parse(text) {
            Ok(table) => Ok(lines.toml_table(table.get_ref(), 0)),
            Err(error) => {
                let offset = error.span().map_or(0, |span| span.start);
                let sentence = format!("this is not valid TOML: {}", error.message().trim());
                Err(Problem { origin: lines.origin(offset), key: String::new(), sentence })
            }
        }
    }

    /// Reads a JSON document.
    pub(super) fn from_json(text: &str, path: &Arc<str>) -> Result<Self, Problem> {
        super::json::parse(text, path)
    }

    /// What stands at `key` of a table.
    pub(super) fn entry(&self, key: &str) -> Option<&Self> {
        let Value::Table(entries) = &self.value else { return None };
        entries.iter().find(|(name, _)| name == key).map(|(_, node)| node)
    }

    /// Another value from the same place.
    pub(super) fn with(&self, value: Value) -> Self {
        Self { origin: self.origin.clone(), value }
    }

    /// Takes an entry out of a table.
    pub(super) fn take(&mut self, key: &str) -> Option<Self> {
        let Value::Table(entries) = &mut self.value else { return None };
        let at = entries.iter().position(|(name, _)| name == key)?;
        Some(entries.remove(at).1)
    }

    /// Puts a value at `keys`, unless something is there, or something that is no table is on the way.
    pub(super) fn put_if_absent(&mut self, keys: &[&str], node: Self) {
        let Some((key, rest)) = keys.split_first() else { return };
        let Value::Table(entries) = &mut self.value else { return };
        let found = entries.iter().position(|(name, _)| name == key);
        match (found, rest.is_empty()) {
            (Some(_), true) => {}
            (Some(at), false) => entries[at].1.put_if_absent(rest, node),
            (None, true) => entries.push(((*key).to_owned(), node)),
            (None, false) => {
                let mut table = Self::empty(node.origin.clone());
                table.put_if_absent(rest, node);
                entries.push(((*key).to_owned(), table));
            }
        }
    }

    /// Puts a text at `keys`, replacing what is there. Numbers among the keys are positions in
    /// lists: an existing one, or the next.
    pub(super) fn set(&mut self, keys: &[&str], text: &str, origin: &Origin) -> Result<(), String> {
        let Some((key, rest)) = keys.split_first() else {
            *self = Self { origin: origin.clone(), value: Value::Text(text.to_owned()) };
            return Ok(());
        };
        let child = match &mut self.value {
            Value::List(items) => list_entry(items, key, origin)?,
            Value::Table(entries) => table_entry(entries, key, rest, origin),
            Value::Text(_)
            | Value::Integer(_)
            | Value::Fraction(_)
            | Value::Bool(_)
            | Value::Other(_) => {
                return Err(format!("there is no setting below this one, so not {key:?} either"));
            }
        };
        child.set(rest, text, origin)
    }
}

fn table_entry<'a>(
    entries: &'a mut Vec<(String, Node)>,
    key: &str,
    rest: &[&str],
    origin: &Origin,
) -> &'a mut Node {
    let found = entries.iter().position(|(name, _)| name == key);
    let index = found.unwrap_or_else(|| {
        let is_list = rest.first().is_some_and(|next| next.parse::<usize>().is_ok());
        let value = if is_list { Value::List(Vec::new()) } else { Value::Table(Vec::new()) };
        entries.push((key.to_owned(), Node { origin: origin.clone(), value }));
        entries.len() - 1
    });
    &mut entries[index].1
}

fn list_entry<'a>(
    items: &'a mut Vec<Node>,
    key: &str,
    origin: &Origin,
) -> Result<&'a mut Node, String> {
    let next = items.len();
    let index = key.parse::<usize>().ok().filter(|index| *index <= next.min(LIST_LENGTH_MAX));
    let index = index.ok_or_else(|| {
        format!("{key:?} is no position in this list; positions are numbers from 0 to {next}")
    })?;
    if index == next {
        items.push(Node::empty(origin.clone()));
    }
    Ok(&mut items[index])
}

/// Turns byte offsets of a file into origins.
pub(super) struct Lines<'a> {
    path: &'a Arc<str>,
    /// Byte offset at which each line starts.
    starts: Vec<usize>,
}

impl<'a> Lines<'a> {
    pub(super) fn new(text: &str, path: &'a Arc<str>) -> Self {
        let newlines = text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n');
        let starts = std::iter::once(0).chain(newlines.map(|(at, _)| at + 1)).collect();
        Self { path, starts }
    }

    pub(super) fn origin(&self, offset: usize) -> Origin {
        let line = self.starts.partition_point(|start| *start <= offset);
        Origin::File { path: self.path.clone(), line }
    }

    fn toml_table(&self, table: &DeTable<'_>, offset: usize) -> Node {
        let mut entries: Vec<_> = table.iter().collect();
        entries.sort_by_key(|(key, _)| key.span().start);
        let entries = entries
            .into_iter()
            .map(|(key, value)| {
                (key.get_ref().to_string(), self.toml_value(value.get_ref(), key.span().start))
            })
            .collect();
        Node { origin: self.origin(offset), value: Value::Table(entries) }
    }

    fn toml_value(&self, value: &DeValue<'_>, offset: usize) -> Node {
        let value = match value {
            DeValue::Table(table) => return self.toml_table(table, offset),
            DeValue::Array(items) => Value::List(
                items
                    .iter()
                    .map(|item| self.toml_value(item.get_ref(), item.span().start))
                    .collect(),
            ),
            DeValue::String(text) => Value::Text(text.to_string()),
            DeValue::Boolean(value) => Value::Bool(*value),
            DeValue::Integer(number) => i64::from_str_radix(number.as_str(), number.radix())
                .map_or(Value::Other("a number of that size"), Value::Integer),
            DeValue::Float(number) => {
                number.as_str().parse().map_or(Value::Other("a fraction"), Value::Fraction)
            }
            DeValue::Datetime(_) => Value::Other("a date"),
        };
        Node { origin: self.origin(offset), value }
    }
}
