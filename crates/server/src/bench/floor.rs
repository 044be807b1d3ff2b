//! The bare floor under every sender of protected media: seal with AES-128-GCM and hand runs of
//! equal segments to the kernel, and nothing else. No headers, no copies, no state of viewers.

use std::net::SocketAddr;

use anyhow::{Context, ensure};
use media::batch::{Route, Run};
use media::srtp::GcmBackend;

use super::load::{Load, Sender};
use super::sinks::Sinks;
use crate::net::UdpPort;

/// An RTP header, which is authenticated and not encrypted.
const HEADER_BYTES: usize = 12;
const TAG_BYTES: usize = 16;
/// Bytes sealed before they are handed to the kernel: what the fan-out takes too.
const CALL_BYTES: usize = 128 * 1024;

/// Seals and sends one frame after the other to all sinks.
pub(super) struct Floor {
    port: UdpPort,
    keys: Vec<Key>,
    /// The packets of one call, end to end; sealed in place again and again.
    bytes: Vec<u8>,
    /// The viewers in groups that one call serves.
    calls: Vec<Vec<Run>>,
    segment: usize,
    nonce: u64,
}

impl Floor {
    /// Each viewer has a key of its own.
    pub(super) fn new(sinks: &Sinks, backend: GcmBackend, load: &Load) -> anyhow::Result<Self> {
        let port = UdpPort::bind(SocketAddr::from(([127, 0, 0, 1], 0)))?;
        let segment = HEADER_BYTES + load.payload + TAG_BYTES;
        let run_bytes = load.packets * segment;
        let source = port.local_address();
        let run = |(index, destination): (usize, &SocketAddr)| Run {
            route: Route::new(source, *destination),
            start: index * run_bytes,
            len: run_bytes,
            segment,
            count: load.packets,
        };
        let calls: Vec<Vec<Run>> = sinks
            .addresses()
            .chunks((CALL_BYTES / run_bytes).max(1))
            .map(|group| group.iter().enumerate().map(run).collect())
            .collect();
        let longest = calls.iter().map(Vec::len).max().unwrap_or(0);
        let keys = (0..sinks.addresses().len())
            .map(|viewer| Key::new(backend, viewer as u8).context("AES-GCM took no key"))
            .collect::<anyhow::Result<_>>()?;
        Ok(Self { port, keys, bytes: vec![0; longest * run_bytes], calls, segment, nonce: 0 })
    }
}

impl Sender for Floor {
    fn send_frame(&mut self) -> anyhow::Result<()> {
        let mut keys = self.keys.iter();
        for runs in &self.calls {
            for (run, key) in runs.iter().zip(&mut keys) {
                for packet in self.bytes[run.start..run.start + run.len].chunks_mut(self.segment) {
                    self.nonce += 1;
                    key.seal(self.nonce, packet).context("AES-GCM refused a packet")?;
                }
            }
            let sent = self.port.send_runs(&self.bytes, runs);
            ensure!(sent.refused == 0, "the kernel refused {} datagrams", sent.refused);
        }
        Ok(())
    }
}

/// An AES-128-GCM key in the library that the server would take on this machine.
enum Key {
    Ring(Box<ring::aead::LessSafeKey>),
    AwsLc(aws_lc_rs::aead::LessSafeKey),
}

impl Key {
    fn new(backend: GcmBackend, fill: u8) -> Option<Self> {
        let key = [fill; 16];
        Some(match backend {
            GcmBackend::Ring => {
                use ring::aead::{AES_128_GCM, LessSafeKey, UnboundKey};
                let key = UnboundKey::new(&AES_128_GCM, &key).ok()?;
                Self::Ring(Box::new(LessSafeKey::new(key)))
            }
            GcmBackend::AwsLc => {
                use aws_lc_rs::aead::{AES_128_GCM, LessSafeKey, UnboundKey};
                Self::AwsLc(LessSafeKey::new(UnboundKey::new(&AES_128_GCM, &key).ok()?))
            }
        })
    }

    /// Encrypts what is between header and tag, and writes the tag.
    fn seal(&self, nonce: u64, packet: &mut [u8]) -> Option<()> {
        let mut wide = [0; 12];
        wide[4..].copy_from_slice(&nonce.to_be_bytes());
        let (header, rest) = packet.split_first_chunk_mut::<HEADER_BYTES>()?;
        let (body, tag) = rest.split_last_chunk_mut::<TAG_BYTES>()?;
        match self {
            Self::Ring(key) => {
                use ring::aead::{Aad, Nonce};
                let nonce = Nonce::assume_unique_for_key(wide);
                let made = key.seal_in_place_separate_tag(nonce, Aad::from(&*header), body).ok()?;
                tag.copy_from_slice(made.as_ref());
            }
            Self::AwsLc(key) => {
                use aws_lc_rs::aead::{Aad, Nonce};
                let nonce = Nonce::assume_unique_for_key(wide);
                let made = key.seal_in_place_separate_tag(nonce, Aad::from(&*header), body).ok()?;
                tag.copy_from_slice(made.as_ref());
            }
        }
        Some(())
    }
}
