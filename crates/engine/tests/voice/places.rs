//! More clients than places.

use std::net::Ipv4Addr;

use engine::voice::{CloseCode, ConnectionId, ServerMessage, ServerTrouble};

use crate::support::{World, error};

const HOME: Ipv4Addr = Ipv4Addr::new(192, 168, 1, 7);
const GREEDY: Ipv4Addr = Ipv4Addr::new(192, 168, 1, 66);

#[test]
fn who_finds_all_places_taken_is_told_and_closed() {
    let mut world = World::with_places(2);
    let (one, two) = (world.join_from(1, HOME), world.join_from(2, GREEDY));
    let third = world.join_from(3, HOME);

    assert_eq!(world.closed.keys().copied().collect::<Vec<_>>(), [third]);
    assert_eq!(world.closed[&third], CloseCode::TryAgainLater);
    assert_eq!(world.read(third), [error(ServerTrouble::Full(2))]);
    let text = ServerTrouble::Full(2).to_string();
    assert!(text.starts_with("all 2 places for clients are taken"), "{text}");
    assert_eq!(world.log, [format!("Refusing a connection from {HOME}: all 2 places are taken")]);
    for id in [one, two] {
        assert_eq!(world.read(id), [ServerMessage::AvailableStreams(vec![])]);
    }
    world.leave(third);
    world.leave(one);
    let fourth = world.join_from(4, HOME);
    assert_eq!(world.read(fourth), [ServerMessage::AvailableStreams(vec![])]);
}

#[test]
fn an_idle_client_of_a_greedy_address_gives_way() {
    let mut world = World::with_places(4);
    let speaker = world.join_from(10, GREEDY);
    world.speak(speaker);
    let waiting = world.join_from(11, GREEDY);
    world.receive_voice(waiting, ConnectionId(77));
    let idle = [world.join_from(12, GREEDY), world.join_from(13, GREEDY)];
    world.read_all();

    let newcomer = world.join_from(1, HOME);
    assert_eq!(world.read(newcomer).len(), 1, "it is let in and told of the voice");
    let gone: Vec<ConnectionId> = world.closed.keys().copied().collect();
    assert!(idle.contains(&gone[0]), "{gone:?}");
    assert_eq!(world.read(gone[0]), [error(ServerTrouble::GaveWay)]);
    world.leave(gone[0]);

    let second = world.join_from(2, HOME);
    assert_eq!(world.read(second).len(), 1, "three are more than two");
    assert!(idle.iter().all(|id| world.closed.contains_key(id)), "before the one that waits");
    let third = world.join_from(3, HOME);
    assert_eq!(world.closed.get(&third), Some(&CloseCode::TryAgainLater), "two are not");
    assert_eq!(world.relay.live().len(), 1);
}

#[test]
fn nobody_who_hears_or_speaks_gives_way() {
    let mut world = World::with_places(3);
    let speaker = world.join_from(10, GREEDY);
    world.speak(speaker);
    for number in [11, 12] {
        let hearer = world.join_from(number, GREEDY);
        world.receive(hearer);
        world.connect_receiver(hearer);
    }
    let newcomer = world.join_from(1, HOME);
    assert_eq!(world.closed.keys().copied().collect::<Vec<_>>(), [newcomer]);
}

#[test]
fn a_thousand_sockets_of_one_address_leave_room_for_others() {
    let mut world = World::with_places(50);
    for number in 0..1_000 {
        world.join_from(1_000 + number, GREEDY);
    }
    assert_eq!(world.relay.residue().connections, 50);
    for number in 0..10 {
        let address = Ipv4Addr::new(192, 168, 1, 100 + u8::try_from(number).unwrap());
        let id = world.join_from(number, address);
        assert_eq!(world.read(id), [ServerMessage::AvailableStreams(vec![])]);
    }
    assert_eq!(world.relay.residue().connections, 50);
}
