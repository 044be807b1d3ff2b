//! Shoutcast's metadata: every so many bytes of sound a note says what is played.
//!
//! ```text
//! | 16000 bytes of MP3 | n | 16 n bytes: StreamTitle='..'; and zeros | 16000 bytes of MP3 | 0 | ...
//! ```
//! Nobody standardised it; internet radios and the players of speakers use it.

use axum::body::Bytes;
use axum::http::{HeaderName, HeaderValue};

/// Bytes of sound between two notes, one second's. What players know from radios.
const INTERVAL_BYTES: usize = 16_000;

/// Says where the notes are.
pub(super) const INTERVAL: HeaderName = HeaderName::from_static("icy-metaint");

/// Names the station.
pub(super) const NAME: HeaderName = HeaderName::from_static("icy-name");

/// Longest title: what a note has room for, with what stands around it.
const TITLE_MAX: usize = 255 * 16 - "StreamTitle='';".len();

/// The answer's headers.
pub(super) fn headers() -> [(HeaderName, HeaderValue); 4] {
    [
        (INTERVAL, HeaderValue::from(INTERVAL_BYTES)),
        (NAME, HeaderValue::from_static("Manifold")),
        (HeaderName::from_static("icy-br"), HeaderValue::from_static("128")),
        (HeaderName::from_static("icy-pub"), HeaderValue::from_static("0")),
    ]
}

/// Puts the notes into one client's sound.
#[derive(Debug)]
pub(super) struct Metadata {
    /// Bytes of sound before the next note.
    left: usize,
    /// What the client was told last.
    told: Option<String>,
}

impl Metadata {
    pub(super) fn new() -> Self {
        Self { left: INTERVAL_BYTES, told: None }
    }

    /// The same sound with the notes that fall into it; `voice` is who speaks in all of it.
    pub(super) fn weave(&mut self, mut sound: &[u8], voice: Option<&str>) -> Bytes {
        let mut woven = Vec::with_capacity(sound.len() + 1);
        while let Some((before, after)) = sound.split_at_checked(self.left) {
            woven.extend_from_slice(before);
            woven.extend_from_slice(&self.note(voice.unwrap_or_default()));
            sound = after;
            self.left = INTERVAL_BYTES;
        }
        woven.extend_from_slice(sound);
        self.left -= sound.len();
        woven.into()
    }

    /// An empty one where nothing has changed.
    fn note(&mut self, title: &str) -> Vec<u8> {
        if self.told.as_deref() == Some(title) {
            return vec![0];
        }
        self.told = Some(title.to_owned());
        // What would end the title, or the line that some player shows it on.
        let harmless =
            |character: &char| character.is_ascii_graphic() && !"';".contains(*character);
        let title: String = title.chars().filter(harmless).take(TITLE_MAX).collect();
        let text = format!("StreamTitle='{title}';");
        let sixteenths = text.len().div_ceil(16);
        let mut note = vec![u8::try_from(sixteenths).unwrap_or(u8::MAX)];
        note.extend_from_slice(text.as_bytes());
        note.resize(1 + sixteenths * 16, 0);
        note
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a player makes of it: the sound, and the notes that are not empty.
    fn unwoven(mut stream: &[u8]) -> (Vec<u8>, Vec<String>) {
        let (mut sound, mut notes) = (Vec::new(), Vec::new());
        while let Some((part, rest)) = stream.split_at_checked(INTERVAL_BYTES) {
            sound.extend_from_slice(part);
            let length = usize::from(rest[0]) * 16;
            let note = String::from_utf8(rest[1..=length].to_vec()).unwrap();
            notes.extend(Some(note.trim_end_matches('\0').to_owned()).filter(|n| !n.is_empty()));
            stream = &rest[1 + length..];
        }
        sound.extend_from_slice(stream);
        (sound, notes)
    }

    #[test]
    fn notes_stand_at_every_interval_and_say_what_changed() {
        let sound: Vec<u8> = (0..100_000_u32).map(|byte| (byte % 251) as u8).collect();
        for step in [1, 417, INTERVAL_BYTES, 50_000] {
            let mut metadata = Metadata::new();
            let voice = |index: usize| if index < 50_000 { Some("stream_1") } else { None };
            let woven: Vec<u8> = sound
                .chunks(step)
                .enumerate()
                .flat_map(|(index, part)| metadata.weave(part, voice(index * step)))
                .collect();
            let (heard, notes) = unwoven(&woven);
            assert_eq!(heard, sound, "in steps of {step}");
            assert_eq!(notes, ["StreamTitle='stream_1';", "StreamTitle='';"]);
        }
    }

    #[test]
    fn a_title_cannot_leave_its_place() {
        let mut metadata = Metadata::new();
        let title = format!("a';StreamUrl='b\r\n{}", "x".repeat(9_000));
        let (_, notes) = unwoven(&metadata.weave(&[0; INTERVAL_BYTES + 1], Some(&title)));
        assert!(notes[0].starts_with("StreamTitle='aStreamUrl=bxxx"), "{}", notes[0]);
        assert_eq!((notes[0].len(), notes[0].matches('\'').count()), (255 * 16, 2));
    }
}
