//! A WHEP or WHIP session at another server (RFC 9725): opened by an offer, ended by DELETE.
//!
//! Redirections are followed. Candidates are not trickled: offers carry theirs.

use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::{Duration, SystemTime};

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use hyper::Method;
use hyper::header::{LINK, LOCATION};
use secrecy::{ExposeSecret, SecretString};
use serde_json::{Value, json};
use url::Url;

use super::http::{Answer, Ask, HttpClient, RemoteError, addresses};

/// Redirections that are followed one after the other (RFC 9725 §4.5 has load balancers in mind).
const REDIRECTIONS_MAX: usize = 4;

/// Where a server may send us on to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Redirects {
    /// To any `http://` address.
    Anywhere,
    /// To other paths of its own.
    SameServer,
}

/// An open session.
#[derive(Debug)]
pub(crate) struct Session {
    /// The server's SDP.
    pub(crate) answer: String,
    /// STUN and TURN servers that it names.
    pub(crate) ice_servers: usize,
    /// Where the session can be ended; servers need not name it.
    resource: Option<Url>,
    /// Whom the token is for: `host:port` of the endpoint.
    authority: String,
}

/// A place that was reserved with our own API.
#[derive(Debug)]
pub(crate) struct Reservation {
    /// Opens the camera's WHEP endpoint.
    pub(crate) token: SecretString,
    /// Where its heartbeats go.
    heartbeat: Url,
}

/// A heartbeat that failed is repeated after this time, and none is sent more often: a token that is good
/// for less is of no use to a viewer.
const RENEWAL_INTERVAL_MIN: Duration = Duration::from_secs(5);

impl Reservation {
    /// Sends a heartbeat whenever half of its token's time is over, for ever: without them the viewer is sent
    /// away when the token expires. They are few, since they are no part of what is measured.
    pub(crate) async fn renew(&self, http: &mut HttpClient) -> Infallible {
        let mut token = self.token.clone();
        loop {
            let left = time_left(token.expose_secret(), SystemTime::now());
            let Some(left) = left else { return std::future::pending().await };
            tokio::time::sleep((left / 2).max(RENEWAL_INTERVAL_MIN)).await;
            let ask = Ask {
                method: Method::POST,
                url: &self.heartbeat,
                content_type: None,
                token: Some(&token),
                body: String::new(),
            };
            match http.ask(&ask).await {
                Ok(answer) => {
                    let json: Value = serde_json::from_str(&answer.body).unwrap_or_default();
                    if let Some(fresh) = json["token"].as_str() {
                        token = fresh.into();
                    }
                }
                Err(error) => tracing::debug!(%error, "a heartbeat was not answered"),
            }
            http.hang_up();
        }
    }
}

/// How long a token is good, as its claims say; `None` where they do not.
fn time_left(token: &str, now: SystemTime) -> Option<Duration> {
    let claims = BASE64_URL_SAFE_NO_PAD.decode(token.split('.').nth(1)?).ok()?;
    let claims: Value = serde_json::from_slice(&claims).ok()?;
    let now = now.duration_since(SystemTime::UNIX_EPOCH).ok()?.as_secs();
    Some(Duration::from_secs(claims["exp"].as_u64()?.saturating_sub(now)))
}

impl Session {
    /// Brings the offer. Where it is sent on to another server, the token is not told there.
    pub(crate) async fn open(
        http: &mut HttpClient,
        endpoint: &Url,
        token: Option<&SecretString>,
        offer: &str,
        redirects: Redirects,
    ) -> Result<Self, RemoteError> {
        let mut url = endpoint.clone();
        let authority = endpoint.authority();
        for _ in 0..REDIRECTIONS_MAX {
            let content_type = Some("application/sdp");
            let ask = Ask {
                method: Method::POST,
                url: &url,
                content_type,
                token: token.filter(|_| url.authority() == authority),
                body: offer.to_owned(),
            };
            let answer = http.ask_for_any(&ask).await?;
            let location = answer.header(LOCATION).and_then(|to| url.join(to).ok());
            let may_go = |to: &Url| match redirects {
                Redirects::Anywhere => true,
                Redirects::SameServer => to.authority() == authority,
            };
            match location.filter(may_go) {
                Some(to) if answer.status.is_redirection() => url = to,
                resource => return Self::of_answer(authority, &url, answer, resource),
            }
        }
        Err(RemoteError::Cut {
            method: Method::POST,
            path: endpoint.path().to_owned(),
            reason: format!("it was redirected more than {REDIRECTIONS_MAX} times"),
        })
    }

    fn of_answer(
        authority: &str,
        url: &Url,
        answer: Answer,
        resource: Option<Url>,
    ) -> Result<Self, RemoteError> {
        if !answer.status.is_success() {
            return Err(answer.into_refusal(Method::POST, url));
        }
        let links = answer.headers.get_all(LINK).iter().filter_map(|link| link.to_str().ok());
        let ice_servers = links.map(|link| link.matches("rel=\"ice-server\"").count()).sum();
        // Nothing is sent to who had no part in it.
        let resource = resource.filter(|resource| resource.authority() == url.authority());
        let authority = authority.to_owned();
        Ok(Self { answer: answer.body, ice_servers, resource, authority })
    }

    /// Ends the session. Nothing to do where the server named no address for that.
    pub(crate) async fn close(
        &self,
        http: &mut HttpClient,
        token: Option<&SecretString>,
    ) -> Result<(), RemoteError> {
        let Some(url) = &self.resource else { return Ok(()) };
        let token = token.filter(|_| url.authority() == self.authority);
        let ask =
            Ask { method: Method::DELETE, url, content_type: None, token, body: String::new() };
        http.ask(&ask).await.map(drop)
    }
}

/// Reserves `user` a place before a camera with our own API at `base`.
pub(crate) async fn reserve(
    http: &mut HttpClient,
    base: &Url,
    camera: &str,
    user: &str,
    token: Option<&SecretString>,
) -> Result<Reservation, RemoteError> {
    let path = "/api/v1/stream/reserve";
    let url = base.join(path).map_err(|_| RemoteError::Scheme(base.clone()))?;
    let body = json!({ "camera_id": camera, "user_id": user }).to_string();
    let content_type = Some("application/json");
    let ask = Ask { method: Method::POST, url: &url, content_type, token, body };
    let answer = http.ask(&ask).await?;
    let json: Value = serde_json::from_str(&answer.body).unwrap_or_default();
    let token = json["token"].as_str().ok_or_else(|| RemoteError::Cut {
        method: Method::POST,
        path: path.to_owned(),
        reason: "the answer has no token: is this Manifold's API?".to_owned(),
    })?;
    let id = json["reservation_id"].as_str().unwrap_or_default();
    let path = format!("/api/v1/stream/heartbeat/{id}");
    let heartbeat = base.join(&path).map_err(|_| RemoteError::Scheme(base.clone()))?;
    Ok(Reservation { token: token.into(), heartbeat })
}

/// This machine's address on the way to a server.
pub(crate) async fn own_address(url: &Url) -> Result<IpAddr, RemoteError> {
    let unreachable =
        |reason| RemoteError::Unreachable { authority: url.authority().to_owned(), reason };
    let found = addresses(url).await?;
    let server = found
        .first()
        .ok_or_else(|| unreachable(std::io::Error::other("its name has no address")))?;
    route_to(*server).map_err(unreachable)
}

/// Connecting a UDP socket sends nothing; it makes the kernel choose a way.
fn route_to(server: SocketAddr) -> std::io::Result<IpAddr> {
    let any: SocketAddr =
        if server.is_ipv4() { ([0, 0, 0, 0], 0).into() } else { ([0_u16; 8], 0).into() };
    let socket = UdpSocket::bind(any)?;
    socket.connect(server)?;
    Ok(socket.local_addr()?.ip())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_says_how_long_it_is_good() {
        let token = |claims: &str| format!("h.{}.s", BASE64_URL_SAFE_NO_PAD.encode(claims));
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(100);
        let left = |token: &str| time_left(token, now).map(|left| left.as_secs());
        assert_eq!(left(&token(r#"{"exp":160}"#)), Some(60));
        assert_eq!(left(&token(r#"{"exp":60}"#)), Some(0));
        for other in [token("{}"), token("x"), "a.b.c".to_owned(), "opaque".to_owned()] {
            assert_eq!(left(&other), None, "{other}");
        }
    }
}
