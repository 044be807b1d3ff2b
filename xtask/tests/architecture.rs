//! The arrows of ARCHITECTURE.md, asserted: which crate may know which, no cycles among modules,
//! the libraries that are named in one place only, and that each of them has its reason written.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

/// Every crate of the workspace with the crates of it that it may depend on.
const CRATES: &[(&str, &[&str])] = &[
    ("control", &[]),
    ("engine", &["control", "media"]),
    ("media", &[]),
    ("server", &["control", "engine", "media"]),
    ("sim", &["control", "engine", "media"]),
    ("xtask", &[]),
];

/// Names that say nothing of what is inside.
const EMPTY_NAMES: &[&str] = &["common", "helper", "helpers", "misc", "shared", "util", "utils"];

/// A word that may stand in some files only.
struct Reserved {
    word: &'static str,
    /// Path prefixes below `crates/` where it may stand.
    places: &'static [&'static str],
    why: &'static str,
}

const RESERVED: &[Reserved] = &[
    Reserved {
        word: "str0m",
        places: &["media/src/peer", "sim/src/browser", "server/src/logging"],
        why: "str0m is wrapped by media's peer, so that it can be replaced there; it also checks it \
              as the simulation's browser, and the log names it to keep it quiet",
    },
    Reserved {
        word: "libc",
        places: &["server/src/net/sys"],
        why: "system calls that std does not have are the sockets' business",
    },
    Reserved {
        word: "unsafe",
        places: &["server/src/net/sys", "server/src/ingest/opus"],
        why: "unsafe code stands where a foreign interface demands it, and nowhere else",
    },
    Reserved {
        word: "retina",
        places: &["server/src/ingest/", "server/src/logging"],
        why: "RTSP is known to the source that speaks it; the log names the library to keep it quiet",
    },
    Reserved { word: "axum", places: &["server/src/http/"], why: "HTTP stays in the http module" },
    Reserved {
        word: "Serialize",
        places: &["server/src/http/wire", "server/src/config"],
        why: "what is written as JSON is a type of the wire",
    },
    Reserved {
        word: "Deserialize",
        places: &["server/src/http/wire", "server/src/config"],
        why: "what is read from outside becomes a type that cannot be wrong at the wire",
    },
];

#[test]
fn crates_depend_on_each_other_as_drawn() {
    let mut found = BTreeSet::new();
    for package in packages() {
        let name = text(&package["name"]);
        let allowed = CRATES.iter().find(|(of, _)| *of == name).map(|(_, allowed)| *allowed);
        let allowed = allowed.unwrap_or_else(|| panic!("crate {name} is not in ARCHITECTURE.md"));
        for dependency in package["dependencies"].as_array().into_iter().flatten() {
            let on = text(&dependency["name"]);
            let ours = CRATES.iter().any(|(of, _)| *of == on);
            assert!(!ours || allowed.contains(&on.as_str()), "{name} must not know {on}");
        }
        found.insert(name);
    }

    let drawn: BTreeSet<String> = CRATES.iter().map(|(name, _)| (*name).to_owned()).collect();
    assert_eq!(found, drawn);
}

#[test]
fn each_dependency_has_its_line_and_no_other() {
    let page = std::fs::read_to_string(root().join("docs/design/dependencies.md"));
    let page = page.expect("docs/design/dependencies.md can be read");
    let told: BTreeSet<String> = page.lines().flat_map(names_in_row).collect();

    let used: BTreeSet<String> = packages()
        .iter()
        .flat_map(|package| package["dependencies"].as_array().into_iter().flatten())
        .map(|dependency| text(&dependency["name"]))
        .filter(|name| CRATES.iter().all(|(ours, _)| ours != name))
        .collect();

    assert_eq!(told, used, "docs/design/dependencies.md beside what Cargo.toml files name");
}

#[test]
fn modules_have_no_cycles() {
    for (name, _) in CRATES {
        let modules = Modules::of_crate(&folder_of(name));
        if let Some(cycle) = modules.cycle() {
            panic!("modules of {name} need each other: {}", cycle.join(" -> "));
        }
    }
}

#[test]
fn names_say_what_is_inside() {
    for (name, _) in CRATES {
        for (path, _) in sources(&folder_of(name)) {
            let bad = path.components().find_map(|part| {
                let part = part.as_os_str().to_string_lossy();
                let stem = part.trim_end_matches(".rs").to_owned();
                EMPTY_NAMES.contains(&stem.as_str()).then_some(stem)
            });
            assert_eq!(bad, None, "{name}: {}", path.display());
        }
    }
}

#[test]
fn reserved_words_stay_in_their_places() {
    let crates = root().join("crates");
    for (path, source) in sources(&crates) {
        let place = path.to_string_lossy().replace('\\', "/");
        for Reserved { word, places, why } in RESERVED {
            let allowed = places.iter().any(|prefix| place.starts_with(prefix));
            let used = words(&source).any(|found| found == *word);
            assert!(allowed || !used, "crates/{place} names `{word}`: {why}");
        }
    }
}

#[test]
fn a_cycle_is_found() {
    let source = |text: &str| text.to_owned();
    let modules = Modules::of_sources(&[
        ("lib.rs", source("pub mod a; pub mod b; mod c; pub use c::Thing;")),
        ("a.rs", source("use crate::b::Frame;\nuse std::fmt;")),
        ("b/mod.rs", source("mod deep;\n/// Like [`crate::a`].\npub struct Frame;")),
        ("b/deep.rs", source("use super::Frame;\nuse crate::{Thing, c::{self, Other}};")),
        ("c.rs", source("fn x() { super::a::y() }\n#[cfg(test)]\nmod tests { use crate::b; }")),
    ]);

    assert_eq!(modules.cycle(), Some(vec!["a".into(), "b".into(), "c".into(), "a".into()]));
}

#[test]
fn modules_that_only_lean_one_way_have_no_cycle() {
    let source = |text: &str| text.to_owned();
    let modules = Modules::of_sources(&[
        ("main.rs", source("mod a; mod b; mod c;")),
        ("a.rs", source("use crate::{b, c};")),
        ("b.rs", source("use crate::c; // and crate::a is told by messages")),
        ("c.rs", source("#[cfg(test)]\nmod tests { use crate::a; }")),
    ]);

    assert_eq!(modules.cycle(), None);
}

/// The crates that a row of a Markdown table names in its first column; none in its head.
fn names_in_row(line: &str) -> Vec<String> {
    let first = line.strip_prefix("| ").and_then(|row| row.split(" |").next()).unwrap_or_default();
    first.split(", ").filter(|name| !["", "crate"].contains(name)).map(str::to_owned).collect()
}

/// The top-level modules of a crate, each with the ones that it names.
struct Modules {
    needs: BTreeMap<String, BTreeSet<String>>,
}

impl Modules {
    fn of_crate(folder: &Path) -> Self {
        let files: Vec<(String, String)> = sources(&folder.join("src"))
            .into_iter()
            .map(|(path, source)| (path.to_string_lossy().into_owned(), source))
            .collect();
        let borrowed: Vec<(&str, String)> =
            files.iter().map(|(path, source)| (path.as_str(), source.clone())).collect();
        Self::of_sources(&borrowed)
    }

    /// From paths below `src/` and what the files say.
    fn of_sources(files: &[(&str, String)]) -> Self {
        let files: Vec<(Vec<&str>, String)> =
            files.iter().map(|(path, source)| (module_path(path), program_text(source))).collect();
        let roots = || files.iter().filter(|(path, _)| path.is_empty());
        let mut needs: BTreeMap<String, BTreeSet<String>> = files
            .iter()
            .filter_map(|(path, _)| Some((path.first()?.to_string(), BTreeSet::new())))
            .collect();
        let exported: BTreeMap<String, String> =
            roots().flat_map(|(_, source)| exports(source)).collect();
        for (path, source) in &files {
            let Some(own) = path.first() else { continue };
            // `super` once for each step leads from a module to the crate's root.
            let to_root = "super::".repeat(path.len());
            for name in names_after(source, "crate::").chain(names_after(source, &to_root)) {
                let module = exported.get(&name).unwrap_or(&name).clone();
                if module != *own && needs.contains_key(&module) {
                    needs.entry((*own).to_owned()).or_default().insert(module);
                }
            }
        }
        Self { needs }
    }

    /// A way along the needs that comes back to where it began.
    fn cycle(&self) -> Option<Vec<String>> {
        self.needs.keys().find_map(|start| {
            let mut way = vec![start.clone()];
            self.way_back(start, &mut way, &mut BTreeSet::new()).then_some(way)
        })
    }

    fn way_back(&self, start: &str, way: &mut Vec<String>, seen: &mut BTreeSet<String>) -> bool {
        let here = way.last().cloned().unwrap_or_default();
        for next in self.needs.get(&here).into_iter().flatten() {
            if next == start {
                way.push(next.clone());
                return true;
            }
            if seen.insert(next.clone()) {
                way.push(next.clone());
                if self.way_back(start, way, seen) {
                    return true;
                }
                way.pop();
            }
        }
        false
    }
}

/// `net/udp.rs` is `[net, udp]`, `net/mod.rs` is `[net]`, `lib.rs` and `main.rs` are the root.
fn module_path(path: &str) -> Vec<&str> {
    let mut parts: Vec<&str> = path.trim_end_matches(".rs").split('/').collect();
    if matches!(parts.last(), Some(&"mod" | &"lib" | &"main")) {
        parts.pop();
    }
    parts
}

/// The source without comments and without its tests, which stand last.
fn program_text(source: &str) -> String {
    let program = source.split("#[cfg(test)]\nmod ").next().unwrap_or_default();
    program
        .lines()
        .map(|line| line.split("//").next().unwrap_or_default())
        .collect::<Vec<_>>()
        .join("\n")
}

/// The names that stand directly after `prefix`: one, or those of a group `{a, b::c}`.
fn names_after<'a>(source: &'a str, prefix: &'a str) -> impl Iterator<Item = String> + 'a {
    source.match_indices(prefix).flat_map(move |(at, _)| {
        let before = source[..at].chars().next_back();
        let whole = !before.is_some_and(|c| c.is_alphanumeric() || c == '_' || c == ':');
        let after = &source[at + prefix.len()..];
        if whole { first_names(after) } else { Vec::new() }
    })
}

fn first_names(after: &str) -> Vec<String> {
    let Some(group) = after.strip_prefix('{') else {
        return words(after).take(1).map(str::to_owned).collect();
    };
    let mut depth = 0_u32;
    let mut items = vec![String::new()];
    for letter in group.chars() {
        match letter {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => items.push(String::new()),
            letter => {
                if let Some(item) = items.last_mut() {
                    item.push(letter);
                }
            }
        }
    }
    items.iter().filter_map(|item| words(item).next().map(str::to_owned)).collect()
}

/// What the crate's root hands out under its own name: each with the module it comes from.
fn exports(root: &str) -> Vec<(String, String)> {
    let statements = root.match_indices("use ").map(|(at, word)| {
        let rest = &root[at + word.len()..];
        rest.split(';').next().unwrap_or_default()
    });
    statements
        .flat_map(|statement| {
            let statement = statement.trim_start_matches("crate::");
            let module = words(statement).next().unwrap_or_default().to_owned();
            words(statement).skip(1).map(move |name| (name.to_owned(), module.clone()))
        })
        .collect()
}

/// The identifiers of a text.
fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| !c.is_alphanumeric() && c != '_').filter(|word| !word.is_empty())
}

/// All Rust files below a folder, by their path in it, without comments and tests: a test may know
/// what the code it tests must not, as a second opinion.
fn sources(folder: &Path) -> Vec<(PathBuf, String)> {
    let mut folders = vec![folder.to_owned()];
    let mut found = Vec::new();
    while let Some(current) = folders.pop() {
        for entry in std::fs::read_dir(&current).expect("the workspace's folders can be read") {
            let path = entry.expect("the workspace's folders can be read").path();
            let below = path.strip_prefix(folder).expect("it lies below").to_owned();
            if path.is_dir() {
                folders.push(path);
            } else if is_program(&below) {
                let source = std::fs::read_to_string(&path).expect("sources are UTF-8");
                found.push((below, program_text(&source)));
            }
        }
    }
    assert!(!found.is_empty(), "no Rust file below {}", folder.display());
    found
}

fn is_program(path: &Path) -> bool {
    let is_test = path.ends_with("tests.rs") || path.components().any(|c| c.as_os_str() == "tests");
    path.extension().is_some_and(|extension| extension == "rs") && !is_test
}

fn packages() -> Vec<Value> {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--no-deps", "--format-version", "1", "--offline"])
        .current_dir(root())
        .output()
        .expect("cargo starts");
    let metadata: Value = serde_json::from_slice(&output.stdout).expect("cargo metadata is JSON");
    metadata["packages"].as_array().expect("it lists packages").clone()
}

fn folder_of(name: &str) -> PathBuf {
    if name == "xtask" { root().join("xtask") } else { root().join("crates").join(name) }
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn text(value: &Value) -> String {
    value.as_str().expect("a string").to_owned()
}
