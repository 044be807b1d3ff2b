//! The command line. Every failure ends as one clear line on standard error and an exit code: 2 for wrong
//! settings or a server that is not there, 3 for one that refuses, 1 for the rest.

mod audit;
mod bench;
mod bundle;
mod check;
mod client;
mod doctor;
mod front;
mod health;
mod load;
mod manual;
mod push;
mod reload;
mod reset;
mod serve;
mod token;
mod top;
mod trace;
mod why;

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

use crate::config::{Flags, LoadError};

/// One camera, any number of browsers.
#[derive(Debug, Parser)]
#[command(name = "manifold", version, about, args_conflicts_with_subcommands = true)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    /// `manifold` alone serves.
    #[command(flatten)]
    serve: ServeArgs,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve cameras to browsers (what `manifold` alone does)
    Serve(ServeArgs),
    /// Look at the settings
    Config {
        #[command(subcommand)]
        command: ConfigCommand,
    },
    /// Make a token for the API from the first of auth.keys
    Token(token::TokenArgs),
    /// Is the server well? Exit code 0: yes, 1: not quite, 2: it does not answer
    Health(health::HealthArgs),
    /// Try ports, the way to the media port, certificate, clock and each camera, and say what is wrong
    Doctor(doctor::DoctorArgs),
    /// Why a viewer, a camera or the voice relay brings no picture or no sound
    Why(why::WhyArgs),
    /// The life of a reservation, step by step; also of one that has ended
    Trace(trace::TraceArgs),
    /// Who watched what, and who changed what
    Audit {
        #[command(subcommand)]
        command: audit::AuditCommand,
    },
    /// Watch viewers, cameras and packets as they are
    Top(top::TopArgs),
    /// End the viewers and the pullers of a camera, or of all
    Reset(reset::ResetArgs),
    /// Write a report of a fault: state, settings without secrets, log, findings
    Bundle(bundle::BundleArgs),
    /// Many viewers of any WHEP server, in one process
    Load(load::LoadArgs),
    /// Publish a test card or an RTSP camera to any WHIP server
    Push(push::PushArgs),
    /// Measure what viewers cost on this machine
    Bench {
        #[command(subcommand)]
        command: bench::BenchCommand,
    },
    /// Completions for a shell, on standard output
    Completions {
        /// Which shell
        shell: clap_complete::Shell,
    },
    /// Write the man pages into a directory
    Man {
        /// Where to; it is made if it is not there
        #[arg(value_name = "DIR")]
        directory: PathBuf,
    },
}

#[derive(Debug, Subcommand)]
enum ConfigCommand {
    /// Check the settings and name the file, line and key of everything that is wrong
    Check {
        /// Config file, TOML or (by its ending) JSON [default: ./manifold.toml if it exists]
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,
    },
}

#[derive(Debug, Args)]
struct ServeArgs {
    /// Config file, TOML or (by its ending) JSON [default: ./manifold.toml if it exists]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Serve HTTP here; give it several times for several listeners
    #[arg(long, value_name = "ADDR:PORT")]
    listen: Vec<String>,
    /// Send and receive media here
    #[arg(long, value_name = "ADDR:PORT")]
    udp: Option<String>,
    /// Serve cameras to players and recorders by RTSP here; "" for nowhere
    #[arg(long, value_name = "ADDR:PORT")]
    rtsp: Option<String>,
    /// How the log is written
    #[arg(long, value_name = "text|json")]
    log_format: Option<String>,
    /// What the log tells
    #[arg(long, value_name = "error|warn|info|debug|trace")]
    log_level: Option<String>,
    /// Write the addresses that are really bound to this file once everything runs
    #[arg(long, value_name = "FILE")]
    ready_file: Option<PathBuf>,
}

/// Why the program ends before it should.
#[derive(Debug, thiserror::Error)]
enum Failure {
    /// Exit code 2.
    #[error(transparent)]
    Settings(#[from] LoadError),
    /// Exit code 1 to 3.
    #[error(transparent)]
    Server(#[from] client::AskError),
    /// Exit code 1.
    #[error("{0:#}")]
    Other(#[from] anyhow::Error),
}

impl Failure {
    fn exit_code(&self) -> u8 {
        match self {
            Self::Settings(_) => 2,
            Self::Server(error) => error.exit_code(),
            Self::Other(_) => 1,
        }
    }
}

/// Reads the command line and does what it says.
pub(crate) fn run() -> ExitCode {
    let cli = Cli::parse();
    match cli.command {
        None => ended(serve::run(&cli.serve)),
        Some(Command::Serve(args)) => ended(serve::run(&args)),
        Some(Command::Config { command: ConfigCommand::Check { config } }) => check::run(config),
        Some(Command::Token(args)) => ended(token::run(&args)),
        Some(Command::Load(args)) => finished(load::run(args)),
        Some(Command::Push(args)) => ended(push::run(args)),
        Some(Command::Bench { command }) => ended(bench::run(&command)),
        Some(Command::Health(args)) => finished(health::run(&args)),
        Some(Command::Doctor(args)) => finished(doctor::run(&args)),
        Some(Command::Why(args)) => finished(why::run(&args)),
        Some(Command::Trace(args)) => finished(trace::run(&args)),
        Some(Command::Audit { command }) => finished(audit::run(&command)),
        Some(Command::Top(args)) => ended(top::run(&args)),
        Some(Command::Bundle(args)) => ended(bundle::run(&args)),
        Some(Command::Reset(args)) => finished(reset::run(&args)),
        Some(Command::Completions { shell }) => ended(manual::completions(shell)),
        Some(Command::Man { directory }) => ended(manual::write(&directory)),
    }
}

fn ended(result: Result<(), Failure>) -> ExitCode {
    result.map_or_else(|failure| failed(&failure), |()| ExitCode::SUCCESS)
}

/// Of a command whose exit code says what it found.
fn finished(result: Result<ExitCode, Failure>) -> ExitCode {
    result.unwrap_or_else(|failure| failed(&failure))
}

fn failed(failure: &Failure) -> ExitCode {
    complain(&failure.to_string());
    ExitCode::from(failure.exit_code())
}

/// One line on standard error for each of `text`.
fn complain(text: &str) {
    let mut stderr = std::io::stderr().lock();
    for line in text.lines() {
        // There is nobody to tell that standard error is closed.
        let _ = writeln!(stderr, "manifold: {line}");
    }
}

/// One line on standard output.
fn say(line: &str) {
    let _ = writeln!(std::io::stdout().lock(), "{line}");
}

impl ServeArgs {
    fn flags(&self) -> Flags {
        Flags {
            config: self.config.clone(),
            listen: self.listen.clone(),
            udp: self.udp.clone(),
            rtsp: self.rtsp.clone(),
            log_format: self.log_format.clone(),
            log_level: self.log_level.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }

    #[test]
    fn serve_may_be_left_out() {
        let short = Cli::parse_from(["manifold", "--udp", "127.0.0.1:1", "--listen", "a"]);
        assert_eq!(short.serve.flags().udp.as_deref(), Some("127.0.0.1:1"));
        let long = ["manifold", "serve", "--listen", "a", "--listen", "b", "--log-level", "debug"];
        let Some(Command::Serve(args)) = Cli::parse_from(long).command else { panic!("no serve") };
        assert_eq!(args.flags().listen, ["a", "b"]);
        assert_eq!(args.flags().log_level.as_deref(), Some("debug"));
    }
}
