//! Places for connections, in all and for each address. IPv6 senders count by /64, which is what one customer has.

use hashbrown::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// The places of one listener. The table holds an entry for each address with a connection, so never more than places.
pub(crate) struct Connections {
    places: Arc<Semaphore>,
    by_address: Mutex<HashMap<IpAddr, usize>>,
    per_address_max: usize,
}

/// The place of one connection, given back when this is dropped.
pub(crate) struct Place {
    connections: Arc<Connections>,
    address: IpAddr,
    _permit: OwnedSemaphorePermit,
}

impl Connections {
    pub(crate) fn new(max: usize, per_address_max: usize) -> Self {
        Self { places: Arc::new(Semaphore::new(max)), by_address: Mutex::new(HashMap::new()), per_address_max }
    }

    /// Waits for a place, before a connection is accepted: until then the kernel's backlog holds it.
    pub(crate) async fn free(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.places).acquire_owned().await.ok()
    }

    /// Gives the place to an address, unless it has too many.
    pub(crate) fn take(self: &Arc<Self>, permit: OwnedSemaphorePermit, address: IpAddr) -> Option<Place> {
        let address = network(address);
        let mut by_address = self.by_address.lock().unwrap_or_else(PoisonError::into_inner);
        let count = by_address.entry(address).or_insert(0);
        if *count >= self.per_address_max {
            return None;
        }
        *count += 1;
        Some(Place { connections: Arc::clone(self), address, _permit: permit })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut by_address = self.connections.by_address.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = by_address.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                by_address.remove(&self.address);
            }
        }
    }
}

/// An IPv4 address (also where mapped into IPv6), or the /64 of an IPv6 one.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => IpAddr::V6((v6.to_bits() & !u128::from(u64::MAX)).into()),
        v4 => v4,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn addresses_count_by_network_and_places_return() {
        let connections = Arc::new(Connections::new(10, 1));
        let permit = || Arc::clone(&connections.places).try_acquire_owned().unwrap();
        let take = |address: &str| connections.take(permit(), address.parse().unwrap());
        let first = take("2001:db8::1").unwrap();
        assert!(take("2001:db8::2").is_none());
        let _other = take("2001:db8:0:1::1").unwrap();
        let _v4 = take("10.0.0.1").unwrap();
        assert!(take("::ffff:10.0.0.1").is_none());
        drop(first);
        assert!(take("2001:db8::2").is_some());
        assert_eq!(connections.by_address.lock().unwrap().len(), 2);
    }
}
