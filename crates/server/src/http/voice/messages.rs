//! Messages of the voice relay's WebSocket as JSON and back.

use engine::voice::{BadMessage, ClientMessage, Named, ServerMessage, VoiceId};

use super::super::wire::{SessionDescription, VoiceAnswer, VoiceRequest};
use super::MESSAGE_LENGTH_MAX;

/// Longest sentence about a message that cannot be understood, in characters: it may quote it.
const SENTENCE_LENGTH_MAX: usize = 200;

/// What a text message says.
pub(super) fn read(text: &str) -> Result<ClientMessage, BadMessage> {
    if text.len() > MESSAGE_LENGTH_MAX {
        return Err(too_long());
    }
    serde_json::from_str(text).map(understand).map_err(|error| {
        let sentence = format!("the message cannot be understood: {error}");
        BadMessage(sentence.chars().take(SENTENCE_LENGTH_MAX).collect())
    })
}

/// Of a message that is not read.
pub(super) fn too_long() -> BadMessage {
    BadMessage(format!("the message is longer than {} KiB", MESSAGE_LENGTH_MAX / 1024))
}

/// Of a binary message.
pub(super) fn binary() -> BadMessage {
    BadMessage("messages are JSON in text, and this one is binary".to_owned())
}

fn understand(request: VoiceRequest) -> ClientMessage {
    match request {
        VoiceRequest::StartSending { stream_id } => {
            ClientMessage::StartSending { voice: named(stream_id) }
        }
        VoiceRequest::WebrtcOffer { offer, stream_id } => {
            ClientMessage::Offer { sdp: offer.sdp, voice: named(stream_id) }
        }
        VoiceRequest::StartReceiving { stream_id } => {
            ClientMessage::StartReceiving { voice: named(stream_id) }
        }
        VoiceRequest::WebrtcAnswer { answer, stream_id } => {
            ClientMessage::Answer { sdp: answer.sdp, voice: named(stream_id) }
        }
        VoiceRequest::IceCandidate => ClientMessage::Candidate,
        VoiceRequest::GetAvailableStreams => ClientMessage::ListStreams,
        VoiceRequest::StopStream { stream_id } => {
            ClientMessage::StopStream { voice: named(stream_id) }
        }
        VoiceRequest::Ping => ClientMessage::Ping,
        VoiceRequest::LocalIp => ClientMessage::LocalIp,
    }
}

/// Cards without a wish send null or an empty text.
fn named(stream_id: Option<String>) -> Named {
    match stream_id.as_deref() {
        None | Some("") => Named::Nothing,
        Some(id) => VoiceId::parse(id).map_or(Named::Nonsense, Named::Voice),
    }
}

/// A message as its text.
pub(super) fn write(message: &ServerMessage) -> String {
    // Neither maps with odd keys nor anything that refuses to be written is in it.
    serde_json::to_string(&answer(message)).unwrap_or_default()
}

fn answer(message: &ServerMessage) -> VoiceAnswer<'_> {
    match message {
        ServerMessage::SenderReady { connection } => {
            VoiceAnswer::SenderReady { connection_id: connection.to_string() }
        }
        ServerMessage::Answer { sdp } => {
            VoiceAnswer::WebrtcAnswer { answer: SessionDescription { kind: "answer", sdp } }
        }
        ServerMessage::Offer { sdp, voice } => VoiceAnswer::WebrtcOffer {
            offer: SessionDescription { kind: "offer", sdp },
            stream_id: voice.to_string(),
        },
        ServerMessage::AvailableStreams(voices) => VoiceAnswer::AvailableStreams {
            streams: voices.iter().map(ToString::to_string).collect(),
        },
        ServerMessage::StreamAvailable(voice) => {
            VoiceAnswer::StreamAvailable { stream_id: voice.to_string() }
        }
        ServerMessage::StreamEnded(voice) => {
            VoiceAnswer::StreamEnded { stream_id: voice.to_string() }
        }
        ServerMessage::Level { voice, level, at } => VoiceAnswer::AudioData {
            stream_id: voice.to_string(),
            timestamp: at.saturating_since(control::Timestamp::ZERO).as_secs_f64(),
            level: level.amplitude(),
            dbov: -i16::from(level.below_full),
            voice: level.voice,
        },
        ServerMessage::Pong => VoiceAnswer::Pong,
        ServerMessage::Error(trouble) => VoiceAnswer::Error { message: trouble.to_string() },
    }
}

#[cfg(test)]
mod tests {
    use control::Timestamp;
    use engine::voice::{ConnectionId, ServerTrouble, Trouble};
    use media::AudioLevel;
    use serde_json::{Value, json};

    use super::*;

    const ID: &str = "00000000-0000-0000-0000-0000000000ab";

    fn voice() -> VoiceId {
        VoiceId(ConnectionId(0xab))
    }

    #[test]
    fn every_message_of_the_contract_is_understood() {
        let sdp = || "v=0".to_owned();
        let stream = format!("stream_{ID}");
        let known = Named::Voice(voice());
        let candidate = json!({"candidate": "candidate:1", "sdpMid": "0", "sdpMLineIndex": 0});
        for (text, wanted) in [
            (
                json!({"type": "start_sending"}),
                ClientMessage::StartSending { voice: Named::Nothing },
            ),
            (
                json!({"type": "webrtc_offer", "offer": {"sdp": "v=0", "type": "offer"}}),
                ClientMessage::Offer { sdp: sdp(), voice: Named::Nothing },
            ),
            (
                json!({"type": "start_receiving"}),
                ClientMessage::StartReceiving { voice: Named::Nothing },
            ),
            (
                json!({"type": "start_receiving", "stream_id": null}),
                ClientMessage::StartReceiving { voice: Named::Nothing },
            ),
            (
                json!({"type": "start_receiving", "stream_id": stream}),
                ClientMessage::StartReceiving { voice: known },
            ),
            (
                json!({"type": "start_receiving", "stream_id": "latest"}),
                ClientMessage::StartReceiving { voice: Named::Nonsense },
            ),
            (
                json!({"type": "webrtc_answer", "answer": {"sdp": "v=0", "type": "answer"}}),
                ClientMessage::Answer { sdp: sdp(), voice: Named::Nothing },
            ),
            (json!({"type": "ice_candidate", "candidate": candidate}), ClientMessage::Candidate),
            (json!({"type": "ice_candidate", "candidate": null}), ClientMessage::Candidate),
            (json!({"type": "get_available_streams"}), ClientMessage::ListStreams),
            (json!({"type": "stop_stream"}), ClientMessage::StopStream { voice: Named::Nothing }),
            (json!({"type": "ping", "at": 5}), ClientMessage::Ping),
            (json!({"type": "local_ip", "ip": "192.168.1.7"}), ClientMessage::LocalIp),
        ] {
            assert_eq!(read(&text.to_string()), Ok(wanted), "{text}");
        }
    }

    #[test]
    fn whatever_else_comes_has_a_short_sentence() {
        let deep = "[".repeat(100_000);
        let long_type = format!("{{\"type\":\"{}\"}}", "x".repeat(100_000));
        let wrong = [
            "",
            "{",
            "null",
            "[]",
            "7",
            "\"ping\"",
            "{}",
            "{\"type\":7}",
            "{\"type\":\"dance\"}",
            "{\"type\":\"webrtc_offer\"}",
            "{\"type\":\"webrtc_offer\",\"offer\":{}}",
            "{\"type\":\"webrtc_answer\",\"answer\":\"v=0\"}",
            "{\"type\":\"start_receiving\",\"stream_id\":7}",
            &deep,
            &long_type,
        ];
        for text in wrong {
            let BadMessage(sentence) = read(text).unwrap_err();
            assert!(sentence.starts_with("the message cannot be understood: "), "{sentence}");
            assert!(sentence.chars().count() <= SENTENCE_LENGTH_MAX);
        }
        let ping = "{\"type\":\"ping\"}";
        let just = ping.to_owned() + &" ".repeat(MESSAGE_LENGTH_MAX - ping.len());
        assert_eq!(read(&just), Ok(ClientMessage::Ping));
        assert_eq!(read(&format!("{just} ")), Err(too_long()));
    }

    #[test]
    fn every_message_to_clients_has_the_contracts_shape() {
        let stream = format!("stream_{ID}");
        let level = AudioLevel { below_full: 20, voice: Some(true) };
        let at = Timestamp::from_millis(1_795_000_000_250);
        let sdp = || "v=0".to_owned();
        let full = Trouble::Server(ServerTrouble::NotSending);
        for (message, wanted) in [
            (
                ServerMessage::SenderReady { connection: ConnectionId(0xab) },
                json!({"type": "sender_ready", "connection_id": ID}),
            ),
            (
                ServerMessage::Answer { sdp: sdp() },
                json!({"type": "webrtc_answer", "answer": {"type": "answer", "sdp": "v=0"}}),
            ),
            (
                ServerMessage::Offer { sdp: sdp(), voice: voice() },
                json!({
                    "type": "webrtc_offer", "offer": {"type": "offer", "sdp": "v=0"},
                    "stream_id": stream,
                }),
            ),
            (
                ServerMessage::AvailableStreams(vec![voice()]),
                json!({"type": "available_streams", "streams": [stream]}),
            ),
            (
                ServerMessage::StreamAvailable(voice()),
                json!({"type": "stream_available", "stream_id": stream}),
            ),
            (
                ServerMessage::StreamEnded(voice()),
                json!({"type": "stream_ended", "stream_id": stream}),
            ),
            (ServerMessage::Pong, json!({"type": "pong"})),
            (
                ServerMessage::Error(Trouble::NoStream),
                json!({"type": "error", "message": "No audio stream available"}),
            ),
            (
                ServerMessage::Error(Trouble::StreamEnded),
                json!({"type": "error", "message": "Stream ended"}),
            ),
            (
                ServerMessage::Error(full),
                json!({
                    "type": "error",
                    "message": "Server error: nobody asked to speak here; send start_sending before the offer",
                }),
            ),
        ] {
            assert_eq!(serde_json::from_str::<Value>(&write(&message)).unwrap(), wanted);
        }
        let text = write(&ServerMessage::Level { voice: voice(), level, at });
        let told: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(told["type"], "audio_data");
        assert_eq!(told["stream_id"], stream.as_str());
        assert_eq!(told["timestamp"], 1_795_000_000.25);
        assert_eq!((&told["dbov"], &told["voice"]), (&json!(-20), &json!(true)));
        assert!((told["level"].as_f64().unwrap() - 0.1).abs() < 1e-6, "{text}");
    }
}
