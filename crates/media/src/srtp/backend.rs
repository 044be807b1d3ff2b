//! Which library seals AES-GCM. Whether ring or aws-lc is faster depends on the processor's vector
//! instructions; both are compiled in and one is chosen for the process at its start.

use std::hint::black_box;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::{SrtpProfile, SrtpSender};

/// Packets that [`calibration_round`] seals: some 0.3 ms of work, long against a clock's
/// resolution and short against a start.
pub const CALIBRATION_PACKETS: u16 = 1_000;

/// Payload bytes of each of these packets: a full segment of a picture.
pub const CALIBRATION_PAYLOAD_BYTES: usize = 1_180;

/// Rounds that [`calibrate_gcm`] asks for of each back end. The fastest counts, so that one round
/// undisturbed by other work is enough.
const CALIBRATION_ROUNDS: usize = 5;

/// A library that seals AES-GCM.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum GcmBackend {
    /// The `ring` crate.
    Ring,
    /// The `aws-lc-rs` crate; the default.
    AwsLc,
}

static RING_CHOSEN: AtomicBool = AtomicBool::new(false);

/// Chooses the library for every sender and receiver made from here on, in the whole process. Both
/// give the same bytes: this is about speed alone.
pub fn set_gcm_backend(backend: GcmBackend) {
    RING_CHOSEN.store(backend == GcmBackend::Ring, Ordering::Relaxed);
}

/// What [`set_gcm_backend`] chose last.
pub fn gcm_backend() -> GcmBackend {
    if RING_CHOSEN.load(Ordering::Relaxed) { GcmBackend::Ring } else { GcmBackend::AwsLc }
}

/// Seals [`CALIBRATION_PACKETS`] packets of [`CALIBRATION_PAYLOAD_BYTES`] with AEAD_AES_256_GCM, for
/// the caller to time: the core reads no clock.
pub fn calibration_round(backend: GcmBackend) {
    let profile = SrtpProfile::AeadAes256Gcm;
    let material = vec![0; profile.keying_material_len()];
    let mut sender = SrtpSender::with_backend(profile, &material, backend)
        .expect("the material has the profile's length");
    let payload = [0; CALIBRATION_PAYLOAD_BYTES];
    let mut header = [0x80, 96, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
    let mut out = Vec::with_capacity(2 * CALIBRATION_PAYLOAD_BYTES);
    for sequence in 0..CALIBRATION_PACKETS {
        header[2..4].copy_from_slice(&sequence.to_be_bytes());
        out.clear();
        sender
            .protect_rtp(&header, &payload, sequence.into(), &mut out)
            .expect("the indices rise and the header is whole");
        black_box(&out);
    }
}

/// Chooses the faster library for the process and returns it. `measure` runs one
/// [`calibration_round`] on the given back end and returns how long it took.
///
/// ```
/// use std::time::Instant;
/// use media::srtp::{calibrate_gcm, calibration_round};
///
/// let chosen = calibrate_gcm(|backend| {
///     let start = Instant::now();
///     calibration_round(backend);
///     start.elapsed()
/// });
/// # let _ = chosen;
/// ```
pub fn calibrate_gcm(mut measure: impl FnMut(GcmBackend) -> Duration) -> GcmBackend {
    let mut ring = Duration::MAX;
    let mut aws_lc = Duration::MAX;
    // In turns, so that a change of the processor's clock meets both.
    for _ in 0..CALIBRATION_ROUNDS {
        ring = ring.min(measure(GcmBackend::Ring));
        aws_lc = aws_lc.min(measure(GcmBackend::AwsLc));
    }
    let backend = if ring < aws_lc { GcmBackend::Ring } else { GcmBackend::AwsLc };
    set_gcm_backend(backend);
    backend
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calibration_chooses_the_back_end_with_the_fastest_round() {
        let rounds = |ring: [u64; 5], aws_lc: [u64; 5]| {
            let (mut ring, mut aws_lc) = (ring.into_iter(), aws_lc.into_iter());
            calibrate_gcm(|backend| {
                let micros = match backend {
                    GcmBackend::Ring => ring.next(),
                    GcmBackend::AwsLc => aws_lc.next(),
                };
                Duration::from_micros(micros.expect("five rounds each"))
            })
        };

        assert_eq!(rounds([900, 900, 300, 900, 900], [400; 5]), GcmBackend::Ring);
        assert_eq!(gcm_backend(), GcmBackend::Ring);
        assert_eq!(rounds([500; 5], [900, 400, 900, 900, 900]), GcmBackend::AwsLc);
        assert_eq!(gcm_backend(), GcmBackend::AwsLc);
    }

    #[test]
    fn a_round_runs_on_both_back_ends() {
        calibration_round(GcmBackend::Ring);
        calibration_round(GcmBackend::AwsLc);
    }
}
