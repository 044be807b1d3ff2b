//! The media port, as a viewer on this machine reaches it: by an ICE check to each candidate that the
//! server tells (RFC 8445 §7). Without a server, by a datagram to the port while we hold it.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use media::peer::client::ClientFactory;
use media::peer::{CandidateKind, HostCandidate};
use media::stun;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::timeout;
use url::Url;

use super::{Finding, RunningServer};
use crate::config::Media;
use crate::net::{Announced, MediaTcp};
use crate::remote::{Ask, Redirects, RemoteError, Session, own_address, reserve};

const PART: &str = "reach";

/// How long one check may take, and how often it is sent: loss of one datagram says nothing.
const CHECK_TIME: Duration = Duration::from_millis(500);
const CHECKS: usize = 3;

/// Longest answer to a check that is looked at. Ours have 80 bytes.
const ANSWER_LENGTH_MAX: usize = 1_500;

/// Candidates that are tried, at most: the server tells no more than a dozen of each kind.
const CANDIDATES_MAX: usize = 32;

/// What a session's answer says of its ICE side.
struct Side {
    ufrag: String,
    password: String,
    candidates: Vec<HostCandidate>,
}

/// Asks for a session and tries each of its candidates.
pub(super) async fn check_server(server: &mut RunningServer) -> Vec<Finding> {
    match try_server(server).await {
        Ok(findings) => findings,
        Err(error) => vec![Finding::note(
            PART,
            format!("the media port was not tried: {error}"),
            "give a token with --token, and have one place free before one camera",
        )],
    }
}

async fn try_server(server: &mut RunningServer) -> anyhow::Result<Vec<Finding>> {
    let RunningServer { http, base, token } = server;
    let Some(camera) = camera(http, base, token.as_ref()).await? else {
        return Ok(vec![Finding::note(
            PART,
            "the media port was not tried: the server has no camera that is well",
            "add one with url = \"test://\", which the server paints itself, and look again",
        )]);
    };
    let place = reserve(http, base, &camera, "doctor", token.as_ref()).await?;
    let own = own_address(base).await?;
    let factory = ClientFactory::new()
        .ok_or_else(|| anyhow::anyhow!("no certificate could be made for the session"))?;
    let (_client, offer) = factory.offer(SocketAddr::new(own, 9), Instant::now())?;
    let endpoint = base.join(&format!("/whep/{camera}"))?;
    let session =
        Session::open(http, &endpoint, Some(&place.token), &offer, Redirects::SameServer).await?;
    let findings = check_answer(&session.answer, attribute(&offer, "ice-ufrag")).await;
    // Ends the reservation too. Where that fails, it ends by itself in half a minute.
    let _ = session.close(http, Some(&place.token)).await;
    Ok(findings)
}

/// One that costs nobody anything, if there is one: live, or painted by the server itself.
async fn camera(
    http: &mut crate::remote::HttpClient,
    base: &Url,
    token: Option<&secrecy::SecretString>,
) -> Result<Option<String>, RemoteError> {
    let Ok(url) = base.join("/api/v1/cameras") else { return Ok(None) };
    let ask = Ask {
        method: hyper::Method::GET,
        url: &url,
        content_type: None,
        token,
        body: String::new(),
    };
    let answer = http.ask(&ask).await?;
    let json: Value = serde_json::from_str(&answer.body).unwrap_or_default();
    let all = json["cameras"].as_array().cloned().unwrap_or_default();
    let tests: [fn(&Value) -> bool; 3] = [
        |camera| camera["state"] == "live",
        |camera| camera["synthetic"] == true,
        |camera| camera["status"] == "ONLINE",
    ];
    let found = tests.iter().find_map(|test| all.iter().find(|camera| test(camera)));
    Ok(found.and_then(|camera| Some(camera["id"].as_str()?.to_owned())))
}

async fn check_answer(answer: &str, ours: Option<&str>) -> Vec<Finding> {
    let Some(side) = Side::read(answer) else {
        return vec![Finding::trouble(
            PART,
            "the server's answer names no way to its media port",
            "set media.udp to an address of this machine, or media.advertise",
        )];
    };
    let username = format!("{}:{}", side.ufrag, ours.unwrap_or("doctor"));
    let mut findings = Vec::new();
    for candidate in &side.candidates {
        let tried = match candidate.kind {
            CandidateKind::Udp => try_udp(candidate.address, &username, &side.password).await,
            CandidateKind::TcpPassive => {
                try_tcp(candidate.address, &username, &side.password).await
            }
        };
        findings.push(judge(candidate, &tried));
    }
    findings.extend(judge_all(&side.candidates));
    findings
}

fn judge(candidate: &HostCandidate, tried: &io::Result<Duration>) -> Finding {
    let kind = kind_of(candidate);
    let HostCandidate { address, .. } = candidate;
    match tried {
        Ok(after) => Finding::fine(
            PART,
            format!(
                "{kind} candidate {address} answers STUN after {:.1} ms; it is {}",
                after.as_secs_f64() * 1e3,
                scope(address.ip()),
            ),
        ),
        Err(error) => Finding::trouble(
            PART,
            format!("{kind} candidate {address} does not answer STUN from here: {error}"),
            format!(
                "open {kind} port {} in the firewall; behind NAT map it and set media.advertise, and try from another network with --url",
                address.port()
            ),
        ),
    }
}

/// What the candidates say together.
fn judge_all(candidates: &[HostCandidate]) -> Option<Finding> {
    let ips = || candidates.iter().map(|candidate| candidate.address.ip());
    if ips().all(|ip| ip.is_loopback()) {
        return Some(Finding::note(
            PART,
            "all candidates are loopback: viewers on other machines have no way to the media port",
            "set media.udp = \"0.0.0.0:8555\" (or \"[::]:8555\")",
        ));
    }
    ips().all(|ip| is_private(ip) || ip.is_loopback()).then(|| {
        Finding::note(
            PART,
            "all candidates are private addresses: viewers reach them from this network alone",
            "for viewers elsewhere map the port and set media.advertise, or set media.turn",
        )
    })
}

/// Holds the configured port for a moment, and sends itself a datagram under each address that viewers
/// would be told.
pub(super) async fn check_machine(media: &Media) -> Vec<Finding> {
    let tcp = match media.tcp {
        MediaTcp::LikeUdp => Some(media.udp),
        MediaTcp::At(address) => Some(address),
        MediaTcp::Off => None,
    };
    // Who holds it is among the findings of the ports.
    let Ok(socket) = UdpSocket::bind(media.udp).await else { return Vec::new() };
    let Ok(bound) = socket.local_addr() else { return Vec::new() };
    let mut announced = Announced::new(bound, tcp, media.advertise.clone());
    let mut candidates = announced.refresh(Instant::now()).unwrap_or_default();
    candidates.truncate(CANDIDATES_MAX);
    let mut findings = Vec::new();
    for candidate in candidates.iter().filter(|one| one.kind == CandidateKind::Udp) {
        let address = candidate.address;
        findings.push(match arrives(&socket, address).await {
            Ok(()) => Finding::fine(
                PART,
                format!("a datagram to {address} arrives at the media port; it is {}", scope(address.ip())),
            ),
            Err(error) => Finding::note(
                PART,
                format!("a datagram to {address} does not arrive at the media port: {error}"),
                "map the port to this machine; where the router does not lead back from inside, try from outside",
            ),
        });
    }
    findings.extend(judge_all(&candidates));
    findings
}

async fn arrives(socket: &UdpSocket, address: SocketAddr) -> io::Result<()> {
    let mark = uuid::Uuid::new_v4().into_bytes();
    let sender = UdpSocket::bind(any_of(address)).await?;
    for _ in 0..CHECKS {
        sender.send_to(&mark, address).await?;
        let mut packet = [0; 16];
        // Somebody else's, or nothing, is passed over.
        if let Ok(received) = timeout(CHECK_TIME, socket.recv_from(&mut packet)).await {
            let (length, _) = received?;
            if packet[..length] == mark {
                return Ok(());
            }
        }
    }
    Err(io::ErrorKind::TimedOut.into())
}

async fn try_udp(address: SocketAddr, username: &str, password: &str) -> io::Result<Duration> {
    let socket = UdpSocket::bind(any_of(address)).await?;
    socket.connect(address).await?;
    for _ in 0..CHECKS {
        let transaction = transaction();
        let begun = Instant::now();
        socket.send(&stun::binding_request(transaction, username, password)).await?;
        let answered = async {
            let mut packet = [0; ANSWER_LENGTH_MAX];
            loop {
                let length = socket.recv(&mut packet).await?;
                if stun::is_success_of(&packet[..length], transaction) {
                    return io::Result::Ok(begun.elapsed());
                }
            }
        };
        if let Ok(answered) = timeout(CHECK_TIME, answered).await {
            return answered;
        }
    }
    Err(io::ErrorKind::TimedOut.into())
}

/// Framed as RFC 4571 has it.
async fn try_tcp(address: SocketAddr, username: &str, password: &str) -> io::Result<Duration> {
    let exchange = async {
        let begun = Instant::now();
        let mut stream = TcpStream::connect(address).await?;
        let transaction = transaction();
        let request = stun::binding_request(transaction, username, password);
        let length = u16::try_from(request.len()).map_err(io::Error::other)?;
        stream.write_all(&[&length.to_be_bytes()[..], &request].concat()).await?;
        loop {
            let length = usize::from(stream.read_u16().await?);
            let mut packet = vec![0; length];
            stream.read_exact(&mut packet).await?;
            if stun::is_success_of(&packet, transaction) {
                return io::Result::Ok(begun.elapsed());
            }
        }
    };
    let limit = CHECK_TIME * CHECKS as u32;
    timeout(limit, exchange).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

fn transaction() -> stun::TransactionId {
    let [id @ .., _, _, _, _] = uuid::Uuid::new_v4().into_bytes();
    id
}

fn any_of(address: SocketAddr) -> SocketAddr {
    if address.is_ipv4() { ([0, 0, 0, 0], 0).into() } else { ([0_u16; 8], 0).into() }
}

impl Side {
    fn read(answer: &str) -> Option<Self> {
        let candidates: Vec<HostCandidate> =
            answer.lines().filter_map(candidate).take(CANDIDATES_MAX).collect();
        let mut unique: Vec<HostCandidate> = Vec::new();
        for candidate in candidates {
            if !unique.contains(&candidate) {
                unique.push(candidate);
            }
        }
        let ufrag = attribute(answer, "ice-ufrag")?.to_owned();
        let password = attribute(answer, "ice-pwd")?.to_owned();
        (!unique.is_empty()).then_some(Self { ufrag, password, candidates: unique })
    }
}

/// The value of the first `a=name:` line.
fn attribute<'a>(sdp: &'a str, name: &str) -> Option<&'a str> {
    let values = sdp.lines().filter_map(|line| line.strip_prefix("a=")?.strip_prefix(name));
    values.filter_map(|rest| rest.strip_prefix(':')).map(str::trim).next()
}

/// RFC 8839 §5.1: foundation, component, transport, priority, address, port.
fn candidate(line: &str) -> Option<HostCandidate> {
    let words: Vec<&str> = line.strip_prefix("a=candidate:")?.split_whitespace().collect();
    let address = SocketAddr::new(words.get(4)?.parse().ok()?, words.get(5)?.parse().ok()?);
    let transport = words.get(2)?;
    if transport.eq_ignore_ascii_case("udp") {
        Some(HostCandidate::udp(address))
    } else {
        transport.eq_ignore_ascii_case("tcp").then(|| HostCandidate::tcp(address))
    }
}

fn kind_of(candidate: &HostCandidate) -> &'static str {
    match candidate.kind {
        CandidateKind::Udp => "UDP",
        CandidateKind::TcpPassive => "TCP",
    }
}

fn scope(ip: IpAddr) -> &'static str {
    if ip.is_loopback() {
        "loopback, for this machine alone"
    } else if is_private(ip) {
        "private, for this network alone"
    } else {
        "public"
    }
}

/// RFC 1918, RFC 6598, RFC 4193 and link-local addresses.
fn is_private(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => {
            let [first, second, ..] = ip.octets();
            ip.is_private() || ip.is_link_local() || (first == 100 && (64..128).contains(&second))
        }
        IpAddr::V6(ip) => ip.is_unique_local() || ip.is_unicast_link_local(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::Level;
    use super::*;

    const ANSWER: &str = "v=0\r\na=ice-lite\r\nm=video 9 UDP/TLS/RTP/SAVPF 96\r\n\
        a=ice-ufrag:abcd\r\na=ice-pwd:0123456789abcdef012345\r\n\
        a=candidate:1 1 udp 2130706431 192.168.1.7 8555 typ host\r\n\
        a=candidate:2 1 tcp 1671430143 192.168.1.7 8555 typ host tcptype passive\r\n\
        a=candidate:1 1 udp 2130706431 192.168.1.7 8555 typ host\r\n\
        a=candidate:3 1 udp 1 x.local 8555 typ host\r\n";

    #[test]
    fn what_an_answer_tells_of_its_ways_is_read_once() {
        let side = Side::read(ANSWER).unwrap();
        assert_eq!((side.ufrag.as_str(), side.password.len()), ("abcd", 22));
        let address: SocketAddr = "192.168.1.7:8555".parse().unwrap();
        let wanted = [HostCandidate::udp(address), HostCandidate::tcp(address)];
        assert_eq!(side.candidates, wanted);
        let all = judge_all(&side.candidates).unwrap();
        assert!(all.sentence.contains("private") && all.level == Level::Note);
        assert!(Side::read("v=0").is_none());
    }

    #[test]
    fn addresses_are_told_apart_by_who_reaches_them() {
        let of = |ip: &str| scope(ip.parse().unwrap());
        for private in
            ["10.1.2.3", "192.168.0.1", "100.64.0.1", "169.254.1.1", "fd00::1", "fe80::1"]
        {
            assert_eq!(of(private), "private, for this network alone", "{private}");
        }
        assert_eq!((of("203.0.113.7"), of("100.128.0.1")), ("public", "public"));
        assert_eq!(of("::1"), "loopback, for this machine alone");
    }

    #[tokio::test]
    async fn a_port_that_nobody_answers_on_is_trouble_with_a_remedy() {
        let silent = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let candidate = HostCandidate::udp(silent.local_addr().unwrap());
        let tried = try_udp(candidate.address, "a:b", "password").await;
        let found = judge(&candidate, &tried);
        assert_eq!(found.level, Level::Trouble);
        assert!(found.remedy.unwrap().contains("firewall"));
    }

    #[tokio::test]
    async fn a_datagram_to_ourselves_arrives() {
        let mut media = crate::config::from_toml("").media;
        media.udp = "127.0.0.1:0".parse().unwrap();
        let found = check_machine(&media).await;
        assert_eq!(found[0].level, Level::Fine, "{found:?}");
        assert!(found[1].sentence.contains("loopback"));
    }
}
