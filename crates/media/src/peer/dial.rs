//! What the ends share that offer a connection to somebody else's server: who they are, the answer to
//! their offer, datagrams and time for str0m. What they send or receive is their own.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use str0m::change::{SdpAnswer, SdpPendingOffer};
use str0m::config::{CryptoProvider, DtlsCert};
use str0m::net::{Protocol, Receive};
use str0m::{Candidate, Input, Rtc, RtcConfig};

use super::client::ClientError;
use super::offer::printable;

/// The certificate and the crypto of all ends that one factory makes.
pub(super) struct Identity {
    crypto: Arc<CryptoProvider>,
    certificate: DtlsCert,
}

impl Identity {
    /// Makes a certificate. `None` when the crypto library fails.
    pub(super) fn new() -> Option<Self> {
        let crypto = str0m_aws_lc_rs::default_provider();
        let certificate = crypto.dtls_provider.generate_certificate()?;
        Some(Self { crypto: Arc::new(crypto), certificate })
    }

    /// What a connection under this identity is built of.
    pub(super) fn config(&self) -> RtcConfig {
        Rtc::builder()
            .set_crypto_provider(Arc::clone(&self.crypto))
            .set_dtls_cert(self.certificate.clone())
    }
}

/// Tells str0m at which address the end is reached.
pub(super) fn set_address(rtc: &mut Rtc, address: SocketAddr) -> Result<(), ClientError> {
    let candidate = Candidate::host(address, "udp").map_err(|_| ClientError::Address(address))?;
    rtc.add_local_candidate(candidate);
    Ok(())
}

/// The server's answer to the offer that is under way; taken once.
pub(super) fn handle_answer(
    rtc: &mut Rtc,
    pending: &mut Option<SdpPendingOffer>,
    sdp: &str,
) -> Result<(), ClientError> {
    let refused = |error: &dyn std::fmt::Display| ClientError::Answer(printable(error));
    let answer = SdpAnswer::from_sdp_string(sdp).map_err(|error| refused(&error))?;
    let pending = pending.take().ok_or_else(|| refused(&"there was one already"))?;
    let accepted = rtc.sdp_api().accept_answer(pending, answer);
    accepted.map_err(|error| refused(&error))
}

/// A datagram that arrived at the end's `address`. What is not understood is ignored.
pub(super) fn handle_datagram(
    rtc: &mut Rtc,
    (source, address): (SocketAddr, SocketAddr),
    packet: &[u8],
    now: Instant,
) {
    let Ok(receive) = Receive::new(Protocol::Udp, source, address, packet) else { return };
    if let Err(error) = rtc.handle_input(Input::Receive(now, receive)) {
        tracing::debug!(%error, %source, "datagram refused");
    }
}

/// Time passed.
pub(super) fn handle_timeout(rtc: &mut Rtc, now: Instant) {
    if rtc.handle_input(Input::Timeout(now)).is_err() {
        rtc.disconnect();
    }
}

/// Starts the goodbye (DTLS close_notify).
pub(super) fn close(rtc: &mut Rtc) {
    if rtc.close().is_err() {
        rtc.disconnect();
    }
}
