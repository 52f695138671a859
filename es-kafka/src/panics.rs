//! Panics of a user's `decide` and `fold` are caught and become dead letters; the hook that a binary installs keeps them from stderr, and
//! keeps where they happened for those that are not caught by the engine.

use std::any::Any;
use std::cell::RefCell;

/// How the names of lanes' threads begin.
pub(crate) const LANE: &str = "lane ";

thread_local! {
    static LAST: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Installs the hook. Panics on other threads than the lanes' are shown as before.
#[cfg(feature = "cli")]
pub(crate) fn install_hook() {
    let before = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        if std::thread::current().name().is_some_and(|name| name.starts_with(LANE)) {
            tracing::debug!("{info}");
            LAST.set(Some(info.to_string()));
        } else {
            before(info);
        }
    }));
}

/// What the panic of this thread said, and where it happened if the hook is installed.
pub(crate) fn message(payload: &(dyn Any + Send)) -> String {
    LAST.take().unwrap_or_else(|| match (payload.downcast_ref::<String>(), payload.downcast_ref::<&str>()) {
        (Some(message), _) => message.clone(),
        (_, Some(message)) => (*message).to_owned(),
        _ => "a panic without a message".to_owned(),
    })
}
