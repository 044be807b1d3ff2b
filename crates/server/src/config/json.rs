//! JSON documents as settings with line numbers. Comments, as JavaScript has them, are passed over.
//!
//! `serde_json` checks the grammar; the walk here only finds out on which line each value stands,
//! which `serde_json` does not tell.

use std::sync::Arc;

use super::tree::{Lines, Node, Problem, Value};

/// Reads a JSON document.
pub(super) fn parse(text: &str, path: &Arc<str>) -> Result<Node, Problem> {
    let lines = Lines::new(text, path);
    let text = &without_comments(text);
    if let Err(error) = serde_json::from_str::<serde_json::Value>(text) {
        let offset = line_start(text, error.line());
        let sentence = format!("this is not valid JSON: {}", category(&error));
        return Err(Problem { origin: lines.origin(offset), key: String::new(), sentence });
    }
    Ok(Walk { lines, text, at: 0 }.value())
}

/// The text with blanks in the place of comments, so that every byte of a value stays where it was.
fn without_comments(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let length = match first {
            '"' => text_length(rest),
            '/' if rest.starts_with("//") => rest.find('\n').unwrap_or(rest.len()),
            '/' if rest.starts_with("/*") => rest[2..].find("*/").map_or(rest.len(), |at| at + 4),
            _ => first.len_utf8(),
        };
        let (part, after) = rest.split_at(length);
        if first == '/' && length > 1 {
            out.extend(part.bytes().map(|byte| if byte == b'\n' { '\n' } else { ' ' }));
        } else {
            out.push_str(part);
        }
        rest = after;
    }
    out
}

/// How long a quoted text is, with its quotes. It begins with one.
fn text_length(text: &str) -> usize {
    let mut escaped = false;
    for (at, byte) in text.bytes().enumerate().skip(1) {
        match byte {
            b'\\' if !escaped => escaped = true,
            b'"' if !escaped => return at + 1,
            _ => escaped = false,
        }
    }
    text.len()
}

/// What is wrong, without the excerpt of the text that `serde_json` may put in its message.
fn category(error: &serde_json::Error) -> &'static str {
    match error.classify() {
        serde_json::error::Category::Eof => "it ends too early; a bracket or quote is not closed",
        serde_json::error::Category::Syntax
        | serde_json::error::Category::Data
        | serde_json::error::Category::Io => {
            "look for a missing comma, quote or bracket on this line or the one before"
        }
    }
}

fn number_value(text: &str) -> Value {
    let fraction = || text.parse().map_or(Value::Other("a number of that size"), Value::Fraction);
    text.parse().map_or_else(|_| fraction(), Value::Integer)
}

fn line_start(text: &str, line: usize) -> usize {
    text.split_inclusive('\n').take(line.saturating_sub(1)).map(str::len).sum()
}

/// A walk over text that is known to be valid JSON, nested at most 128 deep (`serde_json`'s
/// recursion limit). On anything else it ends early, it never panics.
struct Walk<'a> {
    lines: Lines<'a>,
    text: &'a str,
    at: usize,
}

impl Walk<'_> {
    fn value(&mut self) -> Node {
        let byte = self.peek();
        let origin = self.lines.origin(self.at);
        let value = match byte {
            Some(b'{') => self.table(),
            Some(b'[') => self.list(),
            Some(b'"') => Value::Text(self.text()),
            _ => self.literal(),
        };
        Node { origin, value }
    }

    fn table(&mut self) -> Value {
        self.at += 1;
        let mut entries: Vec<(String, Node)> = Vec::new();
        while self.peek() == Some(b'"') {
            let key = self.text();
            self.skip(b':');
            let node = self.value();
            self.skip(b',');
            entries.retain(|(name, _)| *name != key);
            entries.push((key, node));
        }
        self.skip(b'}');
        Value::Table(entries)
    }

    fn list(&mut self) -> Value {
        self.at += 1;
        let mut items = Vec::new();
        while self.peek().is_some_and(|byte| byte != b']') {
            items.push(self.value());
            self.skip(b',');
        }
        self.skip(b']');
        Value::List(items)
    }

    /// A quoted text; stands on its first quote.
    fn text(&mut self) -> String {
        let start = self.at;
        let mut escaped = false;
        self.at += 1;
        while let Some(byte) = self.text.as_bytes().get(self.at) {
            self.at += 1;
            match byte {
                b'\\' if !escaped => escaped = true,
                b'"' if !escaped => break,
                _ => escaped = false,
            }
        }
        serde_json::from_str(&self.text[start..self.at]).unwrap_or_default()
    }

    fn literal(&mut self) -> Value {
        let rest = &self.text[self.at..];
        let end = rest.find([',', ']', '}', ' ', '\t', '\r', '\n']).unwrap_or(rest.len());
        // At least one byte, so that the walk always ends.
        self.at += end.max(1);
        match &rest[..end] {
            "true" => Value::Bool(true),
            "false" => Value::Bool(false),
            "null" => Value::Other("null"),
            number => number_value(number),
        }
    }

    fn peek(&mut self) -> Option<u8> {
        let bytes = self.text.as_bytes();
        while bytes.get(self.at).is_some_and(u8::is_ascii_whitespace) {
            self.at += 1;
        }
        bytes.get(self.at).copied()
    }

    fn skip(&mut self, byte: u8) {
        if self.peek() == Some(byte) {
            self.at += 1;
        }
    }
}
