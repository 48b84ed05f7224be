//! What the fencer has been told and what follows from it: the part without any I/O, which the simulator runs as it is.

use pgward_core::time::BootInstant;

use super::protocol::{Orders, Refusal, State};

/// The orders in force.
#[derive(Clone, Copy, Debug)]
pub struct Duty {
    state: State,
    /// After the deadline: processes are left, or the agent is connected and silent, so perhaps frozen while it was
    /// about to start PostgreSQL.
    on_guard: bool,
}

impl Default for Duty {
    fn default() -> Self {
        Duty { state: State::Disarmed, on_guard: false }
    }
}

impl Duty {
    /// What it is doing.
    pub fn state(&self) -> State {
        self.state
    }

    /// True while it has to look for processes again and again, because the deadline has passed.
    pub fn is_on_guard(&self) -> bool {
        self.state == State::Fenced && self.on_guard
    }

    /// The agent has spoken: it is awake, and the reply tells it about the last fencing, so that it starts nothing out of
    /// ignorance.
    pub fn hear(&mut self) {
        if self.state == State::Fenced {
            self.on_guard = false;
        }
    }

    /// Takes new orders.
    ///
    /// # Errors
    /// [`Refusal::DeadlinePassed`]: it is too late to rely on them; the former ones stay.
    pub fn arm(&mut self, orders: Orders, now: BootInstant) -> Result<(), Refusal> {
        if now >= orders.deadline {
            return Err(Refusal::DeadlinePassed);
        }
        self.state = State::Armed(orders);
        Ok(())
    }

    /// Guards nothing from here on.
    pub fn disarm(&mut self) {
        self.state = State::Disarmed;
    }

    /// The orders whose deadline has passed: their target has to be killed now.
    pub fn overdue(&self, now: BootInstant) -> Option<Orders> {
        match self.state {
            State::Armed(orders) if now >= orders.deadline => Some(orders),
            State::Armed(_) | State::Disarmed | State::Fenced => None,
        }
    }

    /// The target was killed. It stays on guard while something is `left`, or while a connected agent is silent.
    pub fn struck(&mut self, is_left: bool, has_agent: bool) {
        self.state = State::Fenced;
        self.on_guard = is_left || has_agent;
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use pgward_core::cluster::Revision;

    use super::*;

    fn at(seconds: u64) -> BootInstant {
        BootInstant(Duration::from_secs(seconds))
    }

    fn until(seconds: u64) -> Orders {
        Orders { postmaster: None, deadline: at(seconds), epoch: Revision(1) }
    }

    #[test]
    fn orders_that_come_too_late_leave_the_former_ones_in_force() {
        let mut duty = Duty::default();
        duty.arm(until(10), at(1)).unwrap();
        assert_eq!(duty.arm(until(5), at(5)), Err(Refusal::DeadlinePassed));
        assert_eq!(duty.overdue(at(9)), None);
        assert_eq!(duty.overdue(at(10)), Some(until(10)));
    }

    #[test]
    fn it_stays_on_guard_until_the_agent_speaks() {
        let mut duty = Duty::default();
        duty.arm(until(10), at(1)).unwrap();
        duty.struck(false, true);
        assert!(duty.is_on_guard());
        duty.hear();
        assert!(!duty.is_on_guard());
        assert_eq!(duty.state(), State::Fenced, "until there are new orders");
    }
}
