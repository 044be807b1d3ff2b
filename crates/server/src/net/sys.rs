//! The system calls that the media port needs and that no safe library offers together: UDP
//! segmentation offload in one `sendmmsg`, `recvmmsg` with packet info, an event to wake a thread.
//!
//! It knows sockets and buffers, nothing of media. The only other `unsafe` of this program wraps the
//! Opus encoder, in `ingest/opus.rs`.

mod segments;

use std::io;
use std::mem::{MaybeUninit, size_of, zeroed};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6, UdpSocket};
use std::ops::AddAssign;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use media::batch::{Batch, Run};
pub(crate) use segments::{Offload, Segment, Segments, Taken, open_receiver};
use socket2::{Domain, Protocol, SockAddr, Socket, Type};

/// Runs handed to the kernel in one call. 128 KiB of batch hold about 14 runs of 8 packets.
const RUNS_A_CALL: usize = 64;
/// Datagrams taken from the kernel in one call.
const RECEIVE_BATCH: usize = 32;
/// Longer datagrams are cut off; nothing that a viewer sends comes near.
const RECEIVE_BYTES: usize = 2048;
/// Room for UDP_SEGMENT and IPV6_PKTINFO with their headers.
const CONTROL_BYTES: usize = 128;
/// Bytes that may wait in the kernel: 50 ms of 1 Gbit/s.
const SEND_BUFFER: usize = 6 << 20;
/// Refused runs in a row, none taken in between, after which segmentation is given up. A route of a
/// single viewer may refuse it (a tunnel, a small MTU), which is nobody else's business.
const SEGMENTATION_REFUSALS_MAX: u32 = 64;
/// Feedback of thousands of viewers that arrives while a worker sends.
const RECEIVE_BUFFER: usize = 4 << 20;

/// The media port as one worker has it.
#[derive(Debug)]
pub(crate) struct UdpPort {
    socket: UdpSocket,
    local: SocketAddr,
    segmentation: AtomicBool,
    /// Runs refused in a row.
    refusals: AtomicU32,
}

/// What became of a batch.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Sent {
    /// Datagrams that the kernel took.
    pub(crate) datagrams: u64,
    /// Datagrams that it refused.
    pub(crate) refused: u64,
}

impl AddAssign for Sent {
    fn add_assign(&mut self, other: Self) {
        self.datagrams += other.datagrams;
        self.refused += other.refused;
    }
}

impl UdpPort {
    /// Binds the port; several workers may, each gets its share of the senders.
    pub(crate) fn bind(address: SocketAddr) -> io::Result<Self> {
        let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
        socket.set_reuse_port(true)?;
        if address.is_ipv6() {
            socket.set_only_v6(false)?;
        }
        socket.set_nonblocking(true)?;
        raise_buffer(&socket, libc::SO_SNDBUFFORCE, libc::SO_SNDBUF, SEND_BUFFER);
        raise_buffer(&socket, libc::SO_RCVBUFFORCE, libc::SO_RCVBUF, RECEIVE_BUFFER);
        if address.ip().is_unspecified() {
            enable_packet_info(&socket, address)?;
        }
        socket.bind(&address.into())?;
        let socket = UdpSocket::from(socket);
        let local = socket.local_addr()?;
        let (segmentation, refusals) = (AtomicBool::new(true), AtomicU32::new(0));
        Ok(Self { socket, local, segmentation, refusals })
    }

    /// Where the port is bound.
    pub(crate) fn local_address(&self) -> SocketAddr {
        self.local
    }

    /// Sends datagram by datagram from here on: what a kernel without segmentation costs.
    pub(crate) fn disable_segmentation(&self) {
        self.segmentation.store(false, Ordering::Relaxed);
    }

    /// Sends one datagram.
    pub(crate) fn send_one(&self, run: &Run, bytes: &[u8]) -> Sent {
        self.send_runs(bytes, std::slice::from_ref(run))
    }

    /// Sends a whole batch. What the kernel does not take at once is dropped and counted: media
    /// that waits is late for everybody.
    pub(crate) fn send(&self, batch: &Batch) -> Sent {
        self.send_runs(batch.bytes(), batch.runs())
    }

    /// Sends runs of `bytes` as [`Self::send`] does.
    pub(crate) fn send_runs(&self, bytes: &[u8], runs: &[Run]) -> Sent {
        let mut sent = Sent::default();
        let mut left = runs;
        while let Some(first) = left.first() {
            if first.count > 1 && !self.segmentation.load(Ordering::Relaxed) {
                sent += self.send_singly(bytes, first);
                left = &left[1..];
                continue;
            }
            match self.send_some(bytes, left) {
                Ok(taken) => {
                    if self.refusals.load(Ordering::Relaxed) > 0
                        && left[..taken].iter().any(|run| run.count > 1)
                    {
                        self.refusals.store(0, Ordering::Relaxed);
                    }
                    sent.datagrams += left[..taken].iter().map(|run| run.count as u64).sum::<u64>();
                    left = &left[taken..];
                }
                Err(error) if first.count > 1 && is_segmentation_refused(&error) => {
                    self.count_refusal(&error);
                    sent += self.send_singly(bytes, first);
                    left = &left[1..];
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => {
                    sent.refused += first.count as u64;
                    left = &left[1..];
                }
            }
        }
        sent
    }

    fn count_refusal(&self, error: &io::Error) {
        if self.refusals.fetch_add(1, Ordering::Relaxed) + 1 == SEGMENTATION_REFUSALS_MAX {
            tracing::warn!(%error, "UDP segmentation offload does not work here; sending datagram by datagram");
            self.disable_segmentation();
        }
    }

    /// The fallback: one run as datagrams of their own.
    fn send_singly(&self, bytes: &[u8], run: &Run) -> Sent {
        let end = run.start + run.len;
        let singles: Vec<Run> = (run.start..end)
            .step_by(run.segment)
            .map(|start| {
                let len = run.segment.min(end - start);
                Run { start, len, segment: len, count: 1, ..*run }
            })
            .collect();
        self.send_runs(bytes, &singles)
    }

    /// One `sendmmsg`. Returns how many runs were taken, at least one.
    fn send_some(&self, bytes: &[u8], runs: &[Run]) -> io::Result<usize> {
        let count = runs.len().min(RUNS_A_CALL);
        let mut names: [MaybeUninit<SockAddr>; RUNS_A_CALL] =
            [const { MaybeUninit::uninit() }; RUNS_A_CALL];
        let mut slices: [MaybeUninit<libc::iovec>; RUNS_A_CALL] =
            [MaybeUninit::uninit(); RUNS_A_CALL];
        let mut controls: [MaybeUninit<Control>; RUNS_A_CALL] =
            [const { MaybeUninit::uninit() }; RUNS_A_CALL];
        let mut messages: [MaybeUninit<libc::mmsghdr>; RUNS_A_CALL] =
            [MaybeUninit::uninit(); RUNS_A_CALL];
        for (index, run) in runs[..count].iter().enumerate() {
            let name =
                names[index].write(SockAddr::from(self.in_our_family(run.route.destination)));
            let payload = &bytes[run.start..run.start + run.len];
            let slice = slices[index].write(libc::iovec {
                iov_base: payload.as_ptr().cast_mut().cast(),
                iov_len: payload.len(),
            });
            let control = controls[index].write(Control::new());
            let control_len = self.fill_control(control, run);
            // SAFETY: msghdr is plain data for which all zeroes is valid (no name, no control).
            let mut header: libc::msghdr = unsafe { zeroed() };
            header.msg_name = name.as_ptr().cast_mut().cast();
            header.msg_namelen = name.len();
            header.msg_iov = slice;
            header.msg_iovlen = 1;
            if control_len > 0 {
                header.msg_control = control.bytes.as_mut_ptr().cast();
                header.msg_controllen = control_len as _;
            }
            messages[index].write(libc::mmsghdr { msg_hdr: header, msg_len: 0 });
        }
        // SAFETY: the first `count` messages are initialised, and what they point to (names,
        // slices, controls, payloads) lives in this frame or in `bytes` until the call returns.
        // The kernel only reads through iov_base, so the cast from a shared slice is sound.
        let taken = unsafe {
            libc::sendmmsg(self.socket.as_raw_fd(), messages.as_mut_ptr().cast(), count as u32, 0)
        };
        if taken < 0 { Err(io::Error::last_os_error()) } else { Ok(taken as usize) }
    }

    /// Control messages: the segment size where there are several, and our source address where
    /// the port is bound to all of them.
    fn fill_control(&self, control: &mut Control, run: &Run) -> usize {
        let mut used = 0;
        if run.count > 1 {
            used += control.put(used, libc::SOL_UDP, libc::UDP_SEGMENT, &(run.segment as u16));
        }
        let source = run.route.source.ip();
        if self.local.ip().is_unspecified() && !source.is_unspecified() {
            used += match (source, self.local) {
                (IpAddr::V4(source), SocketAddr::V4(_)) => {
                    let info = libc::in_pktinfo {
                        ipi_ifindex: 0,
                        ipi_spec_dst: libc::in_addr { s_addr: u32::from(source).to_be() },
                        ipi_addr: libc::in_addr { s_addr: 0 },
                    };
                    control.put(used, libc::IPPROTO_IP, libc::IP_PKTINFO, &info)
                }
                (source, _) => {
                    let info = libc::in6_pktinfo {
                        ipi6_addr: libc::in6_addr { s6_addr: to_v6(source).octets() },
                        ipi6_ifindex: 0,
                    };
                    control.put(used, libc::IPPROTO_IPV6, libc::IPV6_PKTINFO, &info)
                }
            };
        }
        used
    }

    /// An IPv6 socket speaks to IPv4 under mapped addresses (RFC 4291 §2.5.5.2).
    fn in_our_family(&self, address: SocketAddr) -> SocketAddr {
        match (self.local, address) {
            (SocketAddr::V6(_), SocketAddr::V4(v4)) => {
                SocketAddr::V6(SocketAddrV6::new(v4.ip().to_ipv6_mapped(), v4.port(), 0, 0))
            }
            _ => address,
        }
    }

    /// Takes what has arrived, at most one batch; 0 when there is nothing.
    pub(crate) fn receive(&self, inbox: &mut Inbox) -> usize {
        inbox.receive(self.socket.as_raw_fd(), self.local)
    }
}

/// One control message buffer, aligned as `cmsghdr` wants it.
#[repr(C, align(8))]
struct Control {
    bytes: [u8; CONTROL_BYTES],
}

impl Control {
    const fn new() -> Self {
        Self { bytes: [0; CONTROL_BYTES] }
    }

    /// Writes a control message at `offset`; returns the bytes it takes.
    fn put<T: Copy>(&mut self, offset: usize, level: i32, kind: i32, value: &T) -> usize {
        let size = size_of::<T>();
        // SAFETY: these macros of libc only compute with the size.
        let (space, len) = unsafe {
            (libc::CMSG_SPACE(size as u32) as usize, libc::CMSG_LEN(size as u32) as usize)
        };
        assert!(offset + space <= CONTROL_BYTES, "CONTROL_BYTES holds all that fill_control puts");
        let data = len - size;
        // SAFETY: `offset + space` is inside the buffer (asserted); the buffer is aligned for
        // cmsghdr and `space` keeps it so; the value is plain data copied bytewise.
        unsafe {
            let header = self.bytes.as_mut_ptr().add(offset);
            header.cast::<libc::cmsghdr>().write(libc::cmsghdr {
                cmsg_len: len as _,
                cmsg_level: level,
                cmsg_type: kind,
            });
            std::ptr::copy_nonoverlapping(
                std::ptr::from_ref(value).cast::<u8>(),
                header.add(data),
                size,
            );
        }
        space
    }
}

/// Buffers for what arrives, reused from call to call.
pub(crate) struct Inbox {
    buffers: Box<[[u8; RECEIVE_BYTES]; RECEIVE_BATCH]>,
    arrived: Vec<Arrived>,
}

/// One datagram in an [`Inbox`].
#[derive(Debug, Clone, Copy)]
struct Arrived {
    len: usize,
    source: SocketAddr,
    local: SocketAddr,
}

impl Inbox {
    pub(crate) fn new() -> Self {
        Self {
            buffers: Box::new([[0; RECEIVE_BYTES]; RECEIVE_BATCH]),
            arrived: Vec::with_capacity(RECEIVE_BATCH),
        }
    }

    /// The datagrams of the last call: source, our address, bytes.
    pub(crate) fn datagrams(
        &mut self,
    ) -> impl Iterator<Item = (SocketAddr, SocketAddr, &mut [u8])> {
        self.arrived
            .iter()
            .zip(self.buffers.iter_mut())
            .map(|(arrived, buffer)| (arrived.source, arrived.local, &mut buffer[..arrived.len]))
    }

    fn receive(&mut self, fd: RawFd, bound: SocketAddr) -> usize {
        self.arrived.clear();
        // SAFETY: sockaddr_storage, iovec and mmsghdr are plain data for which zeroes are valid.
        let (mut names, mut slices, mut messages): (
            [libc::sockaddr_storage; RECEIVE_BATCH],
            [libc::iovec; RECEIVE_BATCH],
            [libc::mmsghdr; RECEIVE_BATCH],
        ) = unsafe { (zeroed(), zeroed(), zeroed()) };
        let mut controls = [const { Control::new() }; RECEIVE_BATCH];
        for index in 0..RECEIVE_BATCH {
            slices[index].iov_base = self.buffers[index].as_mut_ptr().cast();
            slices[index].iov_len = RECEIVE_BYTES;
            let header = &mut messages[index].msg_hdr;
            header.msg_name = std::ptr::from_mut(&mut names[index]).cast();
            header.msg_namelen = size_of::<libc::sockaddr_storage>() as u32;
            header.msg_iov = std::ptr::from_mut(&mut slices[index]);
            header.msg_iovlen = 1;
            header.msg_control = controls[index].bytes.as_mut_ptr().cast();
            header.msg_controllen = CONTROL_BYTES as _;
        }
        // SAFETY: every message points to buffers of the given sizes that live in this frame or in
        // `self`, and nothing else refers to them during the call.
        let count = unsafe {
            libc::recvmmsg(
                fd,
                messages.as_mut_ptr(),
                RECEIVE_BATCH as u32,
                libc::MSG_DONTWAIT,
                std::ptr::null_mut(),
            )
        };
        for index in 0..usize::try_from(count).unwrap_or(0) {
            let header = &messages[index].msg_hdr;
            let source = socket_address(&names[index]);
            let truncated = header.msg_flags & libc::MSG_TRUNC != 0;
            // A datagram that does not fit is none of ours; its length 0 lets it be dropped.
            let len = if truncated { 0 } else { messages[index].msg_len as usize };
            let local = local_address(header).map_or(bound, |ip| SocketAddr::new(ip, bound.port()));
            self.arrived.push(Arrived { len, source: source.unwrap_or(bound), local });
        }
        self.arrived.len()
    }
}

/// The address a datagram came from, IPv4-mapped ones as IPv4.
fn socket_address(storage: &libc::sockaddr_storage) -> Option<SocketAddr> {
    let pointer = std::ptr::from_ref(storage);
    match i32::from(storage.ss_family) {
        libc::AF_INET => {
            // SAFETY: the family says that the storage holds a sockaddr_in; it is large enough.
            let v4 = unsafe { *pointer.cast::<libc::sockaddr_in>() };
            let ip = Ipv4Addr::from(u32::from_be(v4.sin_addr.s_addr));
            Some(SocketAddr::from((ip, u16::from_be(v4.sin_port))))
        }
        libc::AF_INET6 => {
            // SAFETY: the family says that the storage holds a sockaddr_in6; it is large enough.
            let v6 = unsafe { *pointer.cast::<libc::sockaddr_in6>() };
            let ip = Ipv6Addr::from(v6.sin6_addr.s6_addr).to_canonical();
            Some(SocketAddr::new(ip, u16::from_be(v6.sin6_port)))
        }
        _ => None,
    }
}

/// Our address that a datagram was sent to, where the socket asks for it.
fn local_address(header: &libc::msghdr) -> Option<IpAddr> {
    // SAFETY: the header was filled by recvmmsg, so its control area is a valid list of control
    // messages, which these macros walk within msg_controllen; the data of each kind is of the
    // type that ip(7) and ipv6(7) name, read without assuming alignment.
    unsafe {
        let mut message = libc::CMSG_FIRSTHDR(header);
        while !message.is_null() {
            let data = libc::CMSG_DATA(message);
            match ((*message).cmsg_level, (*message).cmsg_type) {
                (libc::IPPROTO_IP, libc::IP_PKTINFO) => {
                    let info = data.cast::<libc::in_pktinfo>().read_unaligned();
                    return Some(Ipv4Addr::from(u32::from_be(info.ipi_addr.s_addr)).into());
                }
                (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO) => {
                    let info = data.cast::<libc::in6_pktinfo>().read_unaligned();
                    return Some(Ipv6Addr::from(info.ipi6_addr.s6_addr).to_canonical());
                }
                _ => {}
            }
            message = libc::CMSG_NXTHDR(header, message);
        }
    }
    None
}

fn to_v6(ip: IpAddr) -> Ipv6Addr {
    match ip {
        IpAddr::V4(v4) => v4.to_ipv6_mapped(),
        IpAddr::V6(v6) => v6,
    }
}

/// EIO: the device cannot checksum what it should segment. EINVAL, EOPNOTSUPP: an old kernel.
/// EMSGSIZE: a segment is larger than the path's MTU.
fn is_segmentation_refused(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::EIO | libc::EINVAL | libc::EOPNOTSUPP | libc::ENOPROTOOPT | libc::EMSGSIZE)
    )
}

/// The forced size needs CAP_NET_ADMIN; without it as much as `net.core.*mem_max` allows.
fn raise_buffer(socket: &Socket, forced: i32, plain: i32, bytes: usize) {
    let bytes = bytes as libc::c_int;
    if set_option(socket, libc::SOL_SOCKET, forced, bytes).is_err()
        && let Err(error) = set_option(socket, libc::SOL_SOCKET, plain, bytes)
    {
        tracing::debug!(%error, "socket buffer keeps its default size");
    }
}

fn enable_packet_info(socket: &Socket, address: SocketAddr) -> io::Result<()> {
    if address.is_ipv6() {
        set_option(socket, libc::IPPROTO_IPV6, libc::IPV6_RECVPKTINFO, 1)
    } else {
        set_option(socket, libc::IPPROTO_IP, libc::IP_PKTINFO, 1)
    }
}

fn set_option(socket: &Socket, level: i32, name: i32, value: libc::c_int) -> io::Result<()> {
    // SAFETY: the option's value is an int on the stack, and its size is given.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            name,
            std::ptr::from_ref(&value).cast(),
            size_of::<libc::c_int>() as u32,
        )
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Wakes a thread that waits for its socket.
#[derive(Debug)]
pub(crate) struct Waker {
    event: OwnedFd,
    /// Set from the first wake to the return of [`wait`], so that one write is enough.
    raised: AtomicBool,
}

impl Waker {
    pub(crate) fn new() -> io::Result<Self> {
        // SAFETY: eventfd takes no pointers.
        let fd = unsafe { libc::eventfd(0, libc::EFD_NONBLOCK | libc::EFD_CLOEXEC) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the descriptor was just made and belongs to nobody else.
        let event = unsafe { OwnedFd::from_raw_fd(fd) };
        Ok(Self { event, raised: AtomicBool::new(false) })
    }

    /// Lets the thread's next, or running, [`wait`] return.
    pub(crate) fn wake(&self) {
        if self.raised.swap(true, Ordering::AcqRel) {
            return;
        }
        let one = 1u64.to_ne_bytes();
        // SAFETY: eight readable bytes, as eventfd(2) asks. It cannot fail: the counter is far
        // from its maximum, since it is read before it is raised again.
        unsafe { libc::write(self.event.as_raw_fd(), one.as_ptr().cast(), one.len()) };
    }
}

/// Sleeps until a datagram arrives, the waker is raised, or the time is over.
pub(crate) fn wait(port: &UdpPort, waker: &Waker, timeout: Option<Duration>) {
    let mut descriptors = [
        libc::pollfd { fd: port.socket.as_raw_fd(), events: libc::POLLIN, revents: 0 },
        libc::pollfd { fd: waker.event.as_raw_fd(), events: libc::POLLIN, revents: 0 },
    ];
    let limit = timeout.map(|timeout| libc::timespec {
        tv_sec: timeout.as_secs().min(3600) as libc::time_t,
        tv_nsec: timeout.subsec_nanos().into(),
    });
    let limit = limit.as_ref().map_or(std::ptr::null(), std::ptr::from_ref);
    // SAFETY: two initialised descriptors and a timespec that live until the call returns.
    unsafe { libc::ppoll(descriptors.as_mut_ptr(), 2, limit, std::ptr::null()) };
    if descriptors[1].revents != 0 {
        let mut counter = [0; 8];
        // SAFETY: eight writable bytes, as eventfd(2) asks.
        unsafe { libc::read(waker.event.as_raw_fd(), counter.as_mut_ptr().cast(), 8) };
        // An exchange and no store: whoever raised it before this has what he sent seen after it.
        waker.raised.swap(false, Ordering::AcqRel);
    }
}

/// Processor time that the calling thread has used so far, in the kernel's part as well.
pub(crate) fn thread_cpu_time() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: a timespec that lives until the call returns; it cannot fail, since every thread has
    // this clock.
    unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time) };
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// Lets the process have as many descriptors as it may: a connection takes one, and systems begin with
/// 1,024 for programs that use `select`, which this one does not.
pub(crate) fn raise_descriptor_limit() {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: both calls get a pointer to a limit that lives until they return.
    let raised = unsafe {
        libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) == 0 && {
            limit.rlim_cur = limit.rlim_max;
            libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) == 0
        }
    };
    if !raised {
        tracing::debug!(error = %io::Error::last_os_error(), "the descriptor limit stays");
    }
}

/// Lets other threads go first: handshakes must not take time from running pictures.
pub(crate) fn lower_priority() {
    const NICENESS: libc::c_int = 5;
    // SAFETY: neither call takes pointers; on Linux the priority is the thread's own.
    unsafe {
        let thread = libc::syscall(libc::SYS_gettid) as libc::id_t;
        libc::setpriority(libc::PRIO_PROCESS, thread, NICENESS);
    }
}

/// Puts the calling thread before all ordinary ones, or among them again. Threads that it starts are
/// ordinary.
pub(crate) fn set_realtime(is_wanted: bool) -> io::Result<()> {
    // The lowest of the real-time priorities, and turns with those of the same.
    let (policy, priority) = if is_wanted {
        (libc::SCHED_RR | libc::SCHED_RESET_ON_FORK, 1)
    } else {
        (libc::SCHED_OTHER, 0)
    };
    let parameters = libc::sched_param { sched_priority: priority };
    // SAFETY: parameters that live until the call returns; thread 0 is the calling one.
    let done = unsafe { libc::sched_setscheduler(0, policy, &raw const parameters) };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use media::batch::Route;

    fn batch_for(port: &UdpPort, to: SocketAddr, sizes: &[usize]) -> Batch {
        let mut batch = Batch::default();
        let route = Route::new(port.local_address(), to);
        for (index, size) in sizes.iter().enumerate() {
            batch
                .add(&route, |out| {
                    out.extend(std::iter::repeat_n(index as u8, *size));
                    Ok::<(), ()>(())
                })
                .unwrap();
        }
        batch
    }

    fn receive_sizes(receiver: &UdpSocket, count: usize) -> Vec<(usize, u8)> {
        receiver.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        let mut buffer = [0; 2048];
        (0..count)
            .map(|_| {
                let len = receiver.recv(&mut buffer).unwrap();
                (len, buffer[0])
            })
            .collect()
    }

    fn loopback() -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], 0))
    }

    #[test]
    fn a_batch_arrives_datagram_by_datagram() {
        let receiver = UdpSocket::bind(loopback()).unwrap();
        let port = UdpPort::bind(loopback()).unwrap();
        let batch = batch_for(&port, receiver.local_addr().unwrap(), &[1000, 1000, 300, 50]);
        assert_eq!(port.send(&batch), Sent { datagrams: 4, refused: 0 });
        assert_eq!(receive_sizes(&receiver, 4), [(1000, 0), (1000, 1), (300, 2), (50, 3)]);
    }

    #[test]
    fn without_segmentation_the_same_arrives() {
        let receiver = UdpSocket::bind(loopback()).unwrap();
        let port = UdpPort::bind(loopback()).unwrap();
        port.disable_segmentation();
        let batch = batch_for(&port, receiver.local_addr().unwrap(), &[1000, 1000, 300, 50]);
        assert_eq!(port.send(&batch), Sent { datagrams: 4, refused: 0 });
        assert_eq!(receive_sizes(&receiver, 4), [(1000, 0), (1000, 1), (300, 2), (50, 3)]);
    }

    #[test]
    fn segmentation_is_given_up_only_when_nobody_takes_it() {
        let receiver = UdpSocket::bind(loopback()).unwrap();
        let port = UdpPort::bind(loopback()).unwrap();
        let is_on = || port.segmentation.load(Ordering::Relaxed);
        // The kernel answers EINVAL, as for a segment over the path's MTU.
        let refused = batch_for(&port, SocketAddr::from(([127, 0, 0, 1], 0)), &[100, 100]);
        let good = batch_for(&port, receiver.local_addr().unwrap(), &[100, 100]);
        for _ in 0..SEGMENTATION_REFUSALS_MAX {
            assert_eq!(port.send(&refused), Sent { datagrams: 0, refused: 2 });
            assert_eq!(port.send(&good), Sent { datagrams: 2, refused: 0 });
            assert_eq!(receive_sizes(&receiver, 2), [(100, 0), (100, 1)]);
        }
        assert!(is_on());
        for _ in 0..SEGMENTATION_REFUSALS_MAX {
            port.send(&refused);
        }
        assert!(!is_on());
        assert_eq!(port.send(&good), Sent { datagrams: 2, refused: 0 });
    }

    #[test]
    fn a_refused_destination_costs_the_others_nothing() {
        let receiver = UdpSocket::bind(loopback()).unwrap();
        let port = UdpPort::bind(loopback()).unwrap();
        let mut batch = batch_for(&port, SocketAddr::from(([0, 0, 0, 0], 0)), &[10]);
        let route = Route::new(port.local_address(), receiver.local_addr().unwrap());
        batch
            .add(&route, |out| {
                out.push(7);
                Ok::<(), ()>(())
            })
            .unwrap();
        let sent = port.send(&batch);
        assert_eq!(sent, Sent { datagrams: 1, refused: 1 });
        assert_eq!(receive_sizes(&receiver, 1), [(1, 7)]);
    }

    #[test]
    fn the_address_a_datagram_was_sent_to_is_known() {
        for bound in ["0.0.0.0:0", "[::]:0"] {
            let port = UdpPort::bind(bound.parse().unwrap()).unwrap();
            let number = port.local_address().port();
            let sender = UdpSocket::bind(loopback()).unwrap();
            sender.send_to(b"hello", ("127.0.0.1", number)).unwrap();
            let waker = Waker::new().unwrap();
            wait(&port, &waker, Some(Duration::from_secs(5)));
            let mut inbox = Inbox::new();
            assert_eq!(port.receive(&mut inbox), 1, "{bound}");
            let (source, local, bytes) = inbox.datagrams().next().unwrap();
            assert_eq!(source, sender.local_addr().unwrap());
            assert_eq!(local, SocketAddr::from(([127, 0, 0, 1], number)));
            assert_eq!(bytes, b"hello");
        }
    }

    #[test]
    fn a_wake_before_the_wait_is_not_lost() {
        let port = UdpPort::bind(loopback()).unwrap();
        let waker = Waker::new().unwrap();
        waker.wake();
        waker.wake();
        wait(&port, &waker, None);
    }
}
