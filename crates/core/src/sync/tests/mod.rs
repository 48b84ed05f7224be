//! Tables, vectors and random walks.

mod picking;
mod setting;
mod vectors;
mod walk;

use super::*;

/// Names of one letter each.
fn names(letters: &str) -> Names {
    letters.chars().filter(|c| c.is_alphabetic()).map(|c| c.to_string()).collect::<Vec<_>>().into()
}

fn state(leader: &str, quorum: u32, voters: &str) -> SyncState {
    let leader = Some(leader.to_owned()).filter(|leader| !leader.is_empty());
    SyncState { leader, quorum, voters: names(voters).to_vec() }
}
