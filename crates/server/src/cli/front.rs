//! The ports of HTTP: those of `listen`, the audio port, and HTTPS with its certificate.

use std::net::SocketAddr;

use anyhow::Context;

use crate::bind_error::BindError;
use crate::config::{Config, Door};
use crate::data_dir::DataDir;
use crate::http::{self, Doors, Listeners, Secure};
use crate::net;
use crate::tls::{self, Certificates, Tls, Upkeep};

/// What browsers may choose by ALPN (RFC 7301 §6): HTTP/1 alone is spoken.
const PROTOCOLS: &[&str] = &["http/1.1"];

/// Everything that HTTP and HTTPS are served on.
pub(super) struct Front {
    pub(super) listeners: Listeners,
    pub(super) doors: Doors,
    /// Those of `listen`.
    pub(super) listen: Vec<SocketAddr>,
    pub(super) audio: Option<SocketAddr>,
    /// `None`: HTTPS is off.
    pub(super) upkeep: Option<Upkeep>,
}

/// Binds all of it. `settings` is named in errors.
pub(super) async fn open(config: &Config, settings: &str) -> anyhow::Result<Front> {
    let mut listeners = http::bind(&config.listen, settings).await?;
    let listen = listeners.addresses();
    let mut plain = listen.clone();
    let opened = open_door(config.audio_listen, "audio_listen", settings).await?;
    let audio = opened.as_ref().and_then(|door| door.addresses().first().copied());
    if let Some(door) = opened {
        plain.extend(audio);
        listeners = listeners.and(door);
    }
    let (mut secure, mut upkeep) = (None, None);
    if let Some(Https { door, tls, upkeep: keeping }) = open_https(config, settings).await? {
        let acceptor = tls.acceptor(PROTOCOLS)?;
        secure = door.addresses().first().map(|address| Secure { address: *address, tls });
        upkeep = Some(keeping);
        listeners = listeners.and(door.secured(&acceptor));
    }
    Ok(Front { listeners, doors: Doors { plain, secure }, listen, audio, upkeep })
}

/// HTTPS, bound and with a certificate.
struct Https {
    door: Listeners,
    tls: Tls,
    upkeep: Upkeep,
}

async fn open_https(config: &Config, settings: &str) -> anyhow::Result<Option<Https>> {
    let wanted = config.https.listen;
    let Some(door) = open_door(wanted, "http.https", settings).await? else { return Ok(None) };
    let data = DataDir::of_process(config.data_dir.as_deref());
    let certificates = &config.https.certificates;
    match tls::open(certificates, data, config.media.advertise.clone()) {
        Ok((tls, upkeep)) => Ok(Some(Https { door, tls, upkeep })),
        Err(error) if is_optional(wanted, certificates) => {
            tracing::warn!(
                "HTTPS is off, so that browsers on other machines have no microphone: {error}"
            );
            Ok(None)
        }
        Err(error) => Err(error).context("HTTPS cannot be served"),
    }
}

/// Whether nobody asked for HTTPS: it comes by itself, and goes without where it cannot be.
fn is_optional(wanted: Door, certificates: &Certificates) -> bool {
    match (wanted, certificates) {
        (Door::IfFree(_) | Door::Closed, Certificates::Local) => true,
        (Door::At(_), _) | (_, Certificates::Files { .. }) => false,
    }
}

async fn open_door(
    door: Door,
    key: &'static str,
    settings: &str,
) -> Result<Option<Listeners>, BindError> {
    match door {
        Door::Closed => Ok(None),
        Door::At(address) => http::bind_one(address, key, settings).await.map(Some),
        Door::IfFree(address) => match http::bind_one(address, key, settings).await {
            Ok(listeners) => Ok(Some(listeners)),
            Err(error) => {
                tracing::warn!("{error}, or to \"off\"; the server goes on without this port");
                Ok(None)
            }
        },
    }
}

/// The lines that tell people how to get in, and to the microphone.
pub(super) fn welcome(doors: &Doors) -> Vec<String> {
    let mut lines: Vec<String> = doors
        .plain
        .first()
        .into_iter()
        .map(|first| format!("Manifold is ready: http://{}/", on_this_machine(*first)))
        .collect();
    if let Some(Secure { address, tls }) = &doors.secure {
        let secure = net::opened_at(*address);
        lines.push(format!("With a microphone, from other machines: https://{secure}/"));
        if tls.authority().is_some() {
            let outside = doors.plain.iter().find(|address| !address.ip().is_loopback());
            let base = outside.map_or_else(
                || format!("https://{secure}"),
                |plain| format!("http://{}", net::opened_at(*plain)),
            );
            lines.push(format!("Phones need this certificate, once: {base}/ca.crt"));
        }
    }
    lines
}

/// An address that a browser on this machine can open.
fn on_this_machine(address: SocketAddr) -> SocketAddr {
    let loopback: std::net::IpAddr = match address {
        SocketAddr::V4(_) => std::net::Ipv4Addr::LOCALHOST.into(),
        SocketAddr::V6(_) => std::net::Ipv6Addr::LOCALHOST.into(),
    };
    if address.ip().is_unspecified() { (loopback, address.port()).into() } else { address }
}
