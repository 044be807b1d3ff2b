//! A viewer that sets its connection up with str0m and takes the media for itself: cheap enough for
//! a thousand of them in a process.
//!
//! str0m offers, checks and does DTLS; the keys are tapped as in [`Peer`](super::Peer), so that it
//! never sees media. What arrives is [`Reception`](crate::reception::Reception)'s business.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use str0m::change::{SdpOffer, SdpPendingOffer};
use str0m::config::{CryptoProvider, DtlsCert, DtlsVersion};
use str0m::media::{Direction, MediaKind as StrMediaKind};
use str0m::{Event, Output, Rtc};

use super::client::ClientError;
use super::dial;
use super::offer::printable;
use super::tap::{KeySlot, KeyTap, KeyTapProvider};
use super::{SessionKeys, is_stun_or_dtls, take_from};
use crate::srtp::Role;

/// What an offer must not promise: feedback on every packet costs more than receiving it.
const UNSERVED: [&str; 2] = ["transport-cc", "draft-holmer-rmcat-transport-wide-cc-extensions-01"];

/// What all tapped clients of a process share: the certificate and the crypto.
pub struct TappedClientFactory {
    crypto: Arc<CryptoProvider>,
    certificate: DtlsCert,
}

/// What a tapped client wants done or tells.
#[derive(Debug)]
pub enum TappedOutput {
    /// Send this datagram from the client's address.
    Transmit {
        /// The server's address.
        destination: SocketAddr,
        /// STUN or DTLS.
        contents: Vec<u8>,
    },
    /// DTLS is done; media arrives under these keys. Comes once.
    Connected {
        /// The keys of both directions.
        keys: SessionKeys,
        /// What this client was in the handshake.
        role: Role,
    },
    /// The server said goodbye, or the connection failed: of no more use.
    Closed,
    /// Nothing more until input comes or this moment.
    Timeout(Instant),
}

/// One viewer's connection.
pub struct TappedClient {
    rtc: Rtc,
    address: SocketAddr,
    key_slot: KeySlot,
    pending: Option<SdpPendingOffer>,
    role: Role,
    connected: bool,
}

impl TappedClientFactory {
    /// Makes the one certificate that all clients use. `None` when the crypto library fails.
    pub fn new() -> Option<Self> {
        let mut crypto = str0m_aws_lc_rs::default_provider();
        let certificate = crypto.dtls_provider.generate_certificate()?;
        // str0m wants a provider for the life of the process; there is one a factory.
        crypto.dtls_provider = Box::leak(Box::new(KeyTapProvider(crypto.dtls_provider)));
        Some(Self { crypto: Arc::new(crypto), certificate })
    }

    /// A client that is reached at `address`, and its offer to receive picture and sound.
    pub fn offer(
        &self,
        address: SocketAddr,
        now: Instant,
    ) -> Result<(TappedClient, String), ClientError> {
        let mut client = self.client(address, now)?;
        let mut change = client.rtc.sdp_api();
        let receive = Direction::RecvOnly;
        change.add_media(StrMediaKind::Video, receive, None, None, None);
        change.add_media(StrMediaKind::Audio, receive, None, None, None);
        let (offer, pending) = change.apply().expect("two sections were added");
        client.pending = Some(pending);
        Ok((client, without_unserved(&offer.to_sdp_string())))
    }

    /// A client that is reached at `address`, and its answer to a server that offers to send. It begins
    /// DTLS, as browsers do (RFC 8842 §5.3).
    pub fn answer(
        &self,
        offer: &str,
        address: SocketAddr,
        now: Instant,
    ) -> Result<(TappedClient, String), ClientError> {
        let refused = |error: &dyn std::fmt::Display| ClientError::Offer(printable(error));
        // Where it has the choice str0m waits for the other side.
        let offer = offer.replace("a=setup:actpass", "a=setup:passive");
        let offer = SdpOffer::from_sdp_string(&offer).map_err(|error| refused(&error))?;
        let mut client = self.client(address, now)?;
        let answer = client.rtc.sdp_api().accept_offer(offer).map_err(|error| refused(&error))?;
        Ok((client, answer.to_sdp_string()))
    }

    fn client(&self, address: SocketAddr, now: Instant) -> Result<TappedClient, ClientError> {
        let mut rtc = Rtc::builder()
            .set_crypto_provider(Arc::clone(&self.crypto))
            .set_dtls_cert(self.certificate.clone())
            .set_dtls_version(DtlsVersion::Dtls12)
            .set_rtp_mode(true)
            .build(now);
        let key_slot = KeyTap::take_newest();
        dial::set_address(&mut rtc, address)?;
        let (pending, role) = (None, Role::Client);
        Ok(TappedClient { rtc, address, key_slot, pending, role, connected: false })
    }
}

impl TappedClient {
    /// The server's answer; taken once.
    pub fn handle_answer(&mut self, sdp: &str) -> Result<(), ClientError> {
        dial::handle_answer(&mut self.rtc, &mut self.pending, sdp)?;
        // RFC 8842 §5.3: who answers `active` sends the ClientHello.
        if sdp.lines().any(|line| line.trim_end() == "a=setup:active") {
            self.role = Role::Server;
        }
        Ok(())
    }

    /// STUN or DTLS that arrived at the client's address. What is not understood is ignored.
    pub fn handle_datagram(&mut self, source: SocketAddr, packet: &[u8], now: Instant) {
        dial::handle_datagram(&mut self.rtc, (source, self.address), packet, now);
    }

    /// Time passed.
    pub fn handle_timeout(&mut self, now: Instant) {
        dial::handle_timeout(&mut self.rtc, now);
    }

    /// Starts the goodbye (DTLS close_notify); poll until [`TappedOutput::Closed`] or a timeout.
    pub fn close(&mut self) {
        dial::close(&mut self.rtc);
    }

    /// The next thing to do; call until it is `Timeout` or `Closed`.
    pub fn poll_output(&mut self) -> TappedOutput {
        loop {
            if !self.rtc.is_alive() {
                return TappedOutput::Closed;
            }
            match self.rtc.poll_output() {
                Ok(Output::Timeout(at)) => match self.take_keys() {
                    Some(keys) => return TappedOutput::Connected { keys, role: self.role },
                    None => return TappedOutput::Timeout(at),
                },
                Ok(Output::Transmit(transmit)) if is_stun_or_dtls(&transmit.contents) => {
                    let (destination, contents) =
                        (transmit.destination, transmit.contents.to_vec());
                    return TappedOutput::Transmit { destination, contents };
                }
                Ok(Output::Event(Event::Connected)) => self.connected = true,
                Ok(Output::Event(Event::Closed)) => return TappedOutput::Closed,
                Ok(Output::Transmit(_) | Output::Event(_)) => {}
                Err(error) => {
                    tracing::debug!(%error, "viewer's connection failed");
                    self.rtc.disconnect();
                    return TappedOutput::Closed;
                }
            }
        }
    }

    fn take_keys(&mut self) -> Option<SessionKeys> {
        if !self.connected {
            return None;
        }
        take_from(&self.key_slot)
    }
}

fn without_unserved(offer: &str) -> String {
    offer
        .lines()
        .filter(|line| !UNSERVED.iter().any(|word| line.ends_with(word)))
        .flat_map(|line| [line, "\r\n"])
        .collect()
}
