//! Clients that send more than anybody needs.

use std::time::Duration;

use engine::voice::{ClientMessage, CloseCode, Named, ServerMessage, ServerTrouble};

use crate::support::{FIRST_VIEWER, World, ended, error};

/// More messages than a client may ever send at once.
const FLOOD: usize = 1_000;

#[test]
fn a_flood_is_told_once_and_ends_the_connection_alone() {
    let mut world = World::new();
    let (flooder, other) = (world.join(1), world.join(2));
    world.speak(flooder);
    world.read_all();
    for _ in 0..FLOOD {
        world.say(flooder, ClientMessage::Ping);
    }

    assert_eq!(world.closed.get(&flooder), Some(&CloseCode::Policy));
    let told = world.read(flooder);
    let floods = told.iter().filter(|message| **message == error(ServerTrouble::Flood)).count();
    let pongs = told.iter().filter(|message| **message == ServerMessage::Pong).count();
    assert_eq!(floods, 1);
    assert!((100..FLOOD / 2).contains(&pongs), "{pongs} pongs");
    assert_eq!(world.read(other), [ended(flooder)], "its voice ended with it");
    assert_eq!(world.relay.residue().connections, 1);
    assert_eq!(world.relay.figures().flooded, 1);
    world.say(other, ClientMessage::Ping);
    assert_eq!(world.read(other), [ServerMessage::Pong]);
}

#[test]
fn a_flood_of_starts_makes_the_media_plane_work_a_few_times() {
    let mut world = World::new();
    let (flooder, sender) = (world.join(2), world.join(1));
    world.speak(sender);
    let silent = world.join(3);
    world.speak(silent);
    let mut sessions = 0;
    for number in 0..FLOOD {
        world.receive_voice(flooder, if number % 2 == 0 { sender } else { silent });
        if !world.closed.is_empty() {
            break;
        }
        sessions = world.newest_receiver().0 - FIRST_VIEWER.0;
    }
    assert!(sessions <= 50, "{sessions} offers");
    assert_eq!(world.closed.get(&flooder), Some(&CloseCode::Policy));
}

#[test]
fn what_cards_send_is_no_flood() {
    let mut world = World::new();
    let (hearer, sender) = (world.join(2), world.join(1));
    for _ in 0..60 {
        world.receive(hearer);
        world.say(hearer, ClientMessage::Ping);
        world.pass(Duration::from_secs(2));
    }
    for _ in 0..20 {
        world.say(sender, ClientMessage::StartSending { voice: Named::Nothing });
        for _ in 0..30 {
            world.say(sender, ClientMessage::Candidate);
        }
        world.pass(Duration::from_secs(1));
        world.stop(sender);
    }
    assert!(world.closed.is_empty());
    assert_eq!(world.relay.figures().messages_dropped, 0);
}

#[test]
fn large_messages_are_a_flood_sooner() {
    let mut world = World::new();
    let id = world.join(1);
    let large = 1024 * 1024;
    let read = (0..FLOOD).take_while(|_| {
        world.relay.handle_message(id, Ok(ClientMessage::Ping), large, world.now);
        world.settle();
        world.read(id) == [ServerMessage::Pong]
    });
    assert_eq!(read.count(), 3);
}
