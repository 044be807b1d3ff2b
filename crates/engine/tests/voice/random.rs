//! Anything that can happen, in any order.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::time::Duration;

use engine::voice::{
    ClientMessage, ConnectionId, Named, ReceiverEvent, Residue, SenderEvent, ServerMessage, VoiceId,
};
use media::peers::CloseReason;
use media::publishers::PublisherEnd;
use proptest::prelude::*;

use crate::support::{SDP, World};

/// Clients in a run; few, so that they meet.
const CLIENTS: u8 = 5;

#[derive(Debug, Clone)]
enum Step {
    Join(u8),
    Leave(u8),
    Say(u8, Said),
    /// The n-th session of those that the media plane holds, modulo their number.
    Sender(u8, SenderEvent),
    Receiver(u8, ReceiverEvent),
    Pass(u16),
}

#[derive(Debug, Clone)]
enum Said {
    StartSending,
    Offer,
    StartReceiving,
    Hear(u8),
    Answer,
    Stop,
    StopVoice(u8),
    Other,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let sdp = || SDP.to_owned();
    let said = prop_oneof![
        2 => Just(Said::StartSending),
        4 => Just(Said::Offer),
        4 => Just(Said::StartReceiving),
        3 => (0..CLIENTS).prop_map(Said::Hear),
        5 => Just(Said::Answer),
        2 => Just(Said::Stop),
        1 => (0..CLIENTS).prop_map(Said::StopVoice),
        1 => Just(Said::Other),
    ];
    let sender = prop_oneof![
        4 => Just(SenderEvent::Accepted { sdp: sdp() }),
        1 => Just(SenderEvent::Refused("no".to_owned())),
        4 => Just(SenderEvent::Connected),
        6 => Just(SenderEvent::Began),
        1 => Just(SenderEvent::Ended(PublisherEnd::Peer)),
        1 => Just(SenderEvent::Ended(PublisherEnd::Silent)),
        1 => Just(SenderEvent::Ended(PublisherEnd::NeverConnected)),
    ];
    let receiver = prop_oneof![
        6 => Just(ReceiverEvent::Offered { sdp: sdp() }),
        1 => Just(ReceiverEvent::NotOffered),
        3 => Just(ReceiverEvent::Answered),
        1 => Just(ReceiverEvent::Refused("no".to_owned())),
        4 => Just(ReceiverEvent::Connected),
        1 => Just(ReceiverEvent::Closed(CloseReason::Peer)),
        1 => Just(ReceiverEvent::Closed(CloseReason::ConsentExpired)),
    ];
    let step = prop_oneof![
        2 => (0..CLIENTS).prop_map(Step::Join),
        1 => (0..CLIENTS).prop_map(Step::Leave),
        10 => (0..CLIENTS, said).prop_map(|(id, said)| Step::Say(id, said)),
        6 => (any::<u8>(), sender).prop_map(|(at, event)| Step::Sender(at, event)),
        6 => (any::<u8>(), receiver).prop_map(|(at, event)| Step::Receiver(at, event)),
        4 => (0_u16..5_000).prop_map(Step::Pass),
    ];
    prop::collection::vec(step, 1..200)
}

fn id(number: u8) -> ConnectionId {
    ConnectionId(u128::from(number))
}

fn message(said: &Said) -> ClientMessage {
    let nothing = Named::Nothing;
    match said {
        Said::StartSending => ClientMessage::StartSending { voice: nothing },
        Said::Offer => ClientMessage::Offer { sdp: SDP.to_owned(), voice: nothing },
        Said::StartReceiving => ClientMessage::StartReceiving { voice: nothing },
        Said::Hear(of) => ClientMessage::StartReceiving { voice: Named::Voice(VoiceId(id(*of))) },
        Said::Answer => ClientMessage::Answer { sdp: SDP.to_owned(), voice: nothing },
        Said::Stop => ClientMessage::StopStream { voice: nothing },
        Said::StopVoice(of) => ClientMessage::StopStream { voice: Named::Voice(VoiceId(id(*of))) },
        Said::Other => ClientMessage::Ping,
    }
}

fn take(world: &mut World, step: &Step) {
    match step {
        Step::Join(number) if !world.inboxes.contains_key(&id(*number)) => {
            world.closed.remove(&id(*number));
            world.join_from(u128::from(*number), Ipv4Addr::LOCALHOST);
        }
        Step::Join(_) => {}
        Step::Leave(number) => world.leave(id(*number)),
        Step::Say(number, said) => world.say(id(*number), message(said)),
        Step::Sender(at, event) => {
            let sessions: Vec<_> = world.senders.iter().copied().collect();
            if let Some(stream) = sessions.get(usize::from(*at) % sessions.len().max(1)) {
                world.sender(*stream, event.clone());
            }
        }
        Step::Receiver(at, event) => {
            let sessions: Vec<_> = world.receivers.keys().copied().collect();
            if let Some(viewer) = sessions.get(usize::from(*at) % sessions.len().max(1)) {
                world.receiver(*viewer, event.clone());
            }
        }
        Step::Pass(ms) => world.pass(Duration::from_millis(u64::from(*ms))),
    }
}

/// What each client has been told of voices, which must be what is there.
#[derive(Default)]
struct Books(BTreeMap<ConnectionId, BTreeSet<VoiceId>>);

impl Books {
    fn read(&mut self, world: &mut World) {
        self.0.retain(|id, _| world.inboxes.contains_key(id));
        let clients: Vec<ConnectionId> = world.inboxes.keys().copied().collect();
        for client in clients {
            let known = self.0.entry(client).or_default();
            for message in world.read(client) {
                match message {
                    ServerMessage::AvailableStreams(voices) => {
                        let listed: BTreeSet<VoiceId> = voices.into_iter().collect();
                        assert!(known.is_empty() || *known == listed);
                        *known = listed;
                    }
                    ServerMessage::StreamAvailable(voice) => {
                        assert!(known.insert(voice), "{voice} is told twice");
                    }
                    ServerMessage::StreamEnded(voice) => {
                        assert!(known.remove(&voice), "{voice} ended without having begun");
                    }
                    ServerMessage::SenderReady { .. }
                    | ServerMessage::Answer { .. }
                    | ServerMessage::Offer { .. }
                    | ServerMessage::Level { .. }
                    | ServerMessage::Pong
                    | ServerMessage::Error(_) => {}
                }
            }
            let live: BTreeSet<VoiceId> = world.relay.live().iter().map(|l| l.voice).collect();
            assert_eq!(*known, live, "{client} knows what is there");
        }
    }
}

proptest! {
    #[test]
    fn books_and_sessions_are_right_after_every_step(steps in steps()) {
        let mut world = World::new();
        let mut books = Books::default();
        for step in &steps {
            take(&mut world, step);
            // A client that floods is closed; its socket goes with it.
            for id in world.closed.keys() {
                world.inboxes.remove(id);
            }
            books.read(&mut world);
            let residue = world.relay.residue();
            prop_assert_eq!(residue.senders, world.senders.len());
            prop_assert_eq!(residue.receivers, world.receivers.len());
            prop_assert!(residue.connections <= usize::from(CLIENTS));
        }
        // Whoever may hear something and waits for the newest is offered it in a moment.
        world.pass(Duration::from_secs(1));
        for number in 0..CLIENTS {
            world.leave(id(number));
        }
        prop_assert_eq!(world.relay.residue(), Residue::default());
        prop_assert!(world.senders.is_empty() && world.receivers.is_empty());
        let figures = world.relay.figures();
        let told = world.log.iter().filter(|line| line.starts_with("Audio track ended")).count();
        prop_assert_eq!(figures.voices, told as u64);
    }
}
