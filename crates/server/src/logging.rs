//! The log: to standard error, as text for people or as JSON lines for machines. Its newest lines are kept,
//! for reports of faults.

use std::collections::VecDeque;
use std::io::{self, IsTerminal, Write};
use std::sync::{Mutex, MutexGuard, PoisonError};

use tracing_subscriber::fmt::layer;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer};

use crate::config::{Log, LogFormat, LogLevel};

/// Our own crates. Libraries say only what is wrong: their debug output, a line for each packet,
/// would drown ours; `RUST_LOG` brings it back.
const OWN_CRATES: [&str; 4] = ["manifold", "engine", "media", "control"];

/// Libraries that warn of each odd line or packet that strangers or cameras send: a single offer can
/// make thousands of such lines. What comes of it we say ourselves.
const TALKATIVE: [&str; 5] = ["str0m", "is", "dimpl", "sctp_proto", "retina"];

/// Lines that are kept: at the level `info` those of 300 viewers who came and went.
const RECENT_LINES: usize = 2_000;

/// Longest line that is kept whole, in bytes. All that are kept take 2 MB at most.
const RECENT_LINE_BYTES: usize = 1_024;

static RECENT: Mutex<VecDeque<String>> = Mutex::new(VecDeque::new());

/// The newest lines, oldest first.
pub(crate) fn recent() -> Vec<String> {
    kept().iter().cloned().collect()
}

fn kept() -> MutexGuard<'static, VecDeque<String>> {
    RECENT.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Keeps what is written to it: the library writes whole lines.
struct Recent;

impl Write for Recent {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let shown = &line[..line.len().min(RECENT_LINE_BYTES)];
        let text = String::from_utf8_lossy(shown).trim_end().to_owned();
        let mut kept = kept();
        if kept.len() == RECENT_LINES {
            kept.pop_front();
        }
        kept.push_back(text);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Starts the log. `RUST_LOG` wins over the configured level, for a look at single modules.
pub(crate) fn start(log: Log) {
    let filter =
        EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(directives(log.level)));
    let shown = layer().with_writer(io::stderr).with_ansi(io::stderr().is_terminal());
    let shown = match log.format {
        LogFormat::Text => shown.boxed(),
        LogFormat::Json => shown.json().flatten_event(true).with_span_list(false).boxed(),
    };
    let kept = layer().with_writer(|| Recent).with_ansi(false);
    let registry = tracing_subscriber::registry().with(filter).with(shown).with(kept);
    // Fails where a log has been started in this process already: then that one is used.
    let _ = registry.try_init();
}

fn directives(level: LogLevel) -> String {
    let own = OWN_CRATES.map(|of| format!(",{of}={}", name(level)));
    let talkative = TALKATIVE.map(|of| format!(",{of}=error"));
    format!("warn{}{}", talkative.concat(), own.concat())
}

fn name(level: LogLevel) -> &'static str {
    match level {
        LogLevel::Error => "error",
        LogLevel::Warn => "warn",
        LogLevel::Info => "info",
        LogLevel::Debug => "debug",
        LogLevel::Trace => "trace",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn so_many_lines_are_kept_and_no_longer_ones() {
        for number in 0..=RECENT_LINES {
            Recent.write_all(format!("line {number}\n").as_bytes()).unwrap();
        }
        let long = "x".repeat(2 * RECENT_LINE_BYTES);
        Recent.write_all(long.as_bytes()).unwrap();
        let recent = recent();
        assert_eq!(recent.len(), RECENT_LINES);
        assert_eq!(
            (recent[0].as_str(), recent[RECENT_LINES - 1].len()),
            ("line 2", RECENT_LINE_BYTES)
        );
    }

    #[test]
    fn the_level_is_ours_and_libraries_only_warn() {
        let wanted = "warn,str0m=error,is=error,dimpl=error,sctp_proto=error,retina=error,\
                      manifold=debug,engine=debug,media=debug,control=debug";
        assert_eq!(directives(LogLevel::Debug), wanted);
    }
}
