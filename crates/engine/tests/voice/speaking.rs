//! Who speaks, from `start_sending` to the end of its voice.

use std::time::Duration;

use control::Timestamp;
use engine::voice::{ClientMessage, Named, SenderEvent, ServerMessage, ServerTrouble, VoiceId};
use media::AudioLevel;
use media::publishers::PublisherEnd;

use crate::support::{SDP, World, available, ended, error};

#[test]
fn a_voice_is_told_to_all_at_its_first_packet_and_at_its_end() {
    let mut world = World::new();
    let (sender, other) = (world.join(1), world.join(2));

    let stream = world.offer(sender);
    assert_eq!(world.read(sender), [ServerMessage::SenderReady { connection: sender }]);
    world.sender(stream, SenderEvent::Accepted { sdp: "answer".to_owned() });
    assert_eq!(world.read(sender), [ServerMessage::Answer { sdp: "answer".to_owned() }]);
    world.sender(stream, SenderEvent::Connected);
    assert_eq!(world.read(other), [], "there is nothing to hear so far");
    world.sender(stream, SenderEvent::Began);

    assert_eq!(world.read(sender), [available(sender)]);
    assert_eq!(world.read(other), [available(sender)]);
    let late = world.join_from(3, [10, 0, 0, 1].into());
    assert_eq!(world.read(late), [ServerMessage::AvailableStreams(vec![VoiceId(sender)])]);

    world.stop(sender);
    for id in [sender, other, late] {
        assert_eq!(world.read(id), [ended(sender)]);
    }
    assert!(world.senders.is_empty());
    assert_eq!(world.relay.residue().timers, 0);
}

#[test]
fn log_lines_are_those_that_operators_look_for() {
    let mut world = World::new();
    let sender = world.join(0xabc);
    let stream = world.speak(sender);
    world.pull_cable(stream);
    world.leave(sender);

    let id = "00000000-0000-0000-0000-000000000abc";
    assert_eq!(
        world.log,
        [
            format!("Setting up sender for connection {id}"),
            format!("ICE connection state for sender {id}: connected"),
            format!("Received audio track from sender {id}"),
            format!("Stored stream stream_{id} for sender {id}"),
            format!("ICE connection state for sender {id}: failed"),
            format!("Audio track ended for {id}"),
            format!("Cleaning up stale stream: stream_{id}"),
            format!("Cleaning up connection {id}"),
        ]
    );
}

#[test]
fn who_starts_again_has_a_fresh_session_and_the_same_name() {
    let mut world = World::new();
    let (sender, other) = (world.join(1), world.join(2));
    let first = world.speak(sender);
    world.read_all();

    let second = world.speak(sender);

    assert_ne!(first, second);
    assert_eq!(world.read(other), [ended(sender), available(sender)]);
    assert_eq!(world.senders.len(), 1);
    world.sender(first, SenderEvent::Ended(PublisherEnd::Asked));
    assert_eq!(world.read(other), [], "the end of the old session is old news");
    assert_eq!(world.relay.live()[0].stream, second);
}

#[test]
fn another_offer_without_another_start_is_a_fresh_session_too() {
    let mut world = World::new();
    let sender = world.join(1);
    let first = world.offer(sender);
    world.say(sender, ClientMessage::Offer { sdp: SDP.to_owned(), voice: Named::Nothing });
    let second = *world.senders.last().unwrap();
    assert_ne!(first, second);

    world.senders.insert(first);
    world.sender(first, SenderEvent::Accepted { sdp: SDP.to_owned() });
    assert!(!world.senders.contains(&first), "an answer that comes too late is closed");
    world.sender(second, SenderEvent::Accepted { sdp: SDP.to_owned() });
    assert!(world.senders.contains(&second));
}

#[test]
fn a_refused_offer_is_told_and_may_be_followed_by_a_better_one() {
    let mut world = World::new();
    let sender = world.join(1);
    let stream = world.offer(sender);
    world.read(sender);
    world.sender(stream, SenderEvent::Refused("the offer has no Opus".to_owned()));
    assert_eq!(
        world.read(sender),
        [error(ServerTrouble::Refused("the offer has no Opus".to_owned()))]
    );
    world.say(sender, ClientMessage::Offer { sdp: SDP.to_owned(), voice: Named::Nothing });
    assert_eq!((world.senders.len(), world.read(sender)), (1, vec![]));
}

#[test]
fn who_does_not_connect_in_time_is_told_and_cleaned_up() {
    let mut world = World::new();
    let sender = world.join(1);
    let stream = world.offer(sender);
    world.sender(stream, SenderEvent::Accepted { sdp: SDP.to_owned() });
    world.read(sender);
    world.pass(Duration::from_millis(29_999));
    assert_eq!(world.read(sender), []);
    world.pass(Duration::from_millis(1));
    assert_eq!(world.read(sender), [error(ServerTrouble::Timeout(30))]);
    assert!(world.senders.is_empty());

    let stream = world.offer(sender);
    world.sender(stream, SenderEvent::Accepted { sdp: SDP.to_owned() });
    world.sender(stream, SenderEvent::Connected);
    world.read(sender);
    world.pass(Duration::from_secs(3600));
    assert_eq!(world.read(sender), [], "who is connected may be silent for long");
}

#[test]
fn a_sender_whose_network_is_gone_is_told_should_it_hear() {
    let mut world = World::new();
    let sender = world.join(1);
    let stream = world.speak(sender);
    world.read(sender);
    world.pull_cable(stream);
    assert_eq!(world.read(sender), [ended(sender), error(ServerTrouble::Lost)]);
}

#[test]
fn levels_go_to_all_while_the_voice_lives() {
    let mut world = World::new();
    let (sender, other) = (world.join(1), world.join(2));
    let level = AudioLevel { below_full: 30, voice: None };
    let at = Timestamp::from_millis(5);
    let event = || SenderEvent::Level { level, at };
    let stream = world.offer(sender);
    world.sender(stream, event());
    assert_eq!(world.read(other), [], "before its voice");
    world.sender(stream, SenderEvent::Began);
    world.sender(stream, event());
    let told = ServerMessage::Level { voice: VoiceId(sender), level, at };
    assert_eq!(world.read(other), [available(sender), told]);
    world.stop(sender);
    world.sender(stream, event());
    assert_eq!(world.read(other), [ended(sender)], "after it");
}

#[test]
fn sound_before_the_end_of_dtls_is_told_begins_the_voice_once() {
    let mut world = World::new();
    let sender = world.join(1);
    let stream = world.offer(sender);
    world.sender(stream, SenderEvent::Accepted { sdp: SDP.to_owned() });
    world.sender(stream, SenderEvent::Began);
    world.sender(stream, SenderEvent::Connected);
    world.sender(stream, SenderEvent::Began);
    assert_eq!(world.relay.live().len(), 1);
    assert_eq!(world.relay.figures().voices, 1);
    world.pass(Duration::from_secs(60));
    assert_eq!(world.relay.live().len(), 1);
}
