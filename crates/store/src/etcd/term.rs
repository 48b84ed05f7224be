//! Recognises members of etcd that have been left behind by the others (DCS-E6).

use std::time::Duration;

use pgward_core::time::BootInstant;

/// After this long without any answer of the newest known term, an older term is believed: etcd was restored from a
/// backup, which keeps its cluster id and starts to count anew.
const RESTORED_AFTER: Duration = Duration::from_secs(30);

/// The newest raft term seen in each answer.
#[derive(Debug, Default)]
pub(super) struct TermGuard {
    cluster_id: u64,
    term: u64,
    /// When an answer of `term` was seen last.
    seen: BootInstant,
}

impl TermGuard {
    /// Says why an answer must not be believed.
    pub(super) fn check(&mut self, cluster_id: u64, term: u64, now: BootInstant) -> Result<(), String> {
        let is_same_cluster = cluster_id == self.cluster_id;
        if is_same_cluster && term < self.term && now.since(self.seen) < RESTORED_AFTER {
            return Err(format!("the endpoint is stale: it answers from raft term {term}, others from {}", self.term));
        }
        *self = TermGuard { cluster_id, term, seen: now };
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_older_term_is_refused_until_nobody_knows_the_newer_one_any_more() {
        let at = |seconds| BootInstant(Duration::from_secs(seconds));
        let mut guard = TermGuard::default();
        assert!(guard.check(7, 4, at(0)).is_ok());
        assert!(guard.check(7, 5, at(1)).is_ok());
        assert!(guard.check(7, 4, at(2)).is_err(), "left behind");
        assert!(guard.check(8, 1, at(3)).is_ok(), "another cluster counts for itself");
        assert!(guard.check(7, 2, at(4)).is_ok(), "so does the first one when it comes back");
        assert!(guard.check(7, 1, at(5)).is_err());
        assert!(guard.check(7, 1, at(35)).is_ok(), "restored from a backup");
    }
}
