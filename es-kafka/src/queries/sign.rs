//! When the group last gave a sign that this process belongs to it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock, OnceLock};
use std::time::{Duration, Instant};

/// Set by the membership, where its protocol tells of each heartbeat; read before an answer leaves. An owner that has had none for a while may have been
/// replaced, and what it knows may be old. Clones are one.
///
/// librdkafka tells of no single heartbeat: on classic and KIP-848 groups it is never set, and no answer counts as stale. In memory a lane is a member as
/// long as it polls.
#[derive(Debug, Clone, Default)]
pub(crate) struct Sign(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    last: OnceLock<AtomicU64>,
    /// Until when news are expected.
    hasty: AtomicU64,
}

/// Handles are the same when what they set is.
impl PartialEq for Sign {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for Sign {}

/// What times are counted from.
static START: LazyLock<Instant> = LazyLock::new(Instant::now);

impl Sign {
    /// It was a member at this time, or later. A heartbeat that was answered proves so of the time when it was sent.
    pub(crate) fn seen(&self, at: Instant) {
        let at = at.saturating_duration_since(*START).as_millis() as u64;
        self.0.last.get_or_init(AtomicU64::default).store(at, Ordering::Release);
    }

    /// News of the group are expected within this time: whoever is a member asks for them sooner than it must.
    #[cfg_attr(not(feature = "http"), allow(dead_code, reason = "who watches the others expects news"))]
    pub(crate) fn expect_news(&self, time: Duration) {
        let until = (START.elapsed() + time).as_millis() as u64;
        self.0.hasty.fetch_max(until, Ordering::AcqRel);
    }

    /// Whether news are expected.
    pub(crate) fn expects_news(&self) -> bool {
        START.elapsed().as_millis() < u128::from(self.0.hasty.load(Ordering::Acquire))
    }

    /// How long ago the last one was; `None` where there are none.
    pub(crate) fn age(&self) -> Option<Duration> {
        let last = Duration::from_millis(self.0.last.get()?.load(Ordering::Acquire));
        Some(START.elapsed().saturating_sub(last))
    }
}
