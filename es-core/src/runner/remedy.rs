//! What is done about a failed producer call: the error table.
//!
//! | call | error | remedy |
//! |---|---|---|
//! | init | fatal | stop |
//! | | fenced | again once, then stop |
//! | | anything else | again, however long it takes: the broker may be away |
//! | produce | fenced, unknown, fatal | re-create the producer: that aborts; rewind |
//! | | anything else | abort, rewind |
//! | send offsets | retriable | again |
//! | | stale member, abortable, too large | abort, rewind what is still owned |
//! | | fenced, unknown, fatal | re-create, rewind |
//! | commit | retriable | again; never abort meanwhile |
//! | | abortable, stale member, too large | abort, re-create, rewind |
//! | | fenced, unknown, fatal | **outcome unknown**: re-create, and let the stable committed offset decide |
//! | abort | retriable, abortable | again |
//! | | anything else | re-create, rewind |
//!
//! Elsewhere "again" is bounded by [`Settings::retry_for`](crate::settings::Settings); a commit that is never answered has an unknown outcome.
//! A commit or an abort that took long counts as unknown: a late copy of its request would end the next transaction, whose epoch is the same.

use crate::broker::ErrorKind;

/// A producer call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Call {
    Init,
    Produce,
    SendOffsets,
    Commit,
    Abort,
}

/// What to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Remedy {
    /// Make the identical call again.
    Again,
    /// Abort; the batch is known not to be committed.
    Abort {
        /// And re-create the producer afterwards.
        recreate: bool,
    },
    /// Re-create the producer.
    Recreate {
        /// Whether the batch may have been committed.
        unknown: bool,
    },
    /// Stop with the error.
    Stop,
}

/// The remedy for an error of a call; `late` says that the call has been repeated for too long.
pub(super) fn remedy(call: Call, error: ErrorKind, late: bool) -> Remedy {
    use ErrorKind::{Abortable, Fatal, Fenced, Retriable, StaleMember, TooLarge, Unknown};
    match (call, error) {
        (Call::Init, Fatal) => Remedy::Stop,
        (Call::Init, _) => Remedy::Again,

        (Call::Produce, Fenced | Unknown | Fatal) => Remedy::Recreate { unknown: false },
        (Call::Produce, Retriable | Abortable | StaleMember | TooLarge) => Remedy::Abort { recreate: false },

        (Call::SendOffsets, Retriable) if !late => Remedy::Again,
        (Call::SendOffsets, Retriable | StaleMember | Abortable | TooLarge) => Remedy::Abort { recreate: false },
        (Call::SendOffsets, Fenced | Unknown | Fatal) => Remedy::Recreate { unknown: false },

        (Call::Commit, Retriable) if !late => Remedy::Again,
        (Call::Commit, Abortable | StaleMember | TooLarge) => Remedy::Abort { recreate: true },
        (Call::Commit, Retriable | Fenced | Unknown | Fatal) => Remedy::Recreate { unknown: true },

        (Call::Abort, Retriable | Abortable) if !late => Remedy::Again,
        (Call::Abort, _) => Remedy::Recreate { unknown: false },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ErrorKind::*;

    #[test]
    fn only_a_commit_has_an_unknown_outcome_and_it_is_never_aborted_while_it_may_be_repeated() {
        for kind in [Retriable, Abortable, StaleMember, Fenced, Unknown, TooLarge, Fatal] {
            for late in [false, true] {
                for call in [Call::Init, Call::Produce, Call::SendOffsets, Call::Abort] {
                    assert_ne!(remedy(call, kind, late), Remedy::Recreate { unknown: true }, "{call:?} {kind:?}");
                }
            }
        }
        assert_eq!(remedy(Call::Commit, Retriable, false), Remedy::Again);
        assert_eq!(remedy(Call::Commit, Retriable, true), Remedy::Recreate { unknown: true });
        assert_eq!(remedy(Call::Commit, Fatal, false), Remedy::Recreate { unknown: true });
    }

    #[test]
    fn again_is_bounded_but_for_the_first_call_of_all() {
        for kind in [Retriable, Abortable, StaleMember, Fenced, Unknown, TooLarge, Fatal] {
            for call in [Call::Produce, Call::SendOffsets, Call::Commit, Call::Abort] {
                assert_ne!(remedy(call, kind, true), Remedy::Again, "{call:?} {kind:?}");
            }
            assert_ne!(remedy(Call::Produce, kind, false), Remedy::Again, "records are written once: {kind:?}");
            let stops = remedy(Call::Init, kind, true) == Remedy::Stop;
            assert_eq!(stops, kind == Fatal, "the broker may be away for long: {kind:?}");
        }
        for call in [Call::Init, Call::SendOffsets, Call::Commit, Call::Abort] {
            assert_eq!(remedy(call, Retriable, false), Remedy::Again, "{call:?}");
        }
        assert_eq!(remedy(Call::Abort, Abortable, false), Remedy::Again);
    }

    #[test]
    fn a_producer_that_cannot_go_on_is_made_anew() {
        for kind in [Fenced, Unknown, Fatal] {
            for call in [Call::Produce, Call::SendOffsets, Call::Abort] {
                assert_eq!(remedy(call, kind, false), Remedy::Recreate { unknown: false }, "{call:?} {kind:?}");
            }
        }
        for kind in [Abortable, StaleMember, TooLarge] {
            assert_eq!(remedy(Call::Produce, kind, false), Remedy::Abort { recreate: false }, "{kind:?}");
            assert_eq!(remedy(Call::SendOffsets, kind, false), Remedy::Abort { recreate: false }, "{kind:?}");
            // A commit that failed may still be on its way.
            assert_eq!(remedy(Call::Commit, kind, false), Remedy::Abort { recreate: true }, "{kind:?}");
        }
    }
}
