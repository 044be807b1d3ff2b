//! The RFCs' vectors, libsrtp's reference packets, and properties over all profiles.
//!
//! `gcm_backend()` is shared by all tests of the process: those that care name their back end.

use proptest::prelude::*;

use super::*;

const PROFILES: [SrtpProfile; 3] =
    [SrtpProfile::AeadAes256Gcm, SrtpProfile::AeadAes128Gcm, SrtpProfile::Aes128CmSha1_80];
const BACKENDS: [GcmBackend; 2] = [GcmBackend::Ring, GcmBackend::AwsLc];

const SSRC: u32 = 0xcafe_babe;

// RFC 7714 §16 and §17: session keys and salts are given.

const RFC7714_SALT: &str = "517569642070726f2071756f";
const RFC7714_KEY_128: &str = "000102030405060708090a0b0c0d0e0f";
const RFC7714_KEY_256: &str = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f";
const RFC7714_RTP_HEADER: &str = "8040f17b8041f8d35501a0b2";
const RFC7714_RTP_PAYLOAD: &str =
    "47616c6c696120657374206f6d6e69732064697669736120696e207061727465732074726573";
const RFC7714_RTCP_INDEX: u32 = 0x5d4;
const RFC7714_RTCP: &str = "81c8000d4d6172734e5450314e545032525450200000042a0000e930\
                            4c756e61deadbeefdeadbeefdeadbeefdeadbeefdeadbeef";

#[test]
fn aes_gcm_seals_the_rtp_packets_of_rfc_7714_section_16() {
    let vectors = [
        (
            RFC7714_KEY_128,
            "8040f17b8041f8d35501a0b2f24de3a3fb34de6cacba861c9d7e4bcabe633bd50d294e6f42a5f47a51\
             c7d19b36de3adf8833899d7f27beb16a9152cf765ee4390cce",
        ),
        (
            RFC7714_KEY_256,
            "8040f17b8041f8d35501a0b232b1de78a822fe12ef9f78fa332e33aab18012389a58e2f3b50b2a0276\
             ffae0f1ba63799b87b7aa3db36dfffd6b0f9bb7878d7a76c13",
        ),
    ];
    for (key, expected) in vectors {
        for backend in BACKENDS {
            let mut sender = gcm_sender(key, backend);
            let mut out = Vec::new();

            sender
                .protect_rtp(&hex(RFC7714_RTP_HEADER), &hex(RFC7714_RTP_PAYLOAD), 0xf17b, &mut out)
                .expect("the packet is whole");

            assert_eq!(out, hex(expected), "{backend:?}");
        }
    }
}

#[test]
fn aes_gcm_seals_and_opens_the_rtcp_packets_of_rfc_7714_section_17() {
    let vectors = [
        (
            RFC7714_KEY_128,
            "81c8000d4d61727363e94885dcdab67ca727d7662f6b7e997ff5c0f76c06f32dc676a5f1730d6fda4c\
             e09b4686303ded0bb9275bc84aa45896cf4d2fc5abf87245d9eade800005d4",
        ),
        (
            RFC7714_KEY_256,
            "81c8000d4d617273d50ae4d1f5ce5d304ba297e47d470c282c3ece5dbffe0a50a2eaa5c1110555be84\
             15f658c61de0476f1b6fad1d1eb30c4446839f57ff6f6cb26ac3be800005d4",
        ),
    ];
    for (key, expected) in vectors {
        for backend in BACKENDS {
            let mut sender = gcm_sender(key, backend);
            sender.next_rtcp_index = RFC7714_RTCP_INDEX;
            let mut out = Vec::new();

            sender.protect_rtcp(&hex(RFC7714_RTCP), &mut out).expect("the packet is whole");

            assert_eq!(out, hex(expected), "{backend:?}");
            assert_eq!(
                gcm_receiver(key, backend).unprotect_rtcp(&mut out),
                Ok(hex(RFC7714_RTCP).as_slice()),
                "{backend:?}"
            );
        }
    }
}

#[test]
fn aes_gcm_opens_the_unencrypted_rtcp_packets_of_rfc_7714_section_17() {
    let vectors = [
        (RFC7714_KEY_128, "841dd9683dd78ec92ae58790125f62b3"),
        (RFC7714_KEY_256, "91db4afbfeee5a978fab4393ed2615fe"),
    ];
    for (key, tag) in vectors {
        for backend in BACKENDS {
            let packet = [hex(RFC7714_RTCP), hex(tag), hex("000005d4")].concat();

            let mut receiver = gcm_receiver(key, backend);
            let mut forged = packet.clone();
            forged[20] ^= 1;
            assert_eq!(receiver.unprotect_rtcp(&mut forged), Err(SrtpError::NotAuthentic));
            assert_eq!(
                receiver.unprotect_rtcp(&mut packet.clone()),
                Ok(hex(RFC7714_RTCP).as_slice()),
                "{backend:?}"
            );
        }
    }
}

/// RFC 3711 appendix B.2: the SSRC, the packet index and the lower bytes of the salt are 0.
#[test]
fn aes_cm_gives_the_keystream_of_rfc_3711_appendix_b2() {
    let key = array(&hex("2b7e151628aed2a6abf7158809cf4f3c"));
    let salt = array(&hex("f0f1f2f3f4f5f6f7f8f9fafbfcfd"));
    let cipher = Cipher::cm(key, [0; 20], salt).expect("the lengths are right");
    let header = [0; RTP_HEADER_BYTES];
    let mut out = Vec::new();

    cipher.seal_rtp(0, 0, &header, &[&[0; 0xff02 * 16]], &mut out).expect("AES takes it");

    let block = |counter: usize| &out[RTP_HEADER_BYTES + counter * 16..][..16];
    assert_eq!(block(0), hex("e03ead0935c95e80e166b16dd92b4eb4"));
    assert_eq!(block(1), hex("d23513162b02d0f72a43a2fe4a5f97ab"));
    assert_eq!(block(2), hex("41e95b3bb0a2e8dd477901e4fca894c0"));
    assert_eq!(block(0xfeff), hex("ec8cdf7398607cb0f2d21675ea9ea1e4"));
    assert_eq!(block(0xff00), hex("362b7c3c6773516318a077d7fc5073ae"));
    assert_eq!(block(0xff01), hex("6a2cc3787889374fbeb4c81b17ba6c44"));
}

#[test]
fn session_keys_are_those_of_rfc_3711_appendix_b3() {
    let key = hex("e1f97a0d3e018be0d64fa32c06de4139");
    let salt = hex("0ec675ad498afeebb6960b3aabe6");
    let master = Master { key: &key, salt: &salt };

    let cipher: [u8; 16] = master.derive(Purpose::Rtp, keys::SessionKey::Cipher).unwrap();
    let salt: [u8; 14] = master.derive(Purpose::Rtp, keys::SessionKey::Salt).unwrap();
    let authentication: [u8; 94] =
        master.derive(Purpose::Rtp, keys::SessionKey::Authentication).unwrap();

    assert_eq!(cipher.as_slice(), hex("c61e7a93744f39ee10734afe3ff7a087"));
    assert_eq!(salt.as_slice(), hex("30cbbc08863d8c85d49db34a9ae1"));
    assert_eq!(
        authentication.as_slice(),
        hex("cebe321f6ff7716b6fd4ab49af256a156d38baa48f0a0acf3c34e2359e6cdbcee049646c43d9327ad175\
             578ef72270986371c10c9a369ac2f94a8c5fbcdddc256d6e919a48b610ef17c2041e474035766b68642c59\
             bbfc2f34db60dbdfb2")
    );
}

#[test]
fn session_keys_of_256_bits_are_those_of_rfc_6188_section_7_2() {
    let key = hex("f0f04914b513f2763a1b1fa130f10e2998f6f6e43e4309d1e622a0e332b9f1b6");
    let salt = hex("3b04803de51ee7c96423ab5b78d2");
    let master = Master { key: &key, salt: &salt };

    let cipher: [u8; 32] = master.derive(Purpose::Rtp, keys::SessionKey::Cipher).unwrap();
    let salt: [u8; 14] = master.derive(Purpose::Rtp, keys::SessionKey::Salt).unwrap();
    let authentication: [u8; 20] =
        master.derive(Purpose::Rtp, keys::SessionKey::Authentication).unwrap();

    assert_eq!(
        cipher.as_slice(),
        hex("5ba1064e30ec51613cad926c5a28ef731ec7fb397f70a960653caf06554cd8c4")
    );
    assert_eq!(salt.as_slice(), hex("fa31791685ca444a9e07c6c64e93"));
    assert_eq!(authentication.as_slice(), hex("fd9c32d39ed5fbb5a9dc96b30818454d1313dc05"));
}

/// The packets that libsrtp's `srtp_driver` validates against: from the master key to the wire.
#[test]
fn packets_are_those_of_libsrtp() {
    let vectors = [
        (
            SrtpProfile::Aes128CmSha1_80,
            "e1f97a0d3e018be0d64fa32c06de4139",
            "0ec675ad498afeebb6960b3aabe6",
            "800f1234decafbadcafebabe4e55dc4ce79978d88ca4d215949d2402b78d6acc99ea179b8dbb",
            "7128035be487b9bdbef89041f977a5a880000001993e08cd54d6c1230798",
        ),
        (
            SrtpProfile::AeadAes128Gcm,
            "000102030405060708090a0b0c0d0e0f",
            "a0a1a2a3a4a5a6a7a8a9aaab",
            "800f1234decafbadcafebabec5002ede04cfdd2eb91159e0880aa06ed2976826f796b201df3131a127e8\
             a392",
            "c98b8b5df0392a55852b6c21ac8e7025c52c6fbea2b3b446ea31123ba88ce61e80000001",
        ),
    ];
    let rtcp = hex("81c8000bcafebabeabababababababababababababababab");
    for (profile, key, salt, expected_rtp, expected_rtcp) in vectors {
        let (key, salt) = (hex(key), hex(salt));
        let server = material(profile, &vec![0; key.len()], &key, &vec![0; salt.len()], &salt);
        let client = material(profile, &key, &vec![0; key.len()], &salt, &vec![0; salt.len()]);
        let mut sender = SrtpSender::from_dtls_server(profile, &server).expect("right length");
        let mut receiver = SrtcpReceiver::from_dtls_server(profile, &client).expect("right length");

        let mut out = Vec::new();
        sender
            .protect_rtp(&hex("800f1234decafbadcafebabe"), &[0xab; 16], 0x1234, &mut out)
            .unwrap();
        assert_eq!(out, hex(expected_rtp), "{profile:?}");

        out.clear();
        sender.protect_rtcp(&rtcp, &mut out).unwrap();
        assert_eq!(out[8..], hex(expected_rtcp), "{profile:?}");
        assert_eq!(receiver.unprotect_rtcp(&mut out), Ok(rtcp.as_slice()), "{profile:?}");
    }
}

#[test]
fn keying_material_of_the_wrong_length_is_refused() {
    for profile in PROFILES {
        let expected = profile.keying_material_len();
        for actual in [0, expected - 1, expected + 1] {
            let error = SrtpError::KeyLength { expected, actual };
            let bytes = vec![0; actual];
            assert_eq!(SrtpSender::from_dtls_server(profile, &bytes).err(), Some(error));
            assert_eq!(SrtcpReceiver::from_dtls_server(profile, &bytes).err(), Some(error));
        }
    }
}

#[test]
fn a_refused_packet_leaves_the_buffer_as_it_was() {
    for profile in PROFILES {
        let (mut sender, _) = pair(profile);
        let mut out = vec![1, 2, 3];
        let header = rtp_header(7, SSRC);
        sender.protect_rtp(&header, b"first", 7, &mut out).unwrap();
        let before = out.clone();

        let attempts: [(&[u8], u64, SrtpError); 6] = [
            (&header, 7, SrtpError::IndexReused { ssrc: SSRC, index: 7 }),
            (&rtp_header(6, SSRC), 6, SrtpError::IndexReused { ssrc: SSRC, index: 6 }),
            (&header, 8, SrtpError::SequenceMismatch { sequence: 7, index: 8 }),
            (&header, (1 << 48) | 7, SrtpError::IndexExhausted),
            (&header[..11], 7, SrtpError::HeaderTooShort { actual: 11, needed: 12 }),
            (&[], 0, SrtpError::HeaderTooShort { actual: 0, needed: 12 }),
        ];
        for (header, index, error) in attempts {
            assert_eq!(sender.protect_rtp(header, b"again", index, &mut out), Err(error));
            assert_eq!(out, before);
        }

        let error = SrtpError::HeaderTooShort { actual: 7, needed: 8 };
        assert_eq!(sender.protect_rtcp(&[0x80; 7], &mut out), Err(error));
        assert_eq!(out, before);
    }
}

#[test]
fn srtcp_stops_when_its_index_is_used_up() {
    for profile in PROFILES {
        let (mut sender, mut receiver) = pair(profile);
        sender.next_rtcp_index = RTCP_INDEX_END - 1;
        let packet = rtcp_packet(SSRC, &[]);
        let mut out = Vec::new();
        sender.protect_rtcp(&packet, &mut out).expect("the last index");
        assert_eq!(receiver.unprotect_rtcp(&mut out), Ok(packet.as_slice()));

        out.clear();
        for _ in 0..3 {
            assert_eq!(sender.protect_rtcp(&packet, &mut out), Err(SrtpError::IndexExhausted));
            assert!(out.is_empty());
        }
    }
}

#[test]
fn a_replayed_packet_is_refused_and_a_late_one_is_not() {
    for profile in PROFILES {
        let (mut sender, mut receiver) = pair(profile);
        let sealed: Vec<_> = (0..200u8)
            .map(|number| {
                let mut out = Vec::new();
                sender.protect_rtcp(&rtcp_packet(SSRC, &[number; 4]), &mut out).unwrap();
                out
            })
            .collect();
        let mut open = |number: usize| {
            let mut packet = sealed[number].clone();
            receiver.unprotect_rtcp(&mut packet).map(|opened| opened[8])
        };

        assert_eq!(open(150), Ok(150));
        assert_eq!(open(150), Err(SrtpError::Replayed));
        assert_eq!(open(149), Ok(149));
        assert_eq!(open(149), Err(SrtpError::Replayed));
        assert_eq!(open(23), Ok(23), "127 behind is the oldest place in the window");
        assert_eq!(open(22), Err(SrtpError::Replayed), "too old to tell");
        assert_eq!(open(199), Ok(199));
    }
}

/// libsrtp, and so a browser, counts for each SSRC from 1.
#[test]
fn each_ssrc_has_its_own_srtcp_index() {
    for profile in PROFILES {
        let (mut sender, mut receiver) = pair(profile);
        for ssrc in [1, 2] {
            sender.next_rtcp_index = 1;
            let packet = rtcp_packet(ssrc, b"body");
            let mut out = Vec::new();
            sender.protect_rtcp(&packet, &mut out).unwrap();
            assert_eq!(receiver.unprotect_rtcp(&mut out), Ok(packet.as_slice()));
        }
    }
}

/// Otherwise anybody could fill the table, or move a window, from outside.
#[test]
fn a_forged_packet_leaves_the_receiver_as_it_was() {
    for profile in PROFILES {
        let (mut sender, mut receiver) = pair(profile);
        for ssrc in 0..100u32 {
            let mut forged = vec![0x80; 60];
            forged[4..8].copy_from_slice(&ssrc.to_be_bytes());
            assert_eq!(receiver.unprotect_rtcp(&mut forged), Err(SrtpError::NotAuthentic));
        }
        let packet = rtcp_packet(SSRC, b"body");
        let mut out = Vec::new();
        sender.protect_rtcp(&packet, &mut out).unwrap();
        let mut forged = out.clone();
        forged[12] ^= 1;
        assert_eq!(receiver.unprotect_rtcp(&mut forged), Err(SrtpError::NotAuthentic));
        assert_eq!(receiver.unprotect_rtcp(&mut out), Ok(packet.as_slice()));
    }
}

#[test]
fn the_two_directions_have_different_keys() {
    for profile in PROFILES {
        let bytes = some_material(profile);
        let mut sender = SrtpSender::from_dtls_server(profile, &bytes).unwrap();
        let mut receiver = SrtcpReceiver::from_dtls_server(profile, &bytes).unwrap();
        let mut out = Vec::new();
        sender.protect_rtcp(&rtcp_packet(SSRC, b"body"), &mut out).unwrap();

        assert_eq!(receiver.unprotect_rtcp(&mut out), Err(SrtpError::NotAuthentic));
    }
}

#[test]
fn debug_output_holds_no_key() {
    for profile in PROFILES {
        let (sender, receiver) = pair(profile);
        assert_eq!(format!("{sender:?}"), format!("SrtpSender {{ profile: {profile:?}, .. }}"));
        assert_eq!(
            format!("{receiver:?}"),
            format!("SrtcpReceiver {{ profile: {profile:?}, .. }}")
        );
    }
}

#[test]
fn sender_and_receiver_can_move_between_threads() {
    fn check<T: Send + Sync>() {}
    check::<SrtpSender>();
    check::<SrtcpReceiver>();
}

fn any_profile() -> impl Strategy<Value = SrtpProfile> {
    prop::sample::select(&PROFILES)
}

fn any_backend() -> impl Strategy<Value = GcmBackend> {
    prop::sample::select(&BACKENDS)
}

proptest! {
    #[test]
    fn what_is_sealed_opens_again(
        profile in any_profile(),
        backend in any_backend(),
        ssrc in any::<u32>(),
        first in 0..(1u64 << 48) - 1000,
        steps in prop::collection::vec(1u64..200, 1..5),
        extension in prop::collection::vec(any::<u8>(), 0..24),
        payload in prop::collection::vec(any::<u8>(), 0..1300),
    ) {
        let bytes = some_material(profile);
        let mut sender = SrtpSender::with_backend(profile, &bytes, backend).unwrap();
        let reader = RtpReader::new(profile, &bytes);
        let mut index = first;
        for step in steps {
            index += step;
            let header = [rtp_header(index as u16, ssrc).as_slice(), &extension].concat();
            let mut out = b"before".to_vec();
            sender.protect_rtp(&header, &payload, index, &mut out).unwrap();

            let expected_len = 6 + header.len() + payload.len() + sender.rtp_overhead();
            prop_assert_eq!(out.len(), expected_len);
            prop_assert_eq!(&out[..6], b"before");
            prop_assert_eq!(reader.open(&out[6..], header.len(), index), Some(payload.clone()));
            prop_assert_eq!(reader.open(&out[6..], header.len(), index ^ (1 << 16)), None);
        }
    }

    /// Every index up to 2^48 works, the roll-over counter with it.
    #[test]
    fn the_sequence_number_wraps_and_the_index_does_not(
        profile in any_profile(),
        counter in prop_oneof![0u64..3, Just((1 << 32) - 2), 0..(1u64 << 32) - 1],
    ) {
        let bytes = some_material(profile);
        let mut sender = SrtpSender::from_dtls_server(profile, &bytes).unwrap();
        let reader = RtpReader::new(profile, &bytes);
        let boundary = (counter + 1) << 16;
        for index in boundary - 3..boundary + 3 {
            let header = rtp_header(index as u16, SSRC);
            let mut out = Vec::new();
            sender.protect_rtp(&header, b"payload", index, &mut out).unwrap();
            prop_assert_eq!(reader.open(&out, 12, index), Some(b"payload".to_vec()));
        }
    }

    /// Whatever order the indices are asked for in: none twice, and a refusal appends nothing.
    #[test]
    fn no_index_is_ever_used_twice(
        profile in any_profile(),
        indices in prop::collection::vec((0u32..3, 0u64..40), 1..80),
    ) {
        let (mut sender, _) = pair(profile);
        let mut highest = std::collections::HashMap::new();
        for (ssrc, index) in indices {
            let mut out = Vec::new();
            let result =
                sender.protect_rtp(&rtp_header(index as u16, ssrc), b"payload", index, &mut out);
            let rises = highest.get(&ssrc).is_none_or(|last| index > *last);
            if rises {
                prop_assert_eq!(result, Ok(()));
                highest.insert(ssrc, index);
            } else {
                prop_assert_eq!(result, Err(SrtpError::IndexReused { ssrc, index }));
                prop_assert!(out.is_empty());
            }
        }
    }

    /// Whatever was sent in between: a repeat has the bytes of the first time, takes no index, and
    /// is refused of a packet that was never sent.
    #[test]
    fn repeats_are_byte_identical(
        profile in any_profile(),
        backend in any_backend(),
        first in 0..(1u64 << 48) - 2000,
        steps in prop::collection::vec(1u64..30, 1..40),
        repeated in prop::collection::vec(any::<prop::sample::Index>(), 1..20),
        payload in prop::collection::vec(any::<u8>(), 1..1200),
    ) {
        let mut sender = SrtpSender::with_backend(profile, &some_material(profile), backend).unwrap();
        let mut index = first;
        let mut sent = Vec::new();
        for step in steps {
            index += step;
            let header = rtp_header(index as u16, SSRC);
            let payload = [payload.as_slice(), &index.to_be_bytes()].concat();
            let mut out = Vec::new();
            sender.protect_rtp(&header, &payload, index, &mut out).unwrap();
            sent.push((header, payload, index, out));
        }
        for choice in repeated {
            let (header, payload, index, expected) = choice.get(&sent);
            let mut out = b"before".to_vec();
            sender.repeat_rtp(header, payload, *index, &mut out).unwrap();
            prop_assert_eq!(&out[6..], expected.as_slice());
        }
        let next = index + 1;
        let mut out = Vec::new();
        for (ssrc, index) in [(SSRC, next), (SSRC + 1, first)] {
            let refused = sender.repeat_rtp(&rtp_header(index as u16, ssrc), b"x", index, &mut out);
            prop_assert_eq!(refused, Err(SrtpError::NeverSent { ssrc, index }));
        }
        prop_assert!(out.is_empty());
        let header = rtp_header(next as u16, SSRC);
        prop_assert_eq!(sender.protect_rtp(&header, b"next", next, &mut out), Ok(()));
    }

    #[test]
    fn a_payload_in_parts_is_their_concatenation(
        profile in any_profile(),
        parts in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 0..4),
    ) {
        let (mut whole, _) = pair(profile);
        let (mut cut, _) = pair(profile);
        let borrowed: Vec<&[u8]> = parts.iter().map(Vec::as_slice).collect();
        let (mut expected, mut out) = (Vec::new(), Vec::new());
        whole.protect_rtp(&rtp_header(7, SSRC), &parts.concat(), 7, &mut expected).unwrap();
        cut.protect_rtp_parts(&rtp_header(7, SSRC), &borrowed, 7, &mut out).unwrap();
        prop_assert_eq!(out, expected);
    }

    #[test]
    fn feedback_opens_again_and_neither_cut_nor_flipped(
        profile in any_profile(),
        backend in any_backend(),
        ssrc in any::<u32>(),
        body in prop::collection::vec(any::<u8>(), 0..200),
        cut in any::<prop::sample::Index>(),
        flip in any::<prop::sample::Index>(),
        bit in 0u8..8,
    ) {
        let bytes = some_material(profile);
        let mut sender = SrtpSender::with_backend(profile, &bytes, backend).unwrap();
        let (_, mut receiver) = pair(profile);
        let packet = rtcp_packet(ssrc, &body);
        let mut sealed = Vec::new();
        sender.protect_rtcp(&packet, &mut sealed).unwrap();

        let mut short = sealed[..cut.index(sealed.len())].to_vec();
        prop_assert!(receiver.unprotect_rtcp(&mut short).is_err());
        let mut flipped = sealed.clone();
        flipped[flip.index(sealed.len())] ^= 1 << bit;
        prop_assert!(receiver.unprotect_rtcp(&mut flipped).is_err());

        let mut copy = sealed.clone();
        prop_assert_eq!(receiver.unprotect_rtcp(&mut copy), Ok(packet.as_slice()));
        prop_assert_eq!(receiver.unprotect_rtcp(&mut sealed), Err(SrtpError::Replayed));
    }

    #[test]
    fn noise_is_never_feedback(
        profile in any_profile(),
        mut noise in prop::collection::vec(any::<u8>(), 0..120),
    ) {
        let (_, mut receiver) = pair(profile);
        prop_assert_eq!(receiver.unprotect_rtcp(&mut noise), Err(SrtpError::NotAuthentic));
    }
}

/// What a browser would do, from another implementation of the ciphers: str0m's.
struct RtpReader {
    profile: SrtpProfile,
    key: Vec<u8>,
    authentication: [u8; 20],
    salt: Vec<u8>,
}

impl RtpReader {
    fn new(profile: SrtpProfile, bytes: &[u8]) -> Self {
        let master = Master::from_exported(profile, bytes, Role::Server).unwrap();
        let key: [u8; 32] = master.derive(Purpose::Rtp, keys::SessionKey::Cipher).unwrap();
        let salt: [u8; 14] = master.derive(Purpose::Rtp, keys::SessionKey::Salt).unwrap();
        Self {
            profile,
            key: key[..profile.key_len()].to_vec(),
            authentication: master.derive(Purpose::Rtp, keys::SessionKey::Authentication).unwrap(),
            salt: salt[..profile.salt_len()].to_vec(),
        }
    }

    /// The payload, if the packet is authentic under this index.
    fn open(&self, packet: &[u8], header_len: usize, index: u64) -> Option<Vec<u8>> {
        use str0m::crypto::{AeadAes128Gcm, AeadAes256Gcm};
        let ciphers = str0m_aws_lc_rs::default_provider().srtp_provider;
        let (header, sealed) = packet.split_at(header_len);
        let ssrc = u32::from_be_bytes(array(&header[8..12]));
        let counter = (index >> 16) as u32;
        let mut opened = vec![0; sealed.len()];
        let len = match self.profile {
            SrtpProfile::AeadAes256Gcm => {
                let iv = AeadAes256Gcm::rtp_iv(array(&self.salt), ssrc, counter, index as u16);
                let mut cipher = ciphers.aead_aes_256_gcm().create_cipher(array(&self.key), false);
                cipher.decrypt(&iv, &[header], sealed, &mut opened).ok()?
            }
            SrtpProfile::AeadAes128Gcm => {
                let iv = AeadAes128Gcm::rtp_iv(array(&self.salt), ssrc, counter, index as u16);
                let mut cipher = ciphers.aead_aes_128_gcm().create_cipher(array(&self.key), false);
                cipher.decrypt(&iv, &[header], sealed, &mut opened).ok()?
            }
            SrtpProfile::Aes128CmSha1_80 => self.open_cm(packet, header_len, index, &mut opened)?,
        };
        opened.truncate(len);
        Some(opened)
    }

    /// The tag by ring, the keystream by str0m.
    fn open_cm(
        &self,
        packet: &[u8],
        header_len: usize,
        index: u64,
        opened: &mut Vec<u8>,
    ) -> Option<usize> {
        use str0m::crypto::Aes128CmSha1_80;
        let (signed, tag) = packet.split_at(packet.len() - 10);
        let counter = ((index >> 16) as u32).to_be_bytes();
        let key =
            ring::hmac::Key::new(ring::hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, &self.authentication);
        if ring::hmac::sign(&key, &[signed, &counter].concat()).as_ref()[..10] != *tag {
            return None;
        }
        let ciphers = str0m_aws_lc_rs::default_provider().srtp_provider;
        let ssrc = u32::from_be_bytes(array(&packet[8..12]));
        let iv = Aes128CmSha1_80::rtp_iv(array(&self.salt), ssrc, index);
        let body = &signed[header_len..];
        opened.resize(body.len() + 15, 0);
        let mut cipher = ciphers.aes_128_cm_sha1_80().create_cipher(array(&self.key), false);
        cipher.decrypt(&iv, body, opened).ok()?;
        Some(body.len())
    }
}

/// A sender, and the receiver that opens what it sends.
fn pair(profile: SrtpProfile) -> (SrtpSender, SrtcpReceiver) {
    let ours = some_material(profile);
    let (keys, salts) = ours.split_at(2 * profile.key_len());
    let (client_key, server_key) = keys.split_at(profile.key_len());
    let (client_salt, server_salt) = salts.split_at(profile.salt_len());
    let swapped = material(profile, server_key, client_key, server_salt, client_salt);
    let sender = SrtpSender::from_dtls_server(profile, &ours).expect("right length");
    let receiver = SrtcpReceiver::from_dtls_server(profile, &swapped).expect("right length");
    (sender, receiver)
}

fn some_material(profile: SrtpProfile) -> Vec<u8> {
    (0..profile.keying_material_len()).map(|number| (number * 37 + 11) as u8).collect()
}

fn material(
    profile: SrtpProfile,
    client_key: &[u8],
    server_key: &[u8],
    client_salt: &[u8],
    server_salt: &[u8],
) -> Vec<u8> {
    let bytes = [client_key, server_key, client_salt, server_salt].concat();
    assert_eq!(bytes.len(), profile.keying_material_len());
    bytes
}

fn gcm_sender(key: &str, backend: GcmBackend) -> SrtpSender {
    SrtpSender::from_ciphers(gcm_profile(key), gcm_cipher(key, backend), gcm_cipher(key, backend))
}

fn gcm_receiver(key: &str, backend: GcmBackend) -> SrtcpReceiver {
    SrtcpReceiver::from_cipher(gcm_profile(key), gcm_cipher(key, backend))
}

fn gcm_cipher(key: &str, backend: GcmBackend) -> Cipher {
    Cipher::gcm(&hex(key), array(&hex(RFC7714_SALT)), backend).expect("the lengths are right")
}

fn gcm_profile(key: &str) -> SrtpProfile {
    if key.len() == 64 { SrtpProfile::AeadAes256Gcm } else { SrtpProfile::AeadAes128Gcm }
}

fn rtp_header(sequence: u16, ssrc: u32) -> [u8; RTP_HEADER_BYTES] {
    let mut header = [0x80, 96, 0, 0, 1, 2, 3, 4, 0, 0, 0, 0];
    header[2..4].copy_from_slice(&sequence.to_be_bytes());
    header[8..].copy_from_slice(&ssrc.to_be_bytes());
    header
}

fn rtcp_packet(ssrc: u32, body: &[u8]) -> Vec<u8> {
    [&[0x80, 201, 0, 1], ssrc.to_be_bytes().as_slice(), body].concat()
}

fn array<const N: usize>(bytes: &[u8]) -> [u8; N] {
    bytes.try_into().expect("the vector has the right length")
}

fn hex(digits: &str) -> Vec<u8> {
    let digits: Vec<u8> = digits.bytes().filter(|digit| !digit.is_ascii_whitespace()).collect();
    let text = String::from_utf8(digits).expect("hexadecimal digits are ASCII");
    (0..text.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&text[at..at + 2], 16).expect("hexadecimal digits"))
        .collect()
}
