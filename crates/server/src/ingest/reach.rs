//! Where a camera's address may lead: cameras that are added while the server runs are addresses that
//! somebody else chose, and the server stands where he does not.
//!
//! An address of the settings file leads anywhere. One of the API leads to the network, and to this
//! machine only where that is allowed; never to what clouds tell their machines about themselves. A name
//! is resolved here and the address that was judged is the one that is connected to, so that it cannot
//! mean another one a moment later.

use std::borrow::Cow;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use engine::SourceFailure;
use url::{Host, Url};

use super::SourceUrl;
use super::source_url::{RTSP_PORT, authority};
use crate::remote::Redirects;

/// How long a name may take to be resolved. Resolvers try three times with 5 s each.
const RESOLVE_TIME_MAX: Duration = Duration::from_secs(10);

/// Where clouds tell machines of themselves, beside the link-local addresses: Amazon by IPv6, Alibaba.
const METADATA: [IpAddr; 2] = [
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254)),
    IpAddr::V4(Ipv4Addr::new(100, 100, 100, 200)),
];

/// Where an address may lead.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reach {
    /// It is of the settings file: who writes that may do everything.
    Anywhere,
    /// Anything but this machine and what is link-local.
    Network,
    /// Anything but what is link-local.
    NetworkAndLoopback,
}

impl Reach {
    /// What is wrong with an address, as far as it can be told without resolving names.
    pub(crate) fn check(self, source: &SourceUrl) -> Result<(), String> {
        let (SourceUrl::Rtsp { url, .. } | SourceUrl::Whep { url, .. }) = source else {
            return Ok(());
        };
        let address = match url.host() {
            // `rtsp` is no scheme that the library reads addresses in.
            Some(Host::Domain(name)) => name.parse().ok(),
            Some(Host::Ipv4(address)) => Some(IpAddr::V4(address)),
            Some(Host::Ipv6(address)) => Some(IpAddr::V6(address)),
            None => None,
        };
        match address.and_then(|address| self.refusal(address)) {
            Some(sentence) => Err(sentence),
            None => Ok(()),
        }
    }

    /// The address to connect to. Where it must not be anything, a name has been replaced by what it means.
    pub(super) async fn pinned(self, url: &Url) -> Result<Cow<'_, Url>, SourceFailure> {
        if self == Self::Anywhere {
            return Ok(Cow::Borrowed(url));
        }
        let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']);
        let port = url.port_or_known_default().unwrap_or(RTSP_PORT);
        let resolving = tokio::net::lookup_host((host, port));
        let found = tokio::time::timeout(RESOLVE_TIME_MAX, resolving).await;
        let unknown =
            |detail: String| SourceFailure::Unreachable { address: authority(url), detail };
        let found = found
            .map_err(|_elapsed| unknown("its name was not resolved in time".to_owned()))?
            .map_err(|error| unknown(format!("its name cannot be resolved: {error}")))?;
        let address = self.choose(found).map_err(|detail| match detail {
            Some(detail) => SourceFailure::Unusable { detail },
            None => unknown("its name means no address".to_owned()),
        })?;
        let mut pinned = url.clone();
        // Fails only for URLs without a host, and this one has one.
        let _ = pinned.set_ip_host(address);
        Ok(Cow::Owned(pinned))
    }

    /// The first that may be, IPv4 before IPv6: few cameras have the latter. `Err`: why none may be.
    fn choose(self, found: impl Iterator<Item = SocketAddr>) -> Result<IpAddr, Option<String>> {
        let mut found: Vec<IpAddr> = found.map(|address| address.ip()).collect();
        found.sort_by_key(IpAddr::is_ipv6);
        let mut refused = None;
        for address in found {
            match self.refusal(address) {
                None => return Ok(address),
                refusal => refused = refusal,
            }
        }
        Err(refused)
    }

    fn refusal(self, address: IpAddr) -> Option<String> {
        let address = address.to_canonical();
        let is_loopback = address.is_loopback();
        let reason = match self {
            Self::Anywhere => return None,
            Self::Network if is_loopback => {
                "is this machine itself; set park.allow_loopback = true, or put the camera into the \
                 settings file"
            }
            Self::Network | Self::NetworkAndLoopback if is_link_local(address) => {
                "is link-local, where clouds keep what is nobody's business"
            }
            Self::Network | Self::NetworkAndLoopback if is_no_host(address) => {
                "is no address of a camera"
            }
            Self::Network | Self::NetworkAndLoopback => return None,
        };
        Some(format!("{address} {reason}"))
    }
}

/// Whoever may not lead us anywhere may not send us on either.
impl From<Reach> for Redirects {
    fn from(reach: Reach) -> Self {
        match reach {
            Reach::Anywhere => Self::Anywhere,
            Reach::Network | Reach::NetworkAndLoopback => Self::SameServer,
        }
    }
}

fn is_link_local(address: IpAddr) -> bool {
    let is_local = match address {
        IpAddr::V4(address) => address.is_link_local(),
        IpAddr::V6(address) => address.is_unicast_link_local(),
    };
    is_local || METADATA.contains(&address)
}

/// "This network" (RFC 791 §3.2), which Linux takes for this machine; everybody; several.
fn is_no_host(address: IpAddr) -> bool {
    let is_this_network = match address {
        IpAddr::V4(address) => address.octets()[0] == 0 || address.is_broadcast(),
        IpAddr::V6(address) => address.is_unspecified(),
    };
    is_this_network || address.is_multicast()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(reach: Reach, host: &str) -> bool {
        let source = SourceUrl::parse(&format!("rtsp://{host}/live")).unwrap();
        reach.check(&source).is_err()
    }

    #[test]
    fn an_address_of_the_api_leads_to_the_network_alone() {
        for host in [
            "169.254.169.254",
            "169.254.1.1:80",
            "[fe80::1]",
            "[::ffff:169.254.169.254]",
            "[fd00:ec2::254]",
            "100.100.100.200",
            "0.0.0.0",
            "0.1.2.3",
            "[::]",
            "224.0.0.1",
            "255.255.255.255",
        ] {
            assert!(refused(Reach::Network, host), "{host}");
            assert!(refused(Reach::NetworkAndLoopback, host), "{host}");
            assert!(!refused(Reach::Anywhere, host), "{host}");
        }
        for host in ["127.0.0.1", "127.9.9.9:8554", "[::1]", "[::ffff:127.0.0.1]"] {
            assert!(refused(Reach::Network, host), "{host}");
            assert!(!refused(Reach::NetworkAndLoopback, host), "{host}");
        }
        for host in ["192.168.1.8", "10.0.0.1", "203.0.113.9", "[2001:db8::1]", "camera.local"] {
            assert!(!refused(Reach::Network, host), "{host}");
        }
    }

    #[tokio::test]
    async fn a_name_is_judged_by_what_it_means_and_is_that_from_then_on() {
        let url = Url::parse("rtsp://localhost:8554/live?x=1").unwrap();
        let refused = Reach::Network.pinned(&url).await.unwrap_err();
        assert!(matches!(refused, SourceFailure::Unusable { .. }), "{refused}");
        assert!(refused.to_string().contains("park.allow_loopback"), "{refused}");

        let pinned = Reach::NetworkAndLoopback.pinned(&url).await.unwrap();
        let host: IpAddr = pinned.host_str().unwrap().trim_matches(['[', ']']).parse().unwrap();
        assert!(host.is_loopback());
        assert_eq!(
            (pinned.port(), pinned.path(), pinned.query()),
            (Some(8554), "/live", Some("x=1"))
        );
        assert_eq!(Reach::Anywhere.pinned(&url).await.unwrap().as_str(), url.as_str());
    }

    #[test]
    fn of_several_addresses_the_first_that_may_be_is_taken() {
        let choose = |reach: Reach, found: &[&str]| {
            reach.choose(found.iter().map(|text| SocketAddr::new(text.parse().unwrap(), 554)))
        };
        let both = ["169.254.169.254", "2001:db8::1", "192.0.2.1"];
        assert_eq!(choose(Reach::Network, &both), Ok("192.0.2.1".parse().unwrap()));
        assert!(choose(Reach::Network, &both[..1]).is_err_and(|reason| reason.is_some()));
        assert_eq!(choose(Reach::Network, &[]), Err(None));
    }
}
