//! Finds the servers of the other members.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use pgward_core::names::MemberName;
use tokio::time::Instant;

use super::{Inner, Postgres};

/// All servers of a run. Clones are the same fleet.
#[derive(Clone)]
pub struct Fleet {
    // Weak, because every server knows its fleet.
    servers: Arc<Mutex<BTreeMap<MemberName, Weak<Inner>>>>,
    began: Instant,
}

impl Default for Fleet {
    fn default() -> Self {
        Fleet { servers: Arc::default(), began: Instant::now() }
    }
}

impl Fleet {
    pub(super) fn add(&self, server: &Postgres) {
        let mut servers = self.servers.lock().unwrap_or_else(PoisonError::into_inner);
        servers.insert(server.name().clone(), Arc::downgrade(&server.0));
    }

    /// The server of a member, while it exists.
    pub fn find(&self, name: &MemberName) -> Option<Postgres> {
        let servers = self.servers.lock().unwrap_or_else(PoisonError::into_inner);
        servers.get(name).and_then(Weak::upgrade).map(Postgres)
    }

    /// Now, in clock ticks since the beginning.
    pub(super) fn ticks(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis() / 10).unwrap_or(u64::MAX)
    }

    /// A moment as PostgreSQL prints it. Every run begins at the same time.
    pub(super) fn timestamp(&self, at: Instant) -> String {
        const BEGINS_AT_HOUR: u64 = 8;
        let since = at.saturating_duration_since(self.began);
        let seconds = since.as_secs() + BEGINS_AT_HOUR * 3600;
        let (hour, minute, second) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
        // A run lasts days at most.
        let day = 15 + hour / 24;
        format!("2027-01-{day:02} {:02}:{minute:02}:{second:02}.{:06}+00:00", hour % 24, since.subsec_micros())
    }
}
