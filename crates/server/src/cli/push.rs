//! `manifold push`

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use clap::{Args, ValueEnum};
use url::Url;

use super::Failure;
use super::client::trust;
use super::load::token;
use crate::config::{Log, LogFormat, LogLevel};
use crate::ingest::{RtspTransport, SourceUrl};
use crate::logging;
use crate::push::{self, PushPlan};

/// The RTSP address, with its password, may be kept out of the process list.
const RTSP_VARIABLE: &str = "MANIFOLD_RTSP";

#[derive(Debug, Args)]
pub(super) struct PushArgs {
    /// WHIP address to publish to
    #[arg(long, value_name = "URL")]
    whip: Url,
    /// Publish a test card: test://clock?width=640&height=360&fps=15&gop=30, or another
    #[arg(long, value_name = "URL", num_args = 0..=1, default_missing_value = "test://clock", group = "source")]
    test: Option<String>,
    /// Publish this camera: rtsp://user:password@host:554/path [default: the variable MANIFOLD_RTSP]
    #[arg(long, value_name = "URL", group = "source")]
    rtsp: Option<String>,
    /// How RTP comes from the camera
    #[arg(long, value_enum, default_value_t = Transport::Tcp)]
    transport: Transport,
    /// Bearer token for each request [default: the variable MANIFOLD_TOKEN]
    #[arg(long, value_name = "TOKEN")]
    token: Option<String>,
    /// Certificate of the authority that an https:// server is believed by [default: those of this machine, and
    /// that of its own server]
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// From the start to the end [default: until Ctrl-C]
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    duration: Option<Duration>,
    /// Our own address [default: the one on the way to the server]
    #[arg(long, value_name = "ADDR")]
    bind: Option<IpAddr>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Transport {
    Tcp,
    Udp,
}

/// Publishes until it is over.
pub(super) fn run(args: PushArgs) -> Result<(), Failure> {
    logging::start(Log { format: LogFormat::Text, level: LogLevel::Warn });
    Ok(push::run(&args.plan()?)?)
}

impl PushArgs {
    fn plan(self) -> anyhow::Result<PushPlan> {
        let address = self.test.or(self.rtsp).or_else(|| std::env::var(RTSP_VARIABLE).ok());
        let address = address.context("say what to publish: --test, or --rtsp with an address")?;
        let is_secure = self.whip.scheme() == "https";
        Ok(PushPlan {
            trust: if is_secure { Some(trust(self.ca.as_deref())?) } else { None },
            whip: self.whip,
            token: token(self.token),
            source: SourceUrl::parse(&address)?,
            transport: match self.transport {
                Transport::Tcp => RtspTransport::Tcp,
                Transport::Udp => RtspTransport::Udp,
            },
            duration: self.duration,
            bind: self.bind,
        })
    }
}
