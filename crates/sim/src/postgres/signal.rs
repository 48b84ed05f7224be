//! Wakes those who wait for a change, in the order in which they began to wait.
//!
//! `tokio::sync::watch` does not: it spreads its receivers by chance, and with the order of waking the run would change.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

/// Something that can change. Clones are the same thing.
#[derive(Clone, Debug, Default)]
pub struct Signal(Arc<Mutex<Waiting>>);

#[derive(Debug, Default)]
struct Waiting {
    version: u64,
    last_number: u64,
    wakers: BTreeMap<u64, Waker>,
}

impl Signal {
    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// It has changed.
    pub fn raise(&self) {
        let wakers = {
            let mut waiting = self.waiting();
            waiting.version += 1;
            std::mem::take(&mut waiting.wakers)
        };
        wakers.into_values().for_each(Waker::wake);
    }

    /// True when it has ever changed.
    pub fn is_raised(&self) -> bool {
        self.waiting().version > 0
    }

    /// Sees every change from here on.
    pub fn subscribe(&self) -> Listener {
        Listener { signal: self.clone(), seen: self.waiting().version }
    }

    /// Waits until it has ever changed.
    pub async fn raised(&self) {
        Listener { signal: self.clone(), seen: 0 }.changed().await;
    }
}

/// Waits for changes.
#[derive(Clone, Debug)]
pub struct Listener {
    signal: Signal,
    seen: u64,
}

impl Listener {
    /// Waits until it has changed since it was last seen. Can be dropped.
    pub fn changed(&mut self) -> Changed<'_> {
        Changed { listener: self, number: None }
    }

    /// What has changed so far is seen.
    pub fn mark_seen(&mut self) {
        self.seen = self.signal.waiting().version;
    }
}

/// See [`Listener::changed`].
#[derive(Debug)]
pub struct Changed<'a> {
    listener: &'a mut Listener,
    /// Its place among those who wait.
    number: Option<u64>,
}

impl Future for Changed<'_> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let this = &mut *self;
        let mut waiting = this.listener.signal.0.lock().unwrap_or_else(PoisonError::into_inner);
        if waiting.version != this.listener.seen {
            this.listener.seen = waiting.version;
            return Poll::Ready(());
        }
        let number = *this.number.get_or_insert_with(|| {
            waiting.last_number += 1;
            waiting.last_number
        });
        waiting.wakers.insert(number, context.waker().clone());
        Poll::Pending
    }
}

impl Drop for Changed<'_> {
    fn drop(&mut self) {
        if let Some(number) = self.number {
            self.listener.signal.waiting().wakers.remove(&number);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn those_who_wait_wake_in_their_order_and_miss_nothing() {
        let (signal, order) = (Signal::default(), Arc::new(Mutex::new(Vec::new())));
        let tasks: Vec<_> = (0..50)
            .map(|number| {
                let (mut listener, order) = (signal.subscribe(), Arc::clone(&order));
                tokio::spawn(async move {
                    listener.changed().await;
                    order.lock().unwrap().push(number);
                    listener.changed().await;
                })
            })
            .collect();
        tokio::task::yield_now().await;
        signal.raise();
        signal.raise();
        tokio::task::yield_now().await;
        signal.raise();
        for task in tasks {
            task.await.unwrap();
        }
        assert_eq!(*order.lock().unwrap(), (0..50).collect::<Vec<_>>());
    }
}
