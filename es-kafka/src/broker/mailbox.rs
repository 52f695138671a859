//! Where a thread waits for whatever comes first: an item, or the bell of a librdkafka queue.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

/// Items from other threads, and a bell. The bell says "look at your queue": it is rung by librdkafka when the queue becomes non-empty,
/// and silenced by the owner *before* it reads the queue, so that nothing is missed.
#[derive(Debug)]
pub(crate) struct Mailbox<T> {
    state: Mutex<State<T>>,
    changed: Condvar,
}

#[derive(Debug)]
struct State<T> {
    items: VecDeque<T>,
    rung: bool,
    woken: bool,
}

impl<T> Default for Mailbox<T> {
    fn default() -> Self {
        Mailbox { state: Mutex::new(State { items: VecDeque::new(), rung: false, woken: false }), changed: Condvar::new() }
    }
}

impl<T> Mailbox<T> {
    /// Puts an item in and wakes the owner.
    pub(crate) fn push(&self, item: T) {
        self.lock().items.push_back(item);
        self.changed.notify_one();
    }

    /// Rings the bell and wakes the owner.
    pub(crate) fn ring(&self) {
        self.lock().rung = true;
        self.changed.notify_one();
    }

    /// Ends the owner's wait, the present one or the next, though there is nothing for it here.
    pub(crate) fn wake(&self) {
        self.lock().woken = true;
        self.changed.notify_one();
    }

    /// Whether the wait was ended by [`wake`](Mailbox::wake); from now on it is not.
    pub(crate) fn take_wake(&self) -> bool {
        std::mem::take(&mut self.lock().woken)
    }

    /// The oldest item.
    pub(crate) fn pop(&self) -> Option<T> {
        self.lock().items.pop_front()
    }

    /// Silences the bell. Read the queue after this.
    pub(crate) fn silence(&self) {
        self.lock().rung = false;
    }

    /// Waits until there is an item, the bell rings where `bell` is wanted, or somebody wakes it; false when `until` came first.
    pub(crate) fn wait(&self, until: Instant, bell: bool) -> bool {
        let mut state = self.lock();
        loop {
            if !state.items.is_empty() || (bell && state.rung) || state.woken {
                return true;
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            state = self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::thread;
    use std::time::Duration;

    #[test]
    fn a_waiting_owner_is_woken_by_an_item_and_by_the_bell() {
        let far = || Instant::now() + Duration::from_secs(60);
        let mailbox = Arc::new(Mailbox::default());
        let other = mailbox.clone();
        let sender = thread::spawn(move || other.push(7));
        assert!(mailbox.wait(far(), false));
        assert_eq!((mailbox.pop(), mailbox.pop()), (Some(7), None));
        sender.join().unwrap();
        let other = mailbox.clone();
        let sender = thread::spawn(move || other.ring());
        assert!(mailbox.wait(far(), true));
        sender.join().unwrap();
    }

    #[test]
    fn a_bell_that_rang_before_the_wait_is_not_missed_and_one_that_is_not_wanted_is_kept() {
        let mailbox = Mailbox::<()>::default();
        mailbox.silence();
        mailbox.ring();
        assert!(!mailbox.wait(Instant::now(), false));
        assert!(mailbox.wait(Instant::now(), true));
        mailbox.silence();
        assert!(!mailbox.wait(Instant::now(), true));
    }
}
