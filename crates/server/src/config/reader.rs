//! Strict reading of settings: every key is known, every value is what it must be, and every
//! problem is reported, not only the first.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use secrecy::SecretString;

use super::tree::{Node, Origin, Problem, Value};

/// A type that a setting can have.
pub(super) trait Setting: Sized {
    /// Reads the value, or says in one sentence what it must be. The sentence must not repeat a
    /// value that may be secret.
    fn read(node: &Node) -> Result<Self, String>;
}

/// One table of the settings, taken apart key by key.
pub(super) struct Section<'p> {
    path: String,
    pub(super) origin: Origin,
    entries: Vec<(String, Node)>,
    known: Vec<&'static str>,
    pub(super) problems: &'p mut Vec<Problem>,
}

impl<'p> Section<'p> {
    /// Begins to read `node`, which stands at `path`.
    pub(super) fn new(path: String, node: Node, problems: &'p mut Vec<Problem>) -> Self {
        let origin = node.origin;
        let kind = node.value.kind();
        let entries = if let Value::Table(entries) = node.value {
            entries
        } else {
            let sentence = format!("this must be a table, not {kind}");
            problems.push(Problem { origin: origin.clone(), key: path.clone(), sentence });
            Vec::new()
        };
        Self { path, origin, entries, known: Vec::new(), problems }
    }

    /// The setting, or `default` where it is not written (or wrong, which is reported).
    pub(super) fn value<T: Setting>(&mut self, key: &'static str, default: T) -> T {
        self.optional(key).unwrap_or(default)
    }

    /// The setting, if it is written and right.
    pub(super) fn optional<T: Setting>(&mut self, key: &'static str) -> Option<T> {
        let node = self.take(key)?;
        self.read(key, &node)
    }

    /// The setting; that it is missing is a problem.
    pub(super) fn required<T: Setting>(&mut self, key: &'static str) -> Option<T> {
        match self.take(key) {
            Some(node) => self.read(key, &node),
            None => {
                let origin = self.origin.clone();
                self.problem(origin, key, "this setting is missing");
                None
            }
        }
    }

    /// The table at `key`, empty where it is not written.
    pub(super) fn section(&mut self, key: &'static str) -> Section<'_> {
        let node = self.take(key).unwrap_or_else(|| Node::empty(Origin::Default));
        Section::new(self.key(key), node, self.problems)
    }

    /// The tables of the list at `key`; `None` where it is not written.
    pub(super) fn list(&mut self, key: &'static str) -> Option<Vec<(String, Node)>> {
        let node = self.take(key)?;
        let Value::List(items) = node.value else {
            let sentence = format!("this must be a list of tables, not {}", node.value.kind());
            self.problem(node.origin, key, &sentence);
            return Some(Vec::new());
        };
        let path = self.key(key);
        Some(items.into_iter().enumerate().map(|(i, n)| (format!("{path}[{i}]"), n)).collect())
    }

    /// Everything that is left, for tables whose keys are names that people choose.
    pub(super) fn rest(&mut self) -> Vec<(String, Node)> {
        std::mem::take(&mut self.entries)
    }

    /// Where `key` is written, for problems that are found later.
    pub(super) fn origin_of(&self, key: &str) -> Origin {
        let entry = self.entries.iter().find(|(name, _)| name == key);
        entry.map_or_else(|| self.origin.clone(), |(_, node)| node.origin.clone())
    }

    /// Reports a problem with `key` of this table.
    pub(super) fn problem(&mut self, origin: Origin, key: &str, sentence: &str) {
        let problem = Problem { origin, key: self.key(key), sentence: sentence.to_owned() };
        self.problems.push(problem);
    }

    /// Reports every key that was not asked for.
    pub(super) fn finish(mut self) {
        let known = self.known.join(", ");
        for (name, node) in self.rest() {
            let sentence = format!("there is no such setting; known here: {known}");
            self.problem(node.origin, &name, &sentence);
        }
    }

    fn take(&mut self, key: &'static str) -> Option<Node> {
        self.known.push(key);
        let index = self.entries.iter().position(|(name, _)| name == key)?;
        Some(self.entries.remove(index).1)
    }

    fn read<T: Setting>(&mut self, key: &str, node: &Node) -> Option<T> {
        T::read(node).map_err(|sentence| self.problem(node.origin.clone(), key, &sentence)).ok()
    }

    fn key(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) }
    }
}

/// The text of a node that must be one.
pub(super) fn text<'n>(node: &'n Node, wanted: &str) -> Result<&'n str, String> {
    let Value::Text(text) = &node.value else {
        return Err(format!("this must be {wanted}, not {}", node.value.kind()));
    };
    Ok(text)
}

/// The bare text of a variable or flag, which may have to be read as something else.
fn untyped(node: &Node) -> Option<&str> {
    let is_bare = matches!(node.origin, Origin::Environment(_) | Origin::Flag(_) | Origin::Row(_));
    if is_bare { text(node, "").ok() } else { None }
}

impl Setting for String {
    fn read(node: &Node) -> Result<Self, String> {
        text(node, "a text").map(ToOwned::to_owned)
    }
}

impl Setting for SecretString {
    fn read(node: &Node) -> Result<Self, String> {
        text(node, "a text").map(Self::from)
    }
}

impl Setting for u32 {
    fn read(node: &Node) -> Result<Self, String> {
        let number = if let Value::Integer(number) = node.value {
            Self::try_from(number).ok()
        } else {
            untyped(node).and_then(|text| text.trim().parse().ok())
        };
        number.ok_or_else(|| format!("this must be a whole number from 0 to {}", Self::MAX))
    }
}

impl Setting for bool {
    fn read(node: &Node) -> Result<Self, String> {
        let value = if let Value::Bool(value) = node.value {
            Some(value)
        } else {
            untyped(node).and_then(|text| text.trim().parse().ok())
        };
        value.ok_or_else(|| "this must be true or false".to_owned())
    }
}

impl Setting for Duration {
    fn read(node: &Node) -> Result<Self, String> {
        let wanted = "a time like \"5s\", \"500ms\" or \"1m 30s\"";
        humantime::parse_duration(text(node, wanted)?.trim())
            .map_err(|_| format!("this must be {wanted}"))
    }
}

impl Setting for SocketAddr {
    fn read(node: &Node) -> Result<Self, String> {
        let wanted = "an address with a port, like \"127.0.0.1:8080\" or \"[::1]:8080\"";
        let text = text(node, wanted)?;
        text.trim().parse().map_err(|_| format!("this must be {wanted}, not {text:?}"))
    }
}

impl Setting for IpAddr {
    fn read(node: &Node) -> Result<Self, String> {
        let wanted = "an IP address, like \"192.168.1.10\"";
        let text = text(node, wanted)?;
        text.trim().parse().map_err(|_| format!("this must be {wanted}, not {text:?}"))
    }
}

impl<T: Setting> Setting for Vec<T> {
    /// A list; from the environment and flags, a text of parts with commas between.
    fn read(node: &Node) -> Result<Self, String> {
        if let Value::List(items) = &node.value {
            return items.iter().enumerate().map(item).collect();
        }
        match untyped(node) {
            Some(text) => split(text, &node.origin),
            None => Err(format!("this must be a list, not {}", node.value.kind())),
        }
    }
}

fn item<T: Setting>((index, node): (usize, &Node)) -> Result<T, String> {
    T::read(node).map_err(|sentence| format!("item {}: {sentence}", index + 1))
}

fn split<T: Setting>(text: &str, origin: &Origin) -> Result<Vec<T>, String> {
    let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
    parts
        .map(|part| T::read(&Node { origin: origin.clone(), value: Value::Text(part.to_owned()) }))
        .collect()
}
