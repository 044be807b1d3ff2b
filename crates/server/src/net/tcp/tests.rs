//! The TCP port as clients reach it.

use std::io::{Read, Write};

use std::time::Instant;

use media::batch::{ConnectionId, Run};
use media::framing::put_frame;

use super::super::sys::UdpPort;
use super::connection::MAX_WAITING_BYTES;
use super::connections::{MAX_STRANGERS, MAX_STRANGERS_AN_ADDRESS};
use super::*;
use crate::admission::Full;

const PATIENCE: Duration = Duration::from_secs(20);

/// A port with one worker, whose inputs nobody else takes.
struct World {
    connections: Connections,
    address: SocketAddr,
    inputs: Receiver<WorkerInput>,
    ended: Receiver<()>,
}

impl World {
    fn start() -> Self {
        let loopback = SocketAddr::from(([127, 0, 0, 1], 0));
        let (worker, inputs) = WorkerHandle::new(UdpPort::bind(loopback).unwrap()).unwrap();
        let listener = bind(loopback).unwrap();
        let address = listener.local_addr().unwrap();
        let connections = Connections::new();
        let port = TcpPort {
            connections: connections.clone(),
            handshakes: Handshakes::new(1).0,
            publishers: Publishers::new(1).0,
            workers: vec![worker],
            patience: Patience::default(),
        };
        let ended = port.start(vec![listener], ()).unwrap();
        Self { connections, address, inputs, ended }
    }

    /// A viewer's socket, and our end of it, as if an authentic check had come.
    fn connect(&self) -> (std::net::TcpStream, Arc<Connection>) {
        let known = self.connections.figures().accepted;
        let stream = std::net::TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        until(|| self.connections.figures().accepted > known);
        let id = ConnectionId(known + 1);
        self.connections.note_check(id);
        (stream, self.connections.find(id).unwrap())
    }
}

fn until(done: impl Fn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !done() {
        assert!(Instant::now() < deadline, "it did not come about");
        thread::yield_now();
    }
}

/// Eight packets as a worker hands them over.
fn picture(connection: &Connection, number: u8) -> (Run, Vec<u8>) {
    let route = Route::new(connection.local, connection.transport_remote());
    let bytes = vec![number; 8 * 1_200];
    (Run { route, start: 0, len: bytes.len(), segment: 1_200, count: 8 }, bytes)
}

fn send(connection: &Connection, number: u8) -> Delivery {
    let (run, bytes) = picture(connection, number);
    connection.send_run(&run, &bytes)
}

#[test]
fn a_viewer_that_does_not_read_fills_its_queue_and_no_other() {
    let world = World::start();
    let (mut slow, slows) = world.connect();
    let (mut quick, quicks) = world.connect();
    let mut taken = 0;
    // More than the kernel's buffers of both ends and the queue together.
    for number in 0..=u8::MAX {
        for _ in 0..20 {
            taken += u64::from(send(&slows, number) != Delivery::Refused);
            assert!(slows.waiting_bytes.load(Ordering::Relaxed) <= MAX_WAITING_BYTES);
        }
    }
    assert_eq!(send(&slows, 0), Delivery::Refused);
    assert_eq!(send(&quicks, 7), Delivery::Taken);
    let mut arrived = [0; 8 * 1_202];
    quick.read_exact(&mut arrived).unwrap();
    assert_eq!(arrived[..3], [1_200_u16.to_be_bytes()[0], 1_200_u16.to_be_bytes()[1], 7]);

    // What was taken arrives whole, and the worker hears of the room.
    let (mut deframer, mut packets, mut buffer) = (Deframer::default(), 0, [0; 60_000]);
    while packets < taken * 8 {
        let len = slow.read(&mut buffer).unwrap();
        deframer
            .push(&buffer[..len], |packet| {
                assert!(packet.len() == 1_200 && packet.iter().all(|byte| *byte == packet[0]));
                packets += 1;
            })
            .unwrap();
    }
    let told = world.inputs.recv_timeout(PATIENCE).unwrap();
    let remote = slows.transport_remote();
    assert!(matches!(told, WorkerInput::Drained(drained) if drained == remote));
    assert_eq!(send(&slows, 1), Delivery::Taken);
}

#[tokio::test]
async fn a_viewer_that_takes_next_to_nothing_is_cut_off() {
    let loopback = SocketAddr::from(([127, 0, 0, 1], 0));
    let (worker, _inputs) = WorkerHandle::new(UdpPort::bind(loopback).unwrap()).unwrap();
    let patience = Patience { stall: PATIENCE, drain: Duration::from_millis(500) };
    let port = TcpPort {
        connections: Connections::new(),
        handshakes: Handshakes::new(1).0,
        publishers: Publishers::new(1).0,
        workers: vec![worker],
        patience,
    };
    let listener = TcpListener::bind(loopback).await.unwrap();
    let mut viewer = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let (mut stream, remote) = listener.accept().await.unwrap();
    let (connection, queued) = port.connections.admit(remote, loopback).unwrap();
    let (_reader, writer) = stream.split();
    let mut outgoing = Outgoing { queued, writer, begun: Vec::new(), written: 0 };
    let crawls = async {
        // More than the kernel's buffers of both ends take, and the queue full behind it.
        for number in 0..=u8::MAX {
            for _ in 0..20 {
                send(&connection, number);
            }
            tokio::task::yield_now().await;
        }
        // Every run of packets is taken long before it counts as stalled.
        let begin = Instant::now();
        while begin.elapsed() < 6 * patience.drain {
            viewer.read_exact(&mut [0; 1_000]).await.unwrap();
            tokio::time::sleep(patience.drain / 50).await;
        }
    };
    let end = tokio::select! {
        end = port.write(&connection, &mut outgoing) => Some(end),
        () = crawls => None,
    };
    assert_eq!(end, Some(End::Stalled));
}

#[test]
fn a_goodbye_leaves_before_the_connection_is_closed() {
    let world = World::start();
    let (mut viewer, connection) = world.connect();
    send(&connection, 9);
    world.connections.close(connection.id);
    let mut received = Vec::new();
    viewer.read_to_end(&mut received).unwrap();
    assert_eq!(received.len(), 8 * 1_202);
    until(|| world.connections.figures().open == 0);
    assert_eq!(send(&connection, 9), Delivery::Refused);
    world.connections.end();
    assert!(world.ended.recv_timeout(PATIENCE).is_err(), "the thread ends");
}

#[test]
fn feedback_of_strangers_is_dropped_where_it_lands() {
    let world = World::start();
    let mut report = Vec::new();
    put_frame(&[128, 201, 0, 1, 0, 0, 0, 1], &mut report);
    let mut stranger = std::net::TcpStream::connect(world.address).unwrap();
    stranger.write_all(&report).unwrap();
    until(|| world.connections.figures().dropped == 1);
    let (mut viewer, connection) = world.connect();
    viewer.write_all(&report).unwrap();
    let told = world.inputs.recv_timeout(PATIENCE).unwrap();
    let remote = connection.transport_remote();
    assert!(matches!(told, WorkerInput::Feedback(route, _) if route.remote() == remote));
    assert!(world.inputs.is_empty());
}

#[test]
fn strangers_are_counted_by_address_until_they_prove_themselves() {
    let connections = Connections::new();
    let from = |host: u8, port: u16| SocketAddr::from(([10, 0, 0, host], port));
    let local = from(1, 8555);
    let mut first = None;
    for port in 0..MAX_STRANGERS_AN_ADDRESS as u16 {
        let (connection, _) = connections.admit(from(2, port), local).unwrap();
        first.get_or_insert(connection);
    }
    assert!(matches!(connections.admit(from(2, 9_999), local), Err(Full::Address)));
    assert!(connections.admit(from(3, 1), local).is_ok(), "others have room");
    let first = first.unwrap();
    connections.note_check(first.id);
    assert!(connections.admit(from(2, 9_999), local).is_ok(), "one of them was no stranger");
    connections.forget(&first, End::Unchecked);
    let figures = connections.figures();
    assert_eq!((figures.refused, figures.strangers), (1, 0));
    assert_eq!(figures.open, MAX_STRANGERS_AN_ADDRESS as u64 + 1);
}

#[test]
fn strangers_of_a_few_addresses_keep_nobody_else_out() {
    let connections = Connections::new();
    let local = SocketAddr::from(([10, 0, 0, 1], 8555));
    let from = |host: u8, port| SocketAddr::from(([10, 0, 1, host], port));
    let addresses = MAX_STRANGERS / MAX_STRANGERS_AN_ADDRESS;
    let mut strangers = Vec::new();
    for host in 0..addresses as u8 {
        for port in 0..MAX_STRANGERS_AN_ADDRESS as u16 {
            strangers.push(connections.admit(from(host, port), local).unwrap().0);
        }
    }
    let viewer = SocketAddr::from(([192, 0, 2, 1], 4_000));
    let (viewer, _) = connections.admit(viewer, local).unwrap();
    assert!(strangers[0].closing.is_cancelled(), "the oldest of them gives way");
    assert!(!strangers[1].closing.is_cancelled());
    connections.note_check(strangers[0].id);
    connections.forget(&strangers[0], End::Unchecked);
    connections.note_check(viewer.id);
    let figures = connections.figures();
    assert_eq!((figures.evicted, figures.strangers, figures.refused), (1, 0, 0));
    assert_eq!(figures.open, MAX_STRANGERS as u64);
}

#[test]
fn what_is_no_frame_ends_the_connection() {
    let world = World::start();
    let (mut stream, _) = world.connect();
    stream.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
    until(|| world.connections.figures().framing_errors == 1);
    until(|| world.connections.figures().open == 0);
}

#[test]
fn reports_go_to_the_connections_worker() {
    let world = World::start();
    let (mut stream, connection) = world.connect();
    let mut framed = Vec::new();
    put_frame(&[0x80, 201, 0, 1, 0, 0, 0, 1], &mut framed);
    stream.write_all(&framed).unwrap();
    let told = world.inputs.recv_timeout(PATIENCE).unwrap();
    let WorkerInput::Feedback(route, packet) = told else { panic!("something else") };
    assert_eq!((route.remote(), packet.len()), (connection.transport_remote(), 8));
}
