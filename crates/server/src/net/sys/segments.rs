//! Receiving for those who watch many streams: runs of datagrams in one piece (UDP GRO), each with
//! the kernel's own time of arrival, and the count of what found no room.

use std::io;
use std::mem::{MaybeUninit, size_of, zeroed};
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::{AsRawFd, RawFd};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use socket2::{Domain, Protocol, Socket, Type};

use super::{Control, raise_buffer, set_option, socket_address};

/// Runs taken from the kernel in one call.
const RUNS_A_CALL: usize = 8;
/// The longest run that the kernel puts together: one UDP length field.
const RUN_BYTES: usize = 65_536;

/// Whether the kernel may hand several datagrams over as one piece.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Offload {
    /// It may: cheapest to receive, and over loopback to send as well, since a sender's run is
    /// never taken apart.
    Runs,
    /// Datagram by datagram, as over a network.
    None,
}

/// Opens a socket for [`Segments`], with room for `buffer` bytes that wait.
pub(crate) fn open_receiver(
    address: SocketAddr,
    buffer: usize,
    offload: Offload,
) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
    socket.set_nonblocking(true)?;
    raise_buffer(&socket, libc::SO_RCVBUFFORCE, libc::SO_RCVBUF, buffer);
    set_option(&socket, libc::SOL_SOCKET, libc::SO_TIMESTAMPNS, 1)?;
    set_option(&socket, libc::SOL_SOCKET, libc::SO_RXQ_OVFL, 1)?;
    if offload == Offload::Runs {
        // Kernels before 5.0 have none: then there are no runs.
        let _ = set_option(&socket, libc::SOL_UDP, libc::UDP_GRO, 1);
    }
    socket.bind(&address.into())?;
    Ok(socket.into())
}

/// Buffers for what arrives, reused from call to call.
pub(crate) struct Segments {
    buffers: Box<[[u8; RUN_BYTES]]>,
    runs: Vec<Arrived>,
}

/// One run in [`Segments`].
#[derive(Debug, Clone, Copy)]
struct Arrived {
    source: SocketAddr,
    len: usize,
    /// Bytes of each datagram but the last.
    segment: usize,
    at: SystemTime,
}

/// One datagram.
#[derive(Debug)]
pub(crate) struct Segment<'a> {
    /// Who sent it.
    pub(crate) source: SocketAddr,
    /// When the kernel got it.
    pub(crate) at: SystemTime,
    /// Its payload.
    pub(crate) bytes: &'a mut [u8],
}

/// What one call brought.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Taken {
    /// There was room for more: nothing else waits.
    pub(crate) all: bool,
    /// Datagrams that found no room in the socket since it was opened, as far as the kernel said in
    /// this call.
    pub(crate) overflowed: Option<u32>,
}

impl Segments {
    pub(crate) fn new() -> Self {
        let buffers = vec![[0; RUN_BYTES]; RUNS_A_CALL].into_boxed_slice();
        Self { buffers, runs: Vec::with_capacity(RUNS_A_CALL) }
    }

    /// Takes what has arrived; an error is `WouldBlock` where nothing has.
    pub(crate) fn receive(&mut self, socket: &impl AsRawFd) -> io::Result<Taken> {
        self.runs.clear();
        self.receive_from(socket.as_raw_fd())
    }

    /// The datagrams of the last call, in order of arrival.
    pub(crate) fn datagrams(&mut self) -> impl Iterator<Item = Segment<'_>> {
        self.runs.iter().zip(self.buffers.iter_mut()).flat_map(|(run, buffer)| {
            let Arrived { source, at, .. } = *run;
            let chunks = buffer[..run.len].chunks_mut(run.segment.max(1));
            chunks.map(move |bytes| Segment { source, at, bytes })
        })
    }

    fn receive_from(&mut self, fd: RawFd) -> io::Result<Taken> {
        // SAFETY: sockaddr_storage, iovec and mmsghdr are plain data for which zeroes are valid.
        let (mut names, mut slices, mut messages): (
            [libc::sockaddr_storage; RUNS_A_CALL],
            [libc::iovec; RUNS_A_CALL],
            [libc::mmsghdr; RUNS_A_CALL],
        ) = unsafe { (zeroed(), zeroed(), zeroed()) };
        let mut controls = [const { Control::new() }; RUNS_A_CALL];
        for index in 0..RUNS_A_CALL {
            slices[index].iov_base = self.buffers[index].as_mut_ptr().cast();
            slices[index].iov_len = RUN_BYTES;
            let header = &mut messages[index].msg_hdr;
            header.msg_name = std::ptr::from_mut(&mut names[index]).cast();
            header.msg_namelen = size_of::<libc::sockaddr_storage>() as u32;
            header.msg_iov = std::ptr::from_mut(&mut slices[index]);
            header.msg_iovlen = 1;
            header.msg_control = controls[index].bytes.as_mut_ptr().cast();
            header.msg_controllen = controls[index].bytes.len() as _;
        }
        // SAFETY: every message points to buffers of the given sizes that live in this frame or in
        // `self`, and nothing else refers to them during the call.
        let count = unsafe {
            libc::recvmmsg(
                fd,
                messages.as_mut_ptr(),
                RUNS_A_CALL as u32,
                libc::MSG_DONTWAIT,
                std::ptr::null_mut(),
            )
        };
        let Ok(count) = usize::try_from(count) else { return Err(io::Error::last_os_error()) };
        let mut taken = Taken { all: count < RUNS_A_CALL, overflowed: None };
        for (message, name) in messages[..count].iter().zip(&names) {
            let told = Told::read(&message.msg_hdr);
            taken.overflowed = told.overflowed.or(taken.overflowed);
            let len = message.msg_len as usize;
            let segment = told.segment.unwrap_or(len);
            // Without a source it is nobody's, and one of length 0 is passed over.
            let source = socket_address(name);
            let len = if source.is_some() { len } else { 0 };
            let nowhere = SocketAddr::from(([0, 0, 0, 0], 0));
            let (source, at) = (source.unwrap_or(nowhere), told.at.unwrap_or_else(SystemTime::now));
            self.runs.push(Arrived { source, len, segment, at });
        }
        Ok(taken)
    }
}

/// What the control messages of one run say.
#[derive(Debug, Clone, Copy, Default)]
struct Told {
    segment: Option<usize>,
    at: Option<SystemTime>,
    overflowed: Option<u32>,
}

impl Told {
    fn read(header: &libc::msghdr) -> Self {
        let mut told = Self::default();
        // SAFETY: the header was filled by recvmmsg, so its control area is a valid list of control
        // messages, which these macros walk within msg_controllen; the data of each kind is of the
        // type that udp(7) and socket(7) name, read without assuming alignment.
        unsafe {
            let mut message = libc::CMSG_FIRSTHDR(header);
            while !message.is_null() {
                let data = libc::CMSG_DATA(message);
                match ((*message).cmsg_level, (*message).cmsg_type) {
                    (libc::SOL_UDP, libc::UDP_GRO) => {
                        let bytes = data.cast::<libc::c_int>().read_unaligned();
                        told.segment = usize::try_from(bytes).ok();
                    }
                    (libc::SOL_SOCKET, libc::SCM_TIMESTAMPNS) => {
                        let mut time = MaybeUninit::<libc::timespec>::uninit();
                        std::ptr::copy_nonoverlapping(
                            data,
                            time.as_mut_ptr().cast(),
                            size_of::<libc::timespec>(),
                        );
                        told.at = moment(&time.assume_init());
                    }
                    (libc::SOL_SOCKET, libc::SO_RXQ_OVFL) => {
                        told.overflowed = Some(data.cast::<u32>().read_unaligned());
                    }
                    _ => {}
                }
                message = libc::CMSG_NXTHDR(header, message);
            }
        }
        told
    }
}

fn moment(time: &libc::timespec) -> Option<SystemTime> {
    let seconds = u64::try_from(time.tv_sec).ok()?;
    let nanoseconds = u32::try_from(time.tv_nsec).ok()?;
    UNIX_EPOCH.checked_add(Duration::new(seconds, nanoseconds))
}

#[cfg(test)]
mod tests {
    use media::batch::{Batch, Route};

    use super::*;
    use crate::net::sys::UdpPort;

    const LOOPBACK: ([u8; 4], u16) = ([127, 0, 0, 1], 0);

    /// Four datagrams of 1000, 1000, 1000 and 300 bytes, sent as one run.
    fn sent_to(receiver: &UdpSocket) {
        let port = UdpPort::bind(LOOPBACK.into()).unwrap();
        let route = Route::new(port.local_address(), receiver.local_addr().unwrap());
        let mut batch = Batch::default();
        for (index, len) in [1000, 1000, 1000, 300].into_iter().enumerate() {
            let write = |out: &mut Vec<u8>| {
                out.extend(std::iter::repeat_n(index as u8, len));
                Ok::<(), ()>(())
            };
            batch.add(&route, write).unwrap();
        }
        assert_eq!(port.send(&batch).datagrams, 4);
    }

    #[test]
    fn a_run_is_taken_apart_into_its_datagrams() {
        for offload in [Offload::Runs, Offload::None] {
            let receiver = open_receiver(LOOPBACK.into(), 1 << 20, offload).unwrap();
            let before = SystemTime::now() - Duration::from_millis(5);
            sent_to(&receiver);
            let mut segments = Segments::new();
            let taken = segments.receive(&receiver).unwrap();
            assert!(taken.all);
            let found: Vec<(usize, u8, bool)> = segments
                .datagrams()
                .map(|one| (one.bytes.len(), one.bytes[0], one.at > before))
                .collect();
            let expected = [(1000, 0, true), (1000, 1, true), (1000, 2, true), (300, 3, true)];
            assert_eq!(found, expected, "{offload:?}");
            let nothing = segments.receive(&receiver).unwrap_err();
            assert_eq!(nothing.kind(), io::ErrorKind::WouldBlock);
            assert_eq!(segments.datagrams().count(), 0);
        }
    }

    #[test]
    fn what_found_no_room_is_told() {
        let receiver = open_receiver(LOOPBACK.into(), 1, Offload::None).unwrap();
        for _ in 0..10 {
            sent_to(&receiver);
        }
        let mut segments = Segments::new();
        while segments.receive(&receiver).is_ok() {}
        sent_to(&receiver);
        // The count comes with the first datagram that has room again.
        let taken = segments.receive(&receiver).unwrap();
        assert!(taken.overflowed.is_some_and(|count| count > 10), "{taken:?}");
    }
}
