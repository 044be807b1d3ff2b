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
    let data = DataDir::of_process(config.store.data_dir.as_deref());
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

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;
    use crate::config;
    use crate::data_dir::tests::Temporary;

    /// Settings that take free ports and keep what is made in `data`.
    fn settings(data: &Temporary) -> Config {
        let mut config = config::from_toml("listen = [\"127.0.0.1:0\"]");
        config.store.data_dir = Some(data.0.path("kept"));
        config
    }

    fn free() -> SocketAddr {
        "127.0.0.1:0".parse().unwrap()
    }

    #[tokio::test]
    async fn a_busy_port_is_an_error_only_where_it_was_asked_for() {
        let data = Temporary::new();
        let other = TcpListener::bind(free()).unwrap();
        let taken = other.local_addr().unwrap();
        let mut config = settings(&data);
        (config.audio_listen, config.https.listen) = (Door::IfFree(taken), Door::IfFree(taken));

        let front = open(&config, "m.toml").await.unwrap();

        assert_eq!((front.audio, front.doors.plain), (None, front.listen));
        assert!(front.doors.secure.is_none() && !data.0.path("kept").exists());

        config.https.listen = Door::At(taken);
        let error = open(&config, "m.toml").await.err().unwrap().to_string();
        let wanted = format!(
            "port {taken} (http.https) is in use; stop the other program or change `http.https` in m.toml"
        );
        assert_eq!(error, wanted);
        (config.audio_listen, config.https.listen) = (Door::At(taken), Door::Closed);
        let error = open(&config, "m.toml").await.err().unwrap().to_string();
        assert!(error.starts_with(&format!("port {taken} (audio_listen) is in use;")), "{error}");
    }

    #[tokio::test]
    async fn https_that_nobody_asked_for_is_off_where_nothing_can_be_kept() {
        let data = Temporary::new();
        data.0.write("kept", "a file in the place of the directory").unwrap();
        let mut config = settings(&data);
        config.https.listen = Door::IfFree(free());

        let front = open(&config, "m.toml").await.unwrap();

        assert!(front.doors.secure.is_none() && front.upkeep.is_none());
        config.https.listen = Door::At(free());
        let error = format!("{:#}", open(&config, "m.toml").await.err().unwrap());
        let wanted =
            "HTTPS cannot be served: the local certificate authority cannot be kept: cannot ";
        assert!(error.starts_with(wanted) && error.contains("store.data_dir"), "{error}");
    }

    #[tokio::test]
    async fn people_are_told_where_https_is_and_what_to_install() {
        let data = Temporary::new();
        let mut config = settings(&data);
        config.audio_listen = Door::At(free());
        let plain = open(&config, "m.toml").await.unwrap();
        assert_eq!(plain.doors.plain, [plain.listen[0], plain.audio.unwrap()]);
        let page = format!("Manifold is ready: http://{}/", plain.listen[0]);
        assert_eq!(welcome(&plain.doors), [page]);

        config.https.listen = Door::At(free());
        let front = open(&config, "m.toml").await.unwrap();
        let secure = front.doors.secure_address().unwrap();
        let lines = welcome(&front.doors);
        assert_eq!(lines[1], format!("With a microphone, from other machines: https://{secure}/"));
        let install = format!("Phones need this certificate, once: https://{secure}/ca.crt");
        assert_eq!(lines[2..], [install], "nobody else comes by HTTP");
    }
}
