//! Who has a place among a listener's connections: by address, and by whether he has proved himself.
//!
//! A connection is a stranger until it proves itself, and gives its place up to a newcomer when there
//! is no other: the oldest stranger of the network that has most of them. So whoever opens many
//! connections takes places from himself. Knows no sockets and no time; the caller closes what is
//! evicted.

use std::collections::{BTreeSet, HashMap};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// How many places there are.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// Of all.
    pub(crate) all: usize,
    /// Of one address, see [`address_of`].
    pub(crate) an_address: usize,
    /// Of strangers. Fewer than `all`.
    pub(crate) strangers: usize,
    /// Of strangers of one address.
    pub(crate) strangers_an_address: usize,
    /// What becomes of more strangers of one address.
    pub(crate) crowd: Crowd,
}

/// What becomes of a newcomer whose address has as many strangers as it may.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Crowd {
    /// It is refused: those who are there get time to prove themselves.
    Refused,
    /// It takes the place of the oldest: whoever proves himself at once gets in, though another
    /// behind the same NAT goes on taking places.
    Replaces,
}

/// Names a connection. Rises, and is never used again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct PlaceId(pub(crate) u64);

/// Why there is no place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Full {
    /// The newcomer's address has all that it gets.
    Address,
    /// All are taken by those who proved themselves.
    All,
}

/// What a connection that has a place is. One that was evicted has none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Standing {
    /// Has proved nothing yet, and may be evicted.
    Stranger,
    /// Stays for as long as it likes.
    Proven,
}

/// Somebody got in.
#[derive(Debug)]
pub(crate) struct Admitted<T> {
    /// What stands in the place.
    pub(crate) guest: T,
    /// Who gave way. It has no place any more, and is to be closed.
    pub(crate) evicted: Option<T>,
}

struct Place<T> {
    ip: IpAddr,
    standing: Standing,
    guest: T,
}

/// What one address has. Never nothing.
#[derive(Debug, Default)]
struct Share {
    places: usize,
    strangers: BTreeSet<PlaceId>,
}

/// All places of a listener. `T` is what the caller keeps of a connection.
pub(crate) struct Admission<T> {
    limits: Limits,
    places: HashMap<PlaceId, Place<T>>,
    by_address: HashMap<IpAddr, Share>,
    /// No network has none.
    strangers_by_network: HashMap<IpAddr, BTreeSet<PlaceId>>,
    strangers: usize,
    last: PlaceId,
}

impl<T: Clone> Admission<T> {
    /// Nobody is there yet.
    pub(crate) fn new(limits: Limits) -> Self {
        Self {
            limits,
            places: HashMap::new(),
            by_address: HashMap::new(),
            strangers_by_network: HashMap::new(),
            strangers: 0,
            last: PlaceId(0),
        }
    }

    /// Connections that have a place.
    pub(crate) fn len(&self) -> usize {
        self.places.len()
    }

    /// What stands in a place.
    pub(crate) fn find(&self, id: PlaceId) -> Option<&T> {
        self.places.get(&id).map(|place| &place.guest)
    }

    /// Gives a stranger from `ip` a place. `make` is told its name.
    pub(crate) fn admit(
        &mut self,
        ip: IpAddr,
        make: impl FnOnce(PlaceId) -> T,
    ) -> Result<Admitted<T>, Full> {
        let evicted = self.who_gives_way(ip)?.and_then(|id| self.leave(id)).map(|(guest, _)| guest);
        self.last.0 += 1;
        let id = self.last;
        let guest = make(id);
        let place = Place { ip, standing: Standing::Stranger, guest: guest.clone() };
        self.places.insert(id, place);
        let share = self.by_address.entry(address_of(ip)).or_default();
        share.places += 1;
        share.strangers.insert(id);
        self.strangers_by_network.entry(network_of(ip)).or_default().insert(id);
        self.strangers += 1;
        Ok(Admitted { guest, evicted })
    }

    /// A connection proved itself. False if it had done so before, or has no place any more.
    pub(crate) fn prove(&mut self, id: PlaceId) -> bool {
        let Some(place) = self.places.get_mut(&id) else { return false };
        match place.standing {
            Standing::Proven => false,
            Standing::Stranger => {
                place.standing = Standing::Proven;
                let ip = place.ip;
                self.forget_stranger(id, ip);
                true
            }
        }
    }

    /// A connection is gone. `None` if it had no place any more.
    pub(crate) fn leave(&mut self, id: PlaceId) -> Option<(T, Standing)> {
        let Place { ip, standing, guest } = self.places.remove(&id)?;
        if standing == Standing::Stranger {
            self.forget_stranger(id, ip);
        }
        let address = address_of(ip);
        if let Some(share) = self.by_address.get_mut(&address) {
            share.places -= 1;
            if share.places == 0 {
                self.by_address.remove(&address);
            }
        }
        Some((guest, standing))
    }

    /// Whose place a newcomer from `ip` takes; `None` if there is a free one.
    fn who_gives_way(&self, ip: IpAddr) -> Result<Option<PlaceId>, Full> {
        let limits = &self.limits;
        if let Some(share) = self.by_address.get(&address_of(ip)) {
            let is_crowd = share.strangers.len() >= limits.strangers_an_address;
            if is_crowd && limits.crowd == Crowd::Refused {
                return Err(Full::Address);
            }
            if is_crowd || share.places >= limits.an_address {
                return share.strangers.first().copied().map(Some).ok_or(Full::Address);
            }
        }
        if self.places.len() < limits.all && self.strangers < limits.strangers {
            return Ok(None);
        }
        // At most `limits.strangers` networks are looked through, some microseconds.
        let networks = self.strangers_by_network.values();
        let fullest = networks.max_by_key(|ids| (ids.len(), std::cmp::Reverse(ids.first())));
        fullest.and_then(BTreeSet::first).copied().map(Some).ok_or(Full::All)
    }

    fn forget_stranger(&mut self, id: PlaceId, ip: IpAddr) {
        self.strangers -= 1;
        if let Some(share) = self.by_address.get_mut(&address_of(ip)) {
            share.strangers.remove(&id);
        }
        let network = network_of(ip);
        if let Some(ids) = self.strangers_by_network.get_mut(&network) {
            ids.remove(&id);
            if ids.is_empty() {
                self.strangers_by_network.remove(&network);
            }
        }
    }
}

impl<T> std::fmt::Debug for Admission<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { places, strangers, .. } = self;
        write!(f, "Admission({} places, {strangers} of strangers)", places.len())
    }
}

/// What one customer of an access provider has: an address, of IPv6 a network (RFC 6177 §2).
pub(crate) fn address_of(ip: IpAddr) -> IpAddr {
    prefix_of(ip, 32, 64)
}

/// What is handed out to one customer of a data centre, or to one site: somebody with many addresses
/// has them here.
fn network_of(ip: IpAddr) -> IpAddr {
    prefix_of(ip, 24, 48)
}

/// The first bits of an address, the others 0. Both numbers are above 0, and at most the length.
fn prefix_of(ip: IpAddr, v4_bits: u32, v6_bits: u32) -> IpAddr {
    // A socket for IPv6 sees IPv4 under mapped addresses (RFC 4291 §2.5.5.2).
    match ip.to_canonical() {
        IpAddr::V4(ip) => Ipv4Addr::from(u32::from(ip) & (u32::MAX << (32 - v4_bits))).into(),
        IpAddr::V6(ip) => Ipv6Addr::from(u128::from(ip) & (u128::MAX << (128 - v6_bits))).into(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LIMITS: Limits = Limits {
        all: 12,
        an_address: 6,
        strangers: 8,
        strangers_an_address: 4,
        crowd: Crowd::Refused,
    };

    fn ip(network: u8, host: u8) -> IpAddr {
        IpAddr::from([10, 0, network, host])
    }

    type Guests = Admission<PlaceId>;

    fn admit(guests: &mut Guests, ip: IpAddr) -> Result<(PlaceId, Option<PlaceId>), Full> {
        guests.admit(ip, |id| id).map(|Admitted { guest, evicted }| (guest, evicted))
    }

    #[test]
    fn strangers_of_a_large_network_give_way_to_one_of_a_small_one() {
        let mut guests = Guests::new(LIMITS);
        let (quiet, _) = admit(&mut guests, ip(9, 1)).unwrap();
        let crowd: Vec<_> = (0..7).map(|host| admit(&mut guests, ip(1, host)).unwrap().0).collect();
        let evicted = |guests: &mut Guests, ip| admit(guests, ip).unwrap().1;
        assert_eq!(evicted(&mut guests, ip(2, 1)), Some(crowd[0]));
        assert_eq!(evicted(&mut guests, ip(3, 1)), Some(crowd[1]));
        assert_eq!(evicted(&mut guests, ip(1, 99)), Some(crowd[2]), "a crowd takes from itself");
        assert!(guests.find(quiet).is_some());
        assert_eq!(guests.len(), LIMITS.strangers);
    }

    #[test]
    fn those_who_proved_themselves_stay_and_a_full_house_is_full() {
        let mut guests = Guests::new(LIMITS);
        let stay: Vec<_> = (0..12)
            .map(|host| {
                let (id, evicted) = admit(&mut guests, ip(host, 1)).unwrap();
                assert!(evicted.is_none() && guests.prove(id) && !guests.prove(id));
                id
            })
            .collect();
        assert_eq!(admit(&mut guests, ip(77, 1)), Err(Full::All));
        assert_eq!(guests.leave(stay[3]), Some((stay[3], Standing::Proven)));
        let (stranger, _) = admit(&mut guests, ip(77, 1)).unwrap();
        let (_, evicted) = admit(&mut guests, ip(78, 1)).unwrap();
        assert_eq!(evicted, Some(stranger), "strangers give way first");
        assert_eq!(guests.leave(stranger), None, "it was evicted, and leaves once only");
        assert!(!guests.prove(stranger), "and proves nothing any more");
    }

    #[test]
    fn a_crowd_from_one_address_is_refused_or_replaces_itself() {
        let mut guests = Guests::new(LIMITS);
        let first = admit(&mut guests, ip(1, 1)).unwrap().0;
        for _ in 0..3 {
            admit(&mut guests, ip(1, 1)).unwrap();
        }
        assert_eq!(admit(&mut guests, ip(1, 1)), Err(Full::Address));
        assert!(admit(&mut guests, ip(1, 2)).is_ok(), "its neighbour has room");
        guests.limits.crowd = Crowd::Replaces;
        assert_eq!(admit(&mut guests, ip(1, 1)).unwrap().1, Some(first));
    }

    #[test]
    fn an_address_gets_no_more_than_its_share() {
        let mut guests = Guests::new(Limits { crowd: Crowd::Replaces, ..LIMITS });
        for _ in 0..5 {
            let (id, _) = admit(&mut guests, ip(1, 1)).unwrap();
            guests.prove(id);
        }
        let (last, _) = admit(&mut guests, ip(1, 1)).unwrap();
        let (newer, evicted) = admit(&mut guests, ip(1, 1)).unwrap();
        assert_eq!(evicted, Some(last));
        guests.prove(newer);
        assert_eq!(admit(&mut guests, ip(1, 1)), Err(Full::Address));
    }

    #[test]
    fn addresses_of_one_ipv6_network_count_as_one() {
        let address = |text: &str| address_of(text.parse().unwrap());
        assert_eq!(address("2001:db8:1:2:aaaa::1"), address("2001:db8:1:2:bbbb::2"));
        assert_ne!(address("2001:db8:1:2::1"), address("2001:db8:1:3::1"));
        assert_ne!(address("192.0.2.1"), address("192.0.2.2"));
        assert_eq!(address("::ffff:192.0.2.1"), address("192.0.2.1"));
        let network = |text: &str| network_of(text.parse().unwrap());
        assert_eq!(network("2001:db8:1:2::1"), network("2001:db8:1:3::1"));
        assert_ne!(network("2001:db8:1::1"), network("2001:db8:2::1"));
        assert_eq!(network("192.0.2.1"), network("192.0.2.2"));
    }

    #[derive(Debug, Clone)]
    enum Step {
        Admit(u8, u8),
        Prove(u64),
        Leave(u64),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            3 => (0_u8..5, 0_u8..3).prop_map(|(network, host)| Step::Admit(network, host)),
            1 => (1_u64..60).prop_map(Step::Prove),
            1 => (1_u64..60).prop_map(Step::Leave),
        ];
        prop::collection::vec(step, 0..200)
    }

    proptest! {
        #[test]
        fn every_connection_is_counted_once_and_nothing_is_left_over(steps in steps()) {
            let mut guests = Guests::new(Limits { crowd: Crowd::Replaces, ..LIMITS });
            for step in steps {
                match step {
                    Step::Admit(network, host) => {
                        admit(&mut guests, ip(network, host)).ok();
                    }
                    Step::Prove(id) => {
                        guests.prove(PlaceId(id));
                    }
                    Step::Leave(id) => {
                        guests.leave(PlaceId(id));
                    }
                }
                let is_stranger = |place: &&Place<_>| place.standing == Standing::Stranger;
                let strangers = guests.places.values().filter(is_stranger).count();
                prop_assert_eq!(guests.strangers, strangers);
                let networks = guests.strangers_by_network.values();
                prop_assert_eq!(networks.map(BTreeSet::len).sum::<usize>(), strangers);
                let places: usize = guests.by_address.values().map(|share| share.places).sum();
                prop_assert_eq!(places, guests.len());
                prop_assert!(places <= LIMITS.all && strangers <= LIMITS.strangers);
                let shares = guests.by_address.values();
                prop_assert!(shares.into_iter().all(|share| share.places <= LIMITS.an_address
                    && share.strangers.len() <= LIMITS.strangers_an_address));
            }
            let all: Vec<_> = guests.places.keys().copied().collect();
            prop_assert!(all.into_iter().all(|id| guests.leave(id).is_some()));
            prop_assert!(guests.by_address.is_empty() && guests.strangers_by_network.is_empty());
        }
    }
}
