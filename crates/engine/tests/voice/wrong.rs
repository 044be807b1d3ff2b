//! What clients should not do.

use engine::voice::{
    BadMessage, ClientMessage, ConnectionId, Named, ReceiverEvent, ServerMessage, ServerTrouble,
    VoiceId,
};

use crate::support::{SDP, World, error};

fn offer(voice: Named) -> ClientMessage {
    ClientMessage::Offer { sdp: SDP.to_owned(), voice }
}

fn answer(voice: Named) -> ClientMessage {
    ClientMessage::Answer { sdp: SDP.to_owned(), voice }
}

#[test]
fn what_cannot_be_understood_is_told_and_survived() {
    let mut world = World::new();
    let id = world.join(1);
    let sentence = || "the message cannot be understood".to_owned();
    world.relay.handle_message(id, Err(BadMessage(sentence())), 1, world.now);
    world.settle();
    let told = error(ServerTrouble::BadMessage(sentence()));
    assert_eq!(told, world.read(id)[0]);
    world.say(id, ClientMessage::Ping);
    assert_eq!(world.read(id), [ServerMessage::Pong]);
    assert_eq!(world.relay.figures().messages_bad, 1);
}

#[test]
fn an_offer_needs_a_start_and_an_answer_an_offer() {
    let mut world = World::new();
    let (one, sender) = (world.join(2), world.join(1));
    world.say(one, offer(Named::Nothing));
    assert_eq!(world.read(one), [error(ServerTrouble::NotSending)]);
    world.say(one, answer(Named::Nothing));
    assert_eq!(world.read(one), [error(ServerTrouble::NoOffer)]);

    world.speak(sender);
    world.receive(one);
    world.read(one);
    world.say(one, answer(Named::Nothing));
    assert_eq!(world.read(one), [error(ServerTrouble::NoOffer)], "no offer was made so far");
    world.connect_receiver(one);
    world.read(one);
    world.say(one, answer(Named::Nothing));
    assert_eq!(world.read(one), [error(ServerTrouble::NoOffer)], "it was answered before");
    assert_eq!(world.answered.len(), 1);
    world.stop(sender);
    world.read(sender);
    world.say(sender, offer(Named::Nothing));
    assert_eq!(world.read(sender), [error(ServerTrouble::NotSending)], "it has stopped");
}

#[test]
fn an_answer_that_is_refused_ends_its_session_and_no_other() {
    let mut world = World::new();
    let (one, two, sender) = (world.join(2), world.join(3), world.join(1));
    world.speak(sender);
    world.receive(one);
    let heard = world.connect_receiver(one);
    world.receive(two);
    let viewer = world.make_offer();
    world.say(two, answer(Named::Nothing));
    world.read_all();
    world.receiver(viewer, ReceiverEvent::Refused("the answer takes no sound".to_owned()));
    let refused = ServerTrouble::Refused("the answer takes no sound".to_owned());
    assert_eq!(world.read(two), [error(refused)]);
    assert_eq!(world.receivers.keys().copied().collect::<Vec<_>>(), [heard]);
}

#[test]
fn the_stream_of_somebody_else_is_left_alone() {
    let mut world = World::new();
    let (one, two, sender) = (world.join(2), world.join(3), world.join(1));
    world.speak(sender);
    world.receive(two);
    world.make_offer();
    world.read_all();
    let theirs = Named::Voice(VoiceId(sender));
    let nobodys = Named::Voice(VoiceId(ConnectionId(99)));
    for voice in [theirs, nobodys, Named::Nonsense] {
        for message in [
            ClientMessage::StopStream { voice },
            ClientMessage::StartSending { voice },
            offer(voice),
        ] {
            world.say(one, message);
            assert_eq!(world.read(one), [error(ServerTrouble::NotYours)]);
        }
    }
    world.say(two, answer(nobodys));
    assert_eq!(world.read(two), [error(ServerTrouble::NotYours)]);
    world.say(two, answer(theirs));
    assert_eq!(world.answered.len(), 1, "this is the one that it was offered");
    assert_eq!(world.relay.live().len(), 1);
}

#[test]
fn who_is_not_connected_is_passed_over() {
    let mut world = World::new();
    let stranger = ConnectionId(5);
    world.inboxes.insert(stranger, Vec::new());
    for message in [ClientMessage::Ping, ClientMessage::StartSending { voice: Named::Nothing }] {
        world.say(stranger, message);
    }
    world.relay.handle_disconnect(stranger);
    world.settle();
    assert_eq!((world.read(stranger), world.log.len()), (vec![], 0));
}
