//! mimalloc, told to keep less.

use libmimalloc_sys::{mi_option_set_default, mi_option_t};
use std::ffi::c_long;

/// `mi_option_purge_delay`, which the crate does not name; its number is part of mimalloc's interface.
const PURGE_DELAY: mi_option_t = 15;
/// Milliseconds. mimalloc 3 waits a thousand: a lane frees some 20 MiB with each batch, several times a second.
const SOON: c_long = 10;

/// From now on mimalloc gives back soon what was freed. `MIMALLOC_PURGE_DELAY`, where it is set, goes before this. Nothing happens where the program has
/// another allocator.
pub(crate) fn give_back_freed_memory() {
    // SAFETY: it writes an option that is read with each use; a data race on it is mimalloc's own to bear, which reads options without locks anywhere.
    unsafe { mi_option_set_default(PURGE_DELAY, SOON) };
}

#[cfg(test)]
mod tests {
    use super::*;
    use libmimalloc_sys::mi_option_get;

    #[test]
    fn the_number_is_that_of_the_purge_delay() {
        // SAFETY: it reads a number.
        let delay = || unsafe { mi_option_get(PURGE_DELAY) };
        assert_eq!(delay(), 1000, "the default of mimalloc 3");
        give_back_freed_memory();
        assert_eq!(delay(), SOON);
    }
}
