//! Are the ports free; and if not, who holds them. As Linux tells it in `/proc` (proc(5)).

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::net::{SocketAddr, TcpListener, UdpSocket};

use url::Url;

use super::Finding;
use crate::config::{Config, Door};
use crate::net::MediaTcp;

const PART: &str = "ports";

/// What we are called, unless somebody renamed us.
const OWN_NAME: &str = "manifold";

/// How `/proc/net/tcp` writes that somebody listens.
const LISTENING: &str = "0A";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Protocol {
    Tcp,
    Udp,
}

impl Protocol {
    fn as_str(self) -> &'static str {
        match self {
            Self::Tcp => "TCP",
            Self::Udp => "UDP",
        }
    }
}

/// A port that the settings name.
struct Port {
    key: &'static str,
    protocol: Protocol,
    address: SocketAddr,
    /// The server goes on without it.
    is_optional: bool,
}

/// A process with an open socket.
#[derive(Debug, PartialEq, Eq)]
struct Holder {
    process: u32,
    name: String,
}

/// Which server answers the other questions.
pub(super) enum Answering {
    Nobody,
    /// Its process, where it is one of this machine that this user may see.
    Server(Option<u32>),
}

impl Answering {
    /// The server at `base` does: it is whoever holds that port, if the address is of this machine.
    pub(super) fn at(base: &Url) -> Self {
        let addresses = base.socket_addrs(|| None).unwrap_or_default();
        let is_here = |address: &SocketAddr| UdpSocket::bind((address.ip(), 0)).is_ok();
        let here = addresses.into_iter().find(is_here);
        let holder = here.and_then(|address| holder(Protocol::Tcp, address.port()));
        Self::Server(holder.map(|holder| holder.process))
    }
}

/// Tries each port of the settings. `file` is where they are changed.
pub(super) fn check(config: &Config, file: &str, answering: &Answering) -> Vec<Finding> {
    named(config).iter().map(|port| judge(port, file, answering)).collect()
}

fn named(config: &Config) -> Vec<Port> {
    let port = |key, protocol, address| Port { key, protocol, address, is_optional: false };
    let mut ports: Vec<Port> =
        config.listen.iter().map(|address| port("listen", Protocol::Tcp, *address)).collect();
    let doors = [("audio_listen", config.audio_listen), ("http.https", config.https.listen)];
    for (key, door) in doors {
        match door {
            Door::Closed => {}
            Door::At(address) => ports.push(port(key, Protocol::Tcp, address)),
            Door::IfFree(address) => {
                ports.push(Port { is_optional: true, ..port(key, Protocol::Tcp, address) });
            }
        }
    }
    ports.extend(config.rtsp.listen.map(|address| port("rtsp.listen", Protocol::Tcp, address)));
    ports.push(port("media.udp", Protocol::Udp, config.media.udp));
    match config.media.tcp {
        MediaTcp::LikeUdp => ports.push(port("media.tcp", Protocol::Tcp, config.media.udp)),
        MediaTcp::At(address) => ports.push(port("media.tcp", Protocol::Tcp, address)),
        MediaTcp::Off => {}
    }
    ports.retain(|port| port.address.port() != 0);
    ports
}

fn judge(port: &Port, file: &str, answering: &Answering) -> Finding {
    let Port { key, protocol, address, .. } = port;
    let name = format!("{} port {address} ({key})", protocol.as_str());
    let Err(error) = bind(*protocol, *address) else {
        return match answering {
            Answering::Server(_) => Finding::note(
                PART,
                format!("{name} is not held by the server that answers"),
                format!("compare {file} with what the server was started with, and start it again"),
            ),
            Answering::Nobody => Finding::fine(PART, format!("{name} is free")),
        };
    };
    // A foreign enum that may grow: compared, not matched.
    if error.kind() != io::ErrorKind::AddrInUse {
        return Finding::trouble(
            PART,
            format!("{name} cannot be bound: {error}"),
            format!("change `{key}` in {file}"),
        );
    }
    let own = match answering {
        Answering::Nobody => None,
        Answering::Server(process) => *process,
    };
    taken(port, &name, file, (holder(*protocol, address.port()), own))
}

fn taken(
    port: &Port,
    name: &str,
    file: &str,
    (holder, own): (Option<Holder>, Option<u32>),
) -> Finding {
    let remedy = format!("stop that program, or change `{}` in {file}", port.key);
    match holder {
        Some(Holder { process, name: holder }) if holder == OWN_NAME || own == Some(process) => {
            Finding::fine(PART, format!("{name} is held by {holder} (process {process})"))
        }
        Some(Holder { process, name: holder }) => {
            let sentence = format!("{name} is taken by {holder} (process {process})");
            if port.is_optional {
                Finding::note(PART, sentence, remedy)
            } else {
                Finding::trouble(PART, sentence, remedy)
            }
        }
        None => Finding::note(
            PART,
            format!("{name} is taken by a process of another user or another container"),
            format!("run this command as root to see which; {remedy}"),
        ),
    }
}

fn bind(protocol: Protocol, address: SocketAddr) -> io::Result<()> {
    match protocol {
        Protocol::Tcp => TcpListener::bind(address).map(drop),
        Protocol::Udp => UdpSocket::bind(address).map(drop),
    }
}

/// Who has a socket on this port, as far as this user may see it.
fn holder(protocol: Protocol, port: u16) -> Option<Holder> {
    let tables = match protocol {
        Protocol::Tcp => ["/proc/net/tcp", "/proc/net/tcp6"],
        Protocol::Udp => ["/proc/net/udp", "/proc/net/udp6"],
    };
    let texts = tables.iter().filter_map(|table| fs::read_to_string(table).ok());
    let inodes: BTreeSet<String> =
        texts.flat_map(|text| inodes_of(&text, protocol, port)).collect();
    let links: BTreeSet<String> = inodes.iter().map(|inode| format!("socket:[{inode}]")).collect();
    if links.is_empty() {
        return None;
    }
    let processes = fs::read_dir("/proc").ok()?.flatten();
    let ids = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let process = ids.into_iter().find(|id| has_open(*id, &links))?;
    let name = fs::read_to_string(format!("/proc/{process}/comm")).unwrap_or_default();
    Some(Holder { process, name: name.trim().to_owned() })
}

/// The sockets of a table of `/proc/net` that are bound to `port`.
fn inodes_of(table: &str, protocol: Protocol, port: u16) -> Vec<String> {
    let row = |line: &str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let (local, state, inode) = (*fields.get(1)?, *fields.get(3)?, *fields.get(9)?);
        let (_, number) = local.rsplit_once(':')?;
        let is_here = u16::from_str_radix(number, 16).ok()? == port;
        let listens = protocol == Protocol::Udp || state == LISTENING;
        (is_here && listens).then(|| inode.to_owned())
    };
    table.lines().skip(1).filter_map(row).collect()
}

fn has_open(process: u32, links: &BTreeSet<String>) -> bool {
    let Ok(files) = fs::read_dir(format!("/proc/{process}/fd")) else { return false };
    files.flatten().any(|file| {
        let target = fs::read_link(file.path()).unwrap_or_default();
        target.to_str().is_some_and(|target| links.contains(target))
    })
}

#[cfg(test)]
mod tests {
    use super::super::Level;
    use super::*;
    use crate::config;

    #[test]
    fn a_row_is_found_by_its_port_and_only_where_somebody_listens() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n\
            0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000  0 0 4711 1 0 100\n\
            1: 0100007F:1F90 0100007F:9C40 01 00000000:00000000 00:00000000 00000000  0 0 4712 1 0 100\n\
            2: 00000000:216B 00000000:0000 0A 00000000:00000000 00:00000000 00000000  0 0 4713 1 0 100\n\
            cut";
        assert_eq!(inodes_of(table, Protocol::Tcp, 8080), ["4711"]);
        assert_eq!(inodes_of(table, Protocol::Udp, 8080), ["4711", "4712"]);
        assert!(inodes_of(table, Protocol::Tcp, 80).is_empty());
    }

    #[test]
    fn who_holds_a_port_is_told_with_the_setting_that_names_it() {
        let other = TcpListener::bind("127.0.0.1:0").unwrap();
        let taken = other.local_addr().unwrap();
        let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
        let mut config = config::from_toml("media.tcp = \"off\"");
        config.listen = vec![taken];
        (config.audio_listen, config.https.listen) = (Door::Closed, Door::Closed);
        (config.rtsp.listen, config.media.udp) = (None, udp.local_addr().unwrap());

        let found = check(&config, "m.toml", &Answering::Nobody);

        let own = fs::read_to_string("/proc/self/comm").unwrap();
        let by = format!("{} (process {})", own.trim(), std::process::id());
        assert_eq!(found[0].sentence, format!("TCP port {taken} (listen) is taken by {by}"));
        let remedy = "stop that program, or change `listen` in m.toml";
        assert_eq!((found[0].level, found[0].remedy.as_deref()), (Level::Trouble, Some(remedy)));
        assert!(found[1].sentence.starts_with("UDP port") && found[1].sentence.ends_with(&by));

        // Whatever the program is called: whoever answers where the server is asked is the server.
        let base = Url::parse(&format!("http://{taken}")).unwrap();
        let known = check(&config, "m.toml", &Answering::at(&base));
        assert!(known.iter().all(|one| one.level == Level::Fine), "{known:?}");
        let elsewhere = Answering::at(&Url::parse("http://192.0.2.1:8080").unwrap());
        assert_eq!(check(&config, "m.toml", &elsewhere)[0].level, Level::Trouble);
        drop((other, udp));
        assert!(
            check(&config, "m.toml", &Answering::Nobody).iter().all(|one| one.level == Level::Fine)
        );
    }
}
