//! The log: to standard error, as text for people or as JSON lines for machines.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;

use crate::config::{Log, LogFormat, LogLevel};

/// Our own crates. Libraries say only what is wrong: their debug output, a line for each packet,
/// would drown ours; `RUST_LOG` brings it back.
const OWN_CRATES: [&str; 4] = ["manifold", "engine", "media", "control"];

/// Libraries that warn of each odd line or packet that strangers or cameras send: a single offer can
/// make thousands of such lines. What comes of it we say ourselves.
const TALKATIVE: [&str; 5] = ["str0m", "is", "dimpl", "sctp_proto", "retina"];

/// Starts the log. `RUST_LOG` wins over the configured level, for a look at single modules.
pub(crate) fn start(log: Log) {
    let filter =
        EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(directives(log.level)));
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal());
    // Fails where a log has been started in this process already: then that one is used.
    let _ = match log.format {
        LogFormat::Text => builder.try_init(),
        LogFormat::Json => builder.json().flatten_event(true).with_span_list(false).try_init(),
    };
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
    fn the_level_is_ours_and_libraries_only_warn() {
        let wanted = "warn,str0m=error,is=error,dimpl=error,sctp_proto=error,retina=error,\
                      manifold=debug,engine=debug,media=debug,control=debug";
        assert_eq!(directives(LogLevel::Debug), wanted);
    }
}
