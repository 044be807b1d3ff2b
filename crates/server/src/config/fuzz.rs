//! Config files of anybody.

use std::sync::Arc;

use super::Config;
use super::tree::Node;

/// A config file; the first byte says which of both formats it is. Every problem is one sentence
/// with a place, and what has none can be run.
pub fn config(data: &[u8]) {
    let Some((format, text)) = data.split_first() else { return };
    let Ok(text) = std::str::from_utf8(text) else { return };
    let path: Arc<str> = "manifold.toml".into();
    let is_json = *format == b'j';
    let root = if is_json { Node::from_json(text, &path) } else { Node::from_toml(text, &path) };
    let mut problems = Vec::new();
    match root {
        Ok(root) => {
            let config = Config::read(root, &mut problems);
            if problems.is_empty() {
                let _ = config.application();
            }
        }
        Err(problem) => problems.push(problem),
    }
    let lines = text.lines().count() + 1;
    for problem in problems {
        assert!(!problem.sentence.is_empty());
        if let super::Origin::File { line, .. } = problem.origin {
            assert!((1..=lines).contains(&line), "line {line} of {lines}");
        }
    }
}
