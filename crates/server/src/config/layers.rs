//! File, environment and flags, laid over each other: a flag wins over a variable, a variable over
//! the file, the file over the built-in values.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::reader::Setting;
use super::tree::{Node, Origin, Problem, Value};
use super::{Config, runbook, shipped};

/// Read from the working directory when no file is named, the first that exists.
const DEFAULT_FILES: [&str; 2] = ["manifold.toml", "manifold.json"];

/// The old voice server's, read where none of ours is there. Many programs have a file of this name: it is
/// taken only if it is told by its tables.
const RUNBOOK_FILE: &str = "config.json";

/// Largest config file. 500 cameras need about 200 KiB.
const FILE_LENGTH_MAX: u64 = 16 * 1024 * 1024;

const PREFIX: &str = "MANIFOLD__";
const LIMIT_PREFIX: &str = "LIMIT_";

/// Variables of the old voice server that are settings here.
const PLAIN_NAMES: [&str; 5] = ["PORT", "AUDIO_PORT", "SSL_CERT_FILE", "SSL_KEY_FILE", "LOG_LEVEL"];

/// What `LOG_LEVEL` may be, as Python has it and as we do, and what it is here.
const LOG_LEVELS: [(&str, &str); 8] = [
    ("critical", "error"),
    ("fatal", "error"),
    ("error", "error"),
    ("warning", "warn"),
    ("warn", "warn"),
    ("info", "info"),
    ("debug", "debug"),
    ("trace", "trace"),
];

/// What the command line says of settings, as it was typed.
#[derive(Debug, Clone, Default)]
pub(crate) struct Flags {
    /// `--config`
    pub(crate) config: Option<PathBuf>,
    /// `--listen`; empty when not given.
    pub(crate) listen: Vec<String>,
    /// `--udp`
    pub(crate) udp: Option<String>,
    /// `--rtsp`
    pub(crate) rtsp: Option<String>,
    /// `--log-format`
    pub(crate) log_format: Option<String>,
    /// `--log-level`
    pub(crate) log_level: Option<String>,
}

/// The environment variables that are settings. Not `Debug`: values may be secret.
#[derive(Clone, Default)]
pub(crate) struct Environment(Vec<(String, String)>);

impl Environment {
    /// Those of this process.
    pub(crate) fn of_process() -> Self {
        let variables = std::env::vars_os().filter_map(|(name, value)| {
            Some((name.into_string().ok()?, value.to_string_lossy().into_owned()))
        });
        variables.collect()
    }

    /// A variable that is there and not empty.
    fn text(&self, name: &str) -> Option<&str> {
        let found = self.0.iter().find(|(of, value)| of == name && !value.trim().is_empty());
        found.map(|(_, value)| value.trim())
    }
}

impl FromIterator<(String, String)> for Environment {
    /// Keeps what is named like a setting, sorted by name.
    fn from_iter<I: IntoIterator<Item = (String, String)>>(variables: I) -> Self {
        let is_setting = |name: &str| {
            name.starts_with(PREFIX)
                || name.starts_with(LIMIT_PREFIX)
                || PLAIN_NAMES.contains(&name)
        };
        let mut variables: Vec<_> =
            variables.into_iter().filter(|(name, _)| is_setting(name)).collect();
        variables.sort();
        Self(variables)
    }
}

/// Right settings, and the file they came from.
#[derive(Debug)]
pub(crate) struct Loaded {
    pub(crate) config: Config,
    /// `None`: no file, built-in values.
    pub(crate) file: Option<PathBuf>,
    /// What was written and has no meaning.
    pub(crate) warnings: Vec<Problem>,
}

/// Why there are no settings.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LoadError {
    /// The file is not there, or must not be read.
    #[error("cannot read the config file {path}: {source}", path = path.display())]
    Unreadable {
        /// As given.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// The file is no text of a sensible size.
    #[error("the config file {path} is larger than 16 MiB; is it the right file?", path = path.display())]
    TooLarge {
        /// As given.
        path: PathBuf,
    },
    /// Every problem, in the order of reading. Never empty.
    #[error("{}", join(.0))]
    Problems(Vec<Problem>),
}

fn join(problems: &[Problem]) -> String {
    let lines: Vec<String> = problems.iter().map(ToString::to_string).collect();
    lines.join("\n")
}

/// Reads and checks all settings.
pub(crate) fn load(flags: &Flags, environment: &Environment) -> Result<Loaded, LoadError> {
    let (mut problems, mut warnings) = (Vec::new(), Vec::new());
    let (file, root) = open_file(flags)?;
    let mut root = if runbook::is_meant(&root) {
        runbook::translate(root, &mut warnings, &mut problems)
    } else {
        root
    };
    lay_plain_names(&mut root, environment, &mut problems);
    lay_log_level(&mut root, environment, &mut warnings);
    lay_environment(&mut root, environment, &mut problems);
    lay_flags(&mut root, flags);
    let mut config = Config::read(root, &mut problems);
    lay_limits(&mut config, environment, &mut problems);
    if problems.is_empty() {
        Ok(Loaded { config, file, warnings })
    } else {
        Err(LoadError::Problems(problems))
    }
}

/// The file that is named, or that is there, and what it says.
fn open_file(flags: &Flags) -> Result<(Option<PathBuf>, Node), LoadError> {
    if let Some(path) = flags.config.clone().or_else(default_file) {
        let root = read_file(&path)?;
        return Ok((Some(path), root));
    }
    let path = Path::new(RUNBOOK_FILE);
    if path.exists() {
        let root = read_file(path)?;
        if runbook::is_meant(&root) {
            return Ok((Some(path.to_owned()), root));
        }
    }
    Ok((None, Node::empty(Origin::Default)))
}

fn default_file() -> Option<PathBuf> {
    DEFAULT_FILES.iter().map(PathBuf::from).find(|path| path.exists())
}

fn read_file(path: &Path) -> Result<Node, LoadError> {
    let unreadable = |source| LoadError::Unreadable { path: path.to_owned(), source };
    if std::fs::metadata(path).map_err(unreadable)?.len() > FILE_LENGTH_MAX {
        return Err(LoadError::TooLarge { path: path.to_owned() });
    }
    let text = std::fs::read_to_string(path).map_err(unreadable)?;
    let name: Arc<str> = path.display().to_string().into();
    let is_json = path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("json"));
    let root = if is_json { Node::from_json(&text, &name) } else { Node::from_toml(&text, &name) };
    root.map_err(|problem| LoadError::Problems(vec![problem]))
}

/// The variables of the old voice server; those with `MANIFOLD__` win over them.
fn lay_plain_names(root: &mut Node, environment: &Environment, problems: &mut Vec<Problem>) {
    let mut lay = |name: &str, keys: &[&str], value: &str| {
        let origin = Origin::Environment(name.to_owned());
        if let Err(sentence) = root.set(keys, value, &origin) {
            problems.push(Problem { origin, key: keys.join("."), sentence });
        }
    };
    if let Some(port) = environment.text("AUDIO_PORT") {
        lay("AUDIO_PORT", &["audio_listen"], port);
    }
    // Elsewhere `SSL_CERT_FILE` alone names the authorities that a program trusts (OpenSSL), and many
    // systems set it for all: without a key it is not meant for us.
    if let Some(key) = environment.text("SSL_KEY_FILE") {
        lay("SSL_KEY_FILE", &["http", "key"], key);
        if let Some(certificate) = environment.text("SSL_CERT_FILE") {
            lay("SSL_CERT_FILE", &["http", "certificate"], certificate);
        }
    }
    if let Some(port) = environment.text("PORT") {
        lay_port(root, port, problems);
    }
}

/// `LOG_LEVEL`, which other programs use too: what is not known is passed over.
fn lay_log_level(root: &mut Node, environment: &Environment, warnings: &mut Vec<Problem>) {
    let Some(text) = environment.text("LOG_LEVEL") else { return };
    let origin = Origin::Environment("LOG_LEVEL".to_owned());
    let level = LOG_LEVELS.iter().find(|(name, _)| text.eq_ignore_ascii_case(name));
    match level {
        // Fails only where the file has a text in place of a table, which the reader reports.
        Some((_, level)) => drop(root.set(&["log", "level"], level, &origin)),
        None => {
            let sentence = "this is no level of the log and is passed over".to_owned();
            warnings.push(Problem { origin, key: String::new(), sentence });
        }
    }
}

/// `PORT` is the port of the first address of `listen`.
fn lay_port(root: &mut Node, port: &str, problems: &mut Vec<Problem>) {
    let origin = Origin::Environment("PORT".to_owned());
    let Ok(port) = port.parse() else {
        let sentence = format!("this must be a port from 0 to {}, not {port:?}", u16::MAX);
        problems.push(Problem { origin, key: "listen".to_owned(), sentence });
        return;
    };
    let mut listen = match root.entry("listen").map(Vec::<SocketAddr>::read) {
        None => shipped::listen(),
        Some(Ok(listen)) => listen,
        // The reader says what is wrong with it.
        Some(Err(_)) => return,
    };
    if let Some(first) = listen.first_mut() {
        first.set_port(port);
    }
    let all: Vec<String> = listen.iter().map(ToString::to_string).collect();
    // A table, which `root` is, takes any key.
    let _ = root.set(&["listen"], &all.join(","), &origin);
}

fn lay_environment(root: &mut Node, environment: &Environment, problems: &mut Vec<Problem>) {
    for (name, value) in &environment.0 {
        let Some(path) = name.strip_prefix(PREFIX) else { continue };
        let keys: Vec<String> = setting_keys(path);
        let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
        let origin = Origin::Environment(name.clone());
        if let Err(sentence) = root.set(&keys, value, &origin) {
            problems.push(Problem { origin, key: keys.join("."), sentence });
        }
    }
}

/// `MEDIA__UDP` is `media.udp`. Ids of keys and names of users keep their case.
fn setting_keys(path: &str) -> Vec<String> {
    let keys: Vec<String> = path.split("__").map(str::to_ascii_lowercase).collect();
    match keys.as_slice() {
        [section, table, _, ..]
            if matches!(
                (section.as_str(), table.as_str()),
                ("auth", "keys") | ("rtsp", "users")
            ) =>
        {
            path.splitn(3, "__").zip(0..).map(|(key, at)| keep_id(key, at)).collect()
        }
        _ => keys,
    }
}

fn keep_id(key: &str, at: usize) -> String {
    if at == 2 { key.to_owned() } else { key.to_ascii_lowercase() }
}

fn lay_flags(root: &mut Node, flags: &Flags) {
    let texts = [
        ("--udp", ["media", "udp"], flags.udp.as_ref()),
        ("--rtsp", ["rtsp", "listen"], flags.rtsp.as_ref()),
        ("--log-format", ["log", "format"], flags.log_format.as_ref()),
        ("--log-level", ["log", "level"], flags.log_level.as_ref()),
    ];
    for (flag, keys, text) in texts {
        if let Some(text) = text {
            lay_flag(root, flag, &keys, text);
        }
    }
    if !flags.listen.is_empty() {
        lay_flag(root, "--listen", &["listen"], &flags.listen.join(","));
    }
}

fn lay_flag(root: &mut Node, flag: &'static str, keys: &[&str], text: &str) {
    // Fails only where the file has a text in place of a table, which the reader reports.
    let _ = root.set(keys, text, &Origin::Flag(flag));
}

/// `LIMIT_<SOURCE>` and `LIMIT_TOTAL`.
fn lay_limits(config: &mut Config, environment: &Environment, problems: &mut Vec<Problem>) {
    for (name, value) in &environment.0 {
        let Some(scope) = name.strip_prefix(LIMIT_PREFIX) else { continue };
        let origin = Origin::Environment(name.clone());
        let node = Node { origin: origin.clone(), value: Value::Text(value.clone()) };
        let target = if scope == "TOTAL" {
            Some(&mut config.quota.total)
        } else {
            config
                .sources
                .iter_mut()
                .find(|source| source.id.as_str() == scope)
                .map(|s| &mut s.limit)
        };
        let result = match target {
            Some(target) => u32::read(&node).map(|limit| *target = limit),
            None => Err(format!("there is no source {scope:?}")),
        };
        if let Err(sentence) = result {
            problems.push(Problem { origin, key: String::new(), sentence });
        }
    }
}
