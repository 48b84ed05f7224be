//! What the agent knows about the local server between two observations: shared by the cycle and the long actions.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use pgward_core::cluster::{MemberRole, PostgresState};
use pgward_core::time::BootInstant;

use crate::host::Host;

/// The state that actions change and the cycle reads.
#[derive(Clone)]
pub struct Local<P> {
    state: Arc<Mutex<LocalState<P>>>,
    host: Arc<dyn Host>,
}

/// See [`Local`].
#[derive(Clone)]
pub struct LocalState<P> {
    /// What PostgreSQL is doing, as far as we made it so or saw it.
    pub state: PostgresState,
    /// The cached role (IN-P2).
    pub role: MemberRole,
    /// The postmaster seen last.
    pub postmaster: Option<P>,
    /// When the present start began.
    pub starting_since: Option<BootInstant>,
    /// This agent has started the server, or has managed it for a cycle (DIR-8).
    pub managed: bool,
}

impl<P: Clone> Local<P> {
    /// Nothing known yet.
    pub fn new(role: MemberRole, host: Arc<dyn Host>) -> Self {
        let state = Arc::new(Mutex::new(LocalState {
            state: PostgresState::Stopped,
            role,
            postmaster: None,
            starting_since: None,
            managed: false,
        }));
        Local { state, host }
    }

    fn lock(&self) -> MutexGuard<'_, LocalState<P>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A copy of the present state.
    pub fn get(&self) -> LocalState<P> {
        self.lock().clone()
    }

    /// Changes it.
    pub fn update(&self, change: impl FnOnce(&mut LocalState<P>)) {
        change(&mut self.lock());
    }

    /// Sets what PostgreSQL is doing.
    pub fn set_state(&self, state: PostgresState) {
        self.lock().state = state;
    }

    /// Sets the role.
    pub fn set_role(&self, role: MemberRole) {
        self.lock().role = role;
    }

    /// A postmaster was spawned.
    pub fn started(&self, postmaster: P) {
        let now = self.host.boot_now();
        let mut local = self.lock();
        local.state = PostgresState::Starting;
        local.postmaster = Some(postmaster);
        local.starting_since = Some(now);
        local.managed = true;
    }

    /// The server accepts connections.
    pub fn accepts(&self) {
        let mut local = self.lock();
        local.state = PostgresState::Running;
        local.starting_since = None;
    }

    /// The postmaster is gone; `state` says why.
    pub fn ended(&self, state: PostgresState) {
        let mut local = self.lock();
        local.state = state;
        local.postmaster = None;
        local.starting_since = None;
    }
}
