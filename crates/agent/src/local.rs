//! What the agent knows about the local server between two observations: shared by the cycle and the long actions.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use pgward_core::cluster::{MemberRole, PostgresState};
use pgward_core::time::BootInstant;
use pgward_postgres::Postmaster;

/// The state that actions change and the cycle reads.
#[derive(Clone)]
pub(crate) struct Local(Arc<Mutex<LocalState>>);

/// See [`Local`].
#[derive(Clone)]
pub(crate) struct LocalState {
    /// What PostgreSQL is doing, as far as we made it so or saw it.
    pub state: PostgresState,
    /// The cached role (IN-P2).
    pub role: MemberRole,
    /// The postmaster seen last.
    pub postmaster: Option<Postmaster>,
    /// When the present start began.
    pub starting_since: Option<BootInstant>,
    /// This agent has started the server, or has managed it for a cycle (DIR-8).
    pub managed: bool,
}

impl Local {
    /// Nothing known yet.
    pub(crate) fn new(role: MemberRole) -> Self {
        Local(Arc::new(Mutex::new(LocalState {
            state: PostgresState::Stopped,
            role,
            postmaster: None,
            starting_since: None,
            managed: false,
        })))
    }

    fn lock(&self) -> MutexGuard<'_, LocalState> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A copy of the present state.
    pub(crate) fn get(&self) -> LocalState {
        self.lock().clone()
    }

    /// Changes it.
    pub(crate) fn update(&self, change: impl FnOnce(&mut LocalState)) {
        change(&mut self.lock());
    }

    /// Sets what PostgreSQL is doing.
    pub(crate) fn set_state(&self, state: PostgresState) {
        self.lock().state = state;
    }

    /// Sets the role.
    pub(crate) fn set_role(&self, role: MemberRole) {
        self.lock().role = role;
    }

    /// A postmaster was spawned.
    pub(crate) fn started(&self, postmaster: Postmaster, now: BootInstant) {
        let mut local = self.lock();
        local.state = PostgresState::Starting;
        local.postmaster = Some(postmaster);
        local.starting_since = Some(now);
        local.managed = true;
    }

    /// The server accepts connections.
    pub(crate) fn accepts(&self) {
        let mut local = self.lock();
        local.state = PostgresState::Running;
        local.starting_since = None;
    }

    /// The postmaster is gone; `state` says why.
    pub(crate) fn ended(&self, state: PostgresState) {
        let mut local = self.lock();
        local.state = state;
        local.postmaster = None;
        local.starting_since = None;
    }
}
