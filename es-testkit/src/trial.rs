//! Code on trial: a panic in it is a finding, not the end of the test.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Once;

/// What a panic said, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Panicked {
    message: String,
    place: String,
}

impl fmt::Display for Panicked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (at {})", self.message, self.place)
    }
}

thread_local! {
    static ON_TRIAL: Cell<bool> = const { Cell::new(false) };
    static PLACE: RefCell<String> = const { RefCell::new(String::new()) };
}

/// Runs `code` and catches its panic. Nothing is printed: the caller reports it.
///
/// The process's panic hook is wrapped on the first call, because only a hook learns where a panic happened; panics of
/// code that is not on trial go on to the hook that was there.
pub(crate) fn trial<T>(code: impl FnOnce() -> T) -> Result<T, Panicked> {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let usual = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if ON_TRIAL.get() {
                PLACE.set(info.location().map_or_else(|| "an unknown place".to_owned(), ToString::to_string));
            } else {
                usual(info);
            }
        }));
    });
    let before = ON_TRIAL.replace(true);
    let result = catch_unwind(AssertUnwindSafe(code));
    ON_TRIAL.set(before);
    result.map_err(|payload| {
        let message = payload.downcast_ref::<&str>().map(|text| (*text).to_owned());
        let message = message.or_else(|| payload.downcast_ref::<String>().cloned());
        Panicked { message: message.unwrap_or_else(|| "a panic without a message".to_owned()), place: PLACE.take() }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_told_with_its_place() {
        let panicked = trial(|| panic!("no {}", "way")).unwrap_err();
        assert_eq!(panicked.message, "no way");
        assert!(panicked.place.contains("trial.rs:"), "{}", panicked.place);
        assert_eq!(trial(|| 5), Ok(5));
    }
}
