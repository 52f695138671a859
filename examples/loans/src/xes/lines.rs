//! Counts lines on the way.

use std::io::{self, BufRead, Read};

/// A reader that knows on which line it is.
pub(super) struct Lines<R> {
    inner: R,
    line: u64,
}

impl<R> Lines<R> {
    pub(super) fn new(inner: R) -> Self {
        Lines { inner, line: 1 }
    }

    /// The line, from 1.
    pub(super) fn line(&self) -> u64 {
        self.line
    }
}

impl<R: BufRead> Read for Lines<R> {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        let length = self.fill_buf()?.len().min(to.len());
        to[..length].copy_from_slice(&self.inner.fill_buf()?[..length]);
        self.consume(length);
        Ok(length)
    }
}

impl<R: BufRead> BufRead for Lines<R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        self.inner.fill_buf()
    }

    fn consume(&mut self, length: usize) {
        // What is consumed was filled before: asking for it again reads nothing.
        if let Ok(filled) = self.inner.fill_buf() {
            self.line += filled[..length.min(filled.len())].iter().filter(|byte| **byte == b'\n').count() as u64;
        }
        self.inner.consume(length);
    }
}
