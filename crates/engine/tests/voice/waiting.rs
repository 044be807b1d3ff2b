//! Receivers that were there first. Whatever a card does when its voice begins, it ends with one session
//! that is not disturbed.

use std::time::Duration;

use engine::voice::{
    ClientMessage, ConnectionId, Named, OWN_OFFER_DELAY, OWN_OFFER_TIME, ReceiverEvent, Trouble,
    VoiceId,
};
use media::peers::CloseReason;

use crate::support::{World, available, ended, error, offer_of};

const MOMENT: Duration = Duration::from_millis(50);

fn offers(world: &mut World, hearer: ConnectionId, sender: ConnectionId) -> usize {
    world.read(hearer).iter().filter(|message| **message == offer_of(sender)).count()
}

#[test]
fn a_receiver_without_a_voice_is_told_so_and_waits() {
    let mut world = World::new();
    let hearer = world.join(2);
    world.receive(hearer);
    assert_eq!(world.read(hearer), [error(Trouble::NoStream)]);
    assert_eq!(world.log, [format!("No audio stream available for receiver {hearer}")]);
    assert_eq!(world.relay.residue().waiting, 1);
}

#[test]
fn a_card_that_does_nothing_is_connected_by_itself() {
    let mut world = World::new();
    let (hearer, sender) = (world.join(2), world.join(1));
    world.receive(hearer);
    world.read(hearer);
    world.speak(sender);
    assert_eq!(world.read(hearer), [available(sender)]);
    world.pass(OWN_OFFER_DELAY - Duration::from_millis(1));
    assert!(world.receivers.is_empty(), "it is given time to ask by itself");
    world.pass(Duration::from_millis(1));
    world.connect_receiver(hearer);
    world.pass(Duration::from_secs(60));
    assert_eq!(offers(&mut world, hearer, sender), 1);
    assert_eq!(world.receivers.len(), 1);
}

#[test]
fn a_card_that_asks_when_it_is_told_gets_one_offer() {
    for wish in [Named::Nothing, Named::Voice(VoiceId(ConnectionId(1)))] {
        let mut world = World::new();
        let (hearer, sender) = (world.join(2), world.join(1));
        world.receive(hearer);
        world.speak(sender);
        world.pass(MOMENT);
        world.say(hearer, ClientMessage::StartReceiving { voice: wish });
        world.connect_receiver(hearer);
        world.pass(Duration::from_secs(60));
        assert_eq!(offers(&mut world, hearer, sender), 1);
        assert_eq!(world.receivers.len(), 1);
    }
}

#[test]
fn a_card_that_retries_every_two_seconds_gets_one_offer() {
    for after in [0, 100, 299, 300, 301, 700, 1_300, 1_999] {
        let mut world = World::new();
        let (hearer, sender) = (world.join(2), world.join(1));
        world.receive(hearer);
        world.pass(Duration::from_millis(2_000 - after));
        world.speak(sender);
        // The retry is on its way whatever comes meanwhile.
        let mut connected = None;
        let before = Duration::from_millis(after).min(OWN_OFFER_DELAY);
        world.pass(before);
        if !world.receivers.is_empty() {
            connected = Some(world.connect_receiver(hearer));
        }
        world.pass(Duration::from_millis(after) - before);
        world.receive(hearer);
        let viewer = connected.unwrap_or_else(|| world.connect_receiver(hearer));
        world.pass(Duration::from_secs(60));

        assert_eq!(offers(&mut world, hearer, sender), 1, "a voice {after} ms before the retry");
        assert_eq!(world.receivers.keys().copied().collect::<Vec<_>>(), [viewer]);
    }
}

#[test]
fn a_card_that_asks_late_and_throws_the_own_offer_away_hears_all_the_same() {
    let mut world = World::new();
    let (hearer, sender) = (world.join(2), world.join(1));
    world.receive(hearer);
    world.speak(sender);
    world.pass(OWN_OFFER_DELAY);
    let own = world.connect_receiver(hearer);
    world.pass(MOMENT);
    world.receive(hearer);
    world.receiver(own, ReceiverEvent::Closed(CloseReason::Peer));
    let viewer = world.connect_receiver(hearer);
    assert_ne!(own, viewer);
    assert_eq!(world.receivers.len(), 1);
}

#[test]
fn a_card_that_lets_the_own_offer_lie_and_asks_gets_another() {
    let mut world = World::new();
    let (hearer, sender) = (world.join(2), world.join(1));
    world.receive(hearer);
    world.speak(sender);
    world.pass(OWN_OFFER_DELAY);
    let own = world.make_offer();
    world.receive(hearer);
    world.pass(OWN_OFFER_TIME);
    let viewer = world.connect_receiver(hearer);
    assert_ne!(own, viewer);
    assert_eq!(world.receivers.len(), 1);
}

#[test]
fn a_voice_that_ends_at_once_lets_them_wait_on() {
    let mut world = World::new();
    let (hearer, sender) = (world.join(2), world.join(1));
    world.receive(hearer);
    world.speak(sender);
    world.pass(MOMENT);
    world.stop(sender);
    world.pass(Duration::from_secs(60));
    assert!(world.receivers.is_empty());
    world.read(hearer);

    world.speak(sender);
    world.pass(OWN_OFFER_DELAY);
    world.connect_receiver(hearer);
    assert_eq!(offers(&mut world, hearer, sender), 1);
}

#[test]
fn who_waits_for_one_voice_is_not_given_another() {
    let mut world = World::new();
    let (hearer, wanted, other) = (world.join(3), world.join(1), world.join(2));
    world.receive_voice(hearer, wanted);
    assert_eq!(world.read(hearer), [error(Trouble::NoStream)]);
    world.speak(other);
    world.pass(Duration::from_secs(5));
    assert!(world.receivers.is_empty());
    world.speak(wanted);
    world.pass(OWN_OFFER_DELAY);
    world.connect_receiver(hearer);
    assert_eq!(offers(&mut world, hearer, wanted), 1);
}

#[test]
fn who_stops_or_leaves_waits_no_more() {
    let mut world = World::new();
    let (one, two, sender) = (world.join(2), world.join(3), world.join(1));
    world.receive(one);
    world.receive(two);
    world.stop(one);
    world.leave(two);
    world.speak(sender);
    world.pass(Duration::from_secs(5));
    assert!(world.receivers.is_empty());
}

#[test]
fn a_stream_that_ended_is_named_as_ended_and_waited_for() {
    let mut world = World::new();
    let (hearer, sender) = (world.join(2), world.join(1));
    world.speak(sender);
    world.stop(sender);
    world.read_all();
    world.receive_voice(hearer, sender);
    assert_eq!(world.read(hearer), [error(Trouble::StreamEnded)]);
    assert_eq!(world.log, [format!("Stream stream_{sender} track is ended, cannot receive")]);
    world.speak(sender);
    world.pass(OWN_OFFER_DELAY);
    world.connect_receiver(hearer);
    world.read_all();
    world.stop(sender);
    assert_eq!(world.read(hearer), [error(Trouble::StreamEnded), ended(sender)]);
}

#[test]
fn who_hears_keeps_it_when_it_asks_for_what_is_not_there() {
    let mut world = World::new();
    let (hearer, sender, silent) = (world.join(2), world.join(1), world.join(3));
    world.speak(sender);
    world.receive(hearer);
    let viewer = world.connect_receiver(hearer);
    world.read(hearer);
    world.receive_voice(hearer, silent);
    world.say(hearer, ClientMessage::StartReceiving { voice: Named::Nonsense });
    assert_eq!(world.read(hearer), [error(Trouble::NoStream), error(Trouble::NoStream)]);
    assert_eq!(world.newest_receiver(), viewer);
}
