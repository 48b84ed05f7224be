//! The keys of one cluster, kept up to date by reads and changes.

use std::collections::BTreeMap;
use std::sync::Arc;

use pgward_core::cluster::{Cluster, RawKey, Revision};

/// One key that changed, or disappeared when `after` is `None`.
#[derive(Clone, Debug)]
pub(crate) struct Change {
    pub suffix: String,
    pub revision: Revision,
    pub after: Option<RawKey>,
}

/// Everything below the prefix at one revision.
#[derive(Debug)]
pub(crate) struct Picture {
    keys: BTreeMap<String, RawKey>,
    revision: Revision,
    cluster: Arc<Cluster>,
}

impl Picture {
    pub(crate) fn new(revision: Revision, keys: impl IntoIterator<Item = RawKey>) -> Picture {
        let keys = keys.into_iter().map(|key| (key.suffix.clone(), key)).collect();
        let mut picture = Picture { keys, revision, cluster: Arc::default() };
        picture.rebuild();
        picture
    }

    pub(crate) fn revision(&self) -> Revision {
        self.revision
    }

    pub(crate) fn cluster(&self) -> &Arc<Cluster> {
        &self.cluster
    }

    /// True when both hold the same keys, at whatever revision of the store.
    pub(crate) fn has_same_keys(&self, other: &Picture) -> bool {
        self.keys == other.keys
    }

    /// Applies changes in the order of their revisions; those that are known already change nothing. True when
    /// something changed.
    pub(crate) fn apply(&mut self, changes: impl IntoIterator<Item = Change>) -> bool {
        let known = self.revision;
        let mut has_changed = false;
        for change in changes.into_iter().filter(|change| change.revision > known) {
            has_changed = true;
            self.revision = self.revision.max(change.revision);
            match change.after {
                Some(key) => self.keys.insert(change.suffix, key),
                None => self.keys.remove(&change.suffix),
            };
        }
        if has_changed {
            self.rebuild();
        }
        has_changed
    }

    fn rebuild(&mut self) {
        self.cluster = Arc::new(Cluster::from_keys(self.revision, self.keys.values().cloned()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pgward_core::cluster::LeaseId;

    fn key(value: &str, revision: i64) -> RawKey {
        RawKey {
            suffix: "leader".to_owned(),
            value: value.into(),
            create_revision: Revision(1),
            mod_revision: Revision(revision),
            lease: LeaseId(1),
        }
    }

    fn change(revision: i64, after: Option<RawKey>) -> Change {
        Change { suffix: "leader".to_owned(), revision: Revision(revision), after }
    }

    #[test]
    fn changes_that_a_read_has_seen_already_are_dropped() {
        let mut picture = Picture::new(Revision(5), [key("a", 3)]);
        assert!(!picture.apply([change(4, None), change(5, Some(key("x", 5)))]));
        assert_eq!(picture.cluster().leader.as_ref().unwrap().name.as_str(), "a");
    }

    #[test]
    fn all_changes_of_one_revision_count() {
        let mut picture = Picture::new(Revision(5), [key("a", 3)]);
        assert!(picture.apply([change(6, None), change(6, Some(key("b", 6))), change(7, Some(key("c", 7)))]));
        assert_eq!(picture.cluster().leader.as_ref().unwrap().name.as_str(), "c");
        assert_eq!((picture.revision(), picture.cluster().revision), (Revision(7), Revision(7)));
    }
}
