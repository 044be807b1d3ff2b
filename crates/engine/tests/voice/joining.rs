//! Who hears, in every order of coming and going.

use std::time::Duration;

use engine::voice::{
    ClientMessage, Named, ReceiverEvent, ServerMessage, ServerTrouble, Trouble, VoiceId,
};
use media::peers::CloseReason;

use crate::support::{SDP, World, ended, error, offer_of};

#[test]
fn several_receivers_hear_a_voice_that_is_there() {
    let mut world = World::new();
    let (sender, one, two) = (world.join(1), world.join(2), world.join(3));
    let stream = world.speak(sender);
    world.read_all();

    for id in [one, two] {
        world.receive(id);
        let viewer = world.connect_receiver(id);
        assert_eq!(world.receivers[&viewer], stream);
        assert_eq!(world.read(id), [offer_of(sender)]);
    }

    assert_eq!(world.receivers.len(), 2);
    assert_eq!(world.answered.len(), 2);
    assert_eq!(
        world.log,
        [
            format!("Sent offer to receiver {one} for stream stream_{sender}"),
            format!("ICE connection state for receiver {one}: connected"),
            format!("Sent offer to receiver {two} for stream stream_{sender}"),
            format!("ICE connection state for receiver {two}: connected"),
        ]
    );
    world.leave(sender);
    for id in [one, two] {
        assert_eq!(world.read(id), [error(Trouble::StreamEnded), ended(sender)]);
    }
    assert!(world.receivers.is_empty() && world.senders.is_empty());
}

#[test]
fn a_receiver_without_a_wish_hears_the_newest_and_stays_there() {
    let mut world = World::new();
    let (first, second, hearer) = (world.join(1), world.join(2), world.join(3));
    world.speak(first);
    let newest = world.speak(second);
    world.receive(hearer);
    let viewer = world.connect_receiver(hearer);
    assert_eq!(world.receivers[&viewer], newest);

    let third = world.join(4);
    world.speak(third);
    world.pass(Duration::from_secs(10));
    assert_eq!(world.receivers[&viewer], newest);
}

#[test]
fn a_receiver_switches_streams_on_one_websocket() {
    let mut world = World::new();
    let (first, second, hearer) = (world.join(1), world.join(2), world.join(3));
    let (one, two) = (world.speak(first), world.speak(second));
    world.receive_voice(hearer, first);
    let before = world.connect_receiver(hearer);
    assert_eq!(world.receivers[&before], one);
    world.read(hearer);

    world.receive_voice(hearer, second);
    let after = world.connect_receiver(hearer);
    assert_eq!(world.receivers[&after], two);
    assert_eq!(world.receivers.len(), 1, "the old session is closed");
    assert_eq!(world.read(hearer), [offer_of(second)]);

    world.leave(first);
    assert_eq!(world.read(hearer), [ended(first)], "what it does not hear is no error");
    world.receiver(before, ReceiverEvent::Closed(CloseReason::Asked));
    assert_eq!(world.receivers.len(), 1, "news of the old session change nothing");
}

#[test]
fn stop_and_start_again_is_a_fresh_session() {
    let mut world = World::new();
    let (sender, hearer) = (world.join(1), world.join(2));
    world.speak(sender);
    world.receive(hearer);
    let before = world.connect_receiver(hearer);
    world.stop(hearer);
    assert!(world.receivers.is_empty());
    assert_eq!(world.relay.live().len(), 1, "it stopped only its own");

    world.receive(hearer);
    let after = world.connect_receiver(hearer);
    assert_ne!(before, after);
    assert_eq!(world.relay.residue().receivers, 1);
}

#[test]
fn a_connection_speaks_and_hears_at_once() {
    let mut world = World::new();
    let (one, two) = (world.join(1), world.join(2));
    world.speak(one);
    world.speak(two);
    world.receive_voice(one, two);
    world.connect_receiver(one);
    world.receive_voice(two, one);
    world.connect_receiver(two);
    world.read_all();

    world.say(one, ClientMessage::StopStream { voice: Named::Voice(VoiceId(two)) });
    assert_eq!((world.relay.live().len(), world.receivers.len()), (2, 1), "it listens no more");
    world.say(one, ClientMessage::StopStream { voice: Named::Voice(VoiceId(one)) });
    assert_eq!((world.relay.live().len(), world.receivers.len()), (1, 0), "it speaks no more");
    assert_eq!(world.read(two), [error(Trouble::StreamEnded), ended(one)]);
    assert_eq!(world.read(one), [ended(one)]);
}

#[test]
fn a_button_pressed_twice_does_not_disturb() {
    let mut world = World::new();
    let (sender, hearer) = (world.join(1), world.join(2));
    world.speak(sender);
    world.read_all();
    world.receive(hearer);
    world.receive(hearer);
    world.receive_voice(hearer, sender);
    let viewer = world.connect_receiver(hearer);
    world.receive(hearer);
    world.pass(Duration::from_secs(60));
    assert_eq!(world.read(hearer), [offer_of(sender)], "one offer");
    assert_eq!(world.newest_receiver(), viewer);

    world.receive(hearer);
    assert_ne!(world.newest_receiver(), viewer, "later it wants a fresh one");
    assert_eq!(world.receivers.len(), 1);
}

#[test]
fn who_asked_twice_and_threw_its_first_session_away_is_offered_anew() {
    let mut world = World::new();
    let (sender, hearer) = (world.join(1), world.join(2));
    world.speak(sender);
    world.receive(hearer);
    let thrown_away = world.connect_receiver(hearer);
    world.receive(hearer);
    world.receiver(thrown_away, ReceiverEvent::Closed(CloseReason::Peer));
    assert_ne!(world.newest_receiver(), thrown_away);

    let unanswered = world.make_offer();
    world.receive(hearer);
    world.pass(Duration::from_secs(1));
    assert_ne!(world.newest_receiver(), unanswered);
    assert_eq!(world.receivers.len(), 1);
}

#[test]
fn a_receiver_that_ends_its_connection_is_not_called_back() {
    let mut world = World::new();
    let (sender, hearer) = (world.join(1), world.join(2));
    world.speak(sender);
    world.receive(hearer);
    let viewer = world.connect_receiver(hearer);
    world.read_all();
    world.receiver(viewer, ReceiverEvent::Closed(CloseReason::Peer));
    world.pass(Duration::from_secs(60));
    assert_eq!((world.read(hearer), world.receivers.len()), (vec![], 0));
    assert_eq!(world.log, [format!("ICE connection state for receiver {hearer}: closed")]);
}

#[test]
fn who_does_not_connect_in_time_is_told_and_cleaned_up() {
    let mut world = World::new();
    let (sender, hearer) = (world.join(1), world.join(2));
    world.speak(sender);
    world.receive(hearer);
    world.make_offer();
    world.read_all();
    world.pass(Duration::from_secs(30));
    assert_eq!(world.read(hearer), [error(ServerTrouble::Timeout(30))]);
    assert_eq!((world.receivers.len(), world.relay.residue().timers), (0, 0));

    world.receive(hearer);
    let viewer = world.make_offer();
    world.read(hearer);
    world.receiver(viewer, ReceiverEvent::Closed(CloseReason::NeverConnected));
    assert_eq!(world.read(hearer), [error(ServerTrouble::Timeout(30))]);
    assert_eq!(world.relay.figures().timeouts, 2);
}

#[test]
fn a_lost_connection_is_told() {
    let mut world = World::new();
    let (sender, hearer) = (world.join(1), world.join(2));
    world.speak(sender);
    world.receive(hearer);
    let viewer = world.connect_receiver(hearer);
    world.read(hearer);
    world.receiver(viewer, ReceiverEvent::Closed(CloseReason::ConsentExpired));
    assert_eq!(world.read(hearer), [error(ServerTrouble::Lost)]);
}

#[test]
fn a_voice_that_ends_while_its_offer_is_made_leaves_nothing() {
    let mut world = World::new();
    let (sender, hearer) = (world.join(1), world.join(2));
    let stream = world.speak(sender);
    world.receive(hearer);
    let viewer = world.newest_receiver();
    world.read_all();
    world.pull_cable(stream);
    assert_eq!(world.read(hearer), [error(Trouble::StreamEnded), ended(sender)]);
    world.receivers.insert(viewer, stream);
    world.receiver(viewer, ReceiverEvent::Offered { sdp: SDP.to_owned() });
    assert_eq!((world.receivers.len(), world.read(hearer).len()), (0, 0));
}

#[test]
fn no_offer_to_be_had_is_told() {
    let mut world = World::new();
    let (sender, hearer) = (world.join(1), world.join(2));
    world.speak(sender);
    world.receive(hearer);
    world.read(hearer);
    let viewer = world.newest_receiver();
    world.receiver(viewer, ReceiverEvent::NotOffered);
    assert_eq!(world.read(hearer), [error(ServerTrouble::NoOfferMade)]);
}

#[test]
fn lists_and_pings_are_answered() {
    let mut world = World::new();
    let (one, two) = (world.join(1), world.join(2));
    world.speak(two);
    world.speak(one);
    world.read_all();
    world.say(one, ClientMessage::ListStreams);
    world.say(one, ClientMessage::Ping);
    world.say(one, ClientMessage::LocalIp);
    world.say(one, ClientMessage::Candidate);
    let streams = ServerMessage::AvailableStreams(vec![VoiceId(two), VoiceId(one)]);
    assert_eq!(world.read(one), [streams, ServerMessage::Pong]);
    assert_eq!(world.read(two), []);
}
